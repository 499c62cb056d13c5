"""Small generated images in the true format of every data source that a recipe names."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from mixerkit.spec.recipe import Recipe
from tests.miniature.amount import Amount
from tests.miniature.sets import WRITERS
from tests.training.runs import SAMPLE

COUNT = 40  # of training images
FEW = Amount(classes=3, train=COUNT // 3 + 1, test=2)


def with_data(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, for generated images in `folder`."""
    source = recipe.data.source
    if source == "fashion-mnist":
        place = replace(recipe.data, root=str(SAMPLE), holdout=100)
    elif source in WRITERS:
        WRITERS[source](folder / source, FEW)
        place = replace(recipe.data, root=str(folder / source))
    else:
        make = make_shards if "-jft" in recipe.name else make_folder
        make(folder / source)
        place = replace(recipe.data, source=str(folder / source))
    return replace(recipe, data=place)


def photo(number: int, suffix: str = ".jpg") -> bytes:
    """A photograph of noise in large squares, of a size of its own."""
    random = np.random.default_rng(number)
    small = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    image = Image.fromarray(small).resize((80 + number % 5, 70 + number % 3))
    file = io.BytesIO()
    image.save(file, "JPEG" if suffix == ".jpg" else "PNG")
    return file.getvalue()


def put(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(photo(number))


def make_folder(root: Path) -> None:
    for i in range(COUNT):
        put(root / ("ants", "bees", "wasps")[i % 3] / f"{i}.jpg", i)


def make_shards(root: Path) -> None:
    """Tar archives in WebDataset's form: NUMBER.jpg beside NUMBER.cls."""
    root.mkdir(parents=True)
    for shard in range(2):
        with tarfile.open(root / f"train-{shard:04}.tar", "w") as archive:
            for i in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                for suffix, content in ((".jpg", photo(i)), (".cls", str(i % 3).encode())):
                    member = tarfile.TarInfo(f"{i:04}{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
