"""Small generated images in the true format of every data source that a recipe names."""

import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from mixerkit.spec.recipe import Recipe
from tests.training.runs import SAMPLE

COUNT = 40  # of training images
WNIDS = ("n01440764", "n02012849", "n03126707")


def with_data(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe, for generated images in `folder`."""
    source = recipe.data.source
    if source == "fashion-mnist":
        place = replace(recipe.data, root=str(SAMPLE), holdout=100)
    elif source in NAMED:
        NAMED[source](folder / source)
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


def make_imagenet(root: Path) -> None:
    for i in range(COUNT):
        put(root / "train" / WNIDS[i % 3] / f"{WNIDS[i % 3]}_{i}.JPEG", i)
    for i in range(6):
        put(root / "val" / WNIDS[i % 3] / f"ILSVRC2012_val_{i:08}.JPEG", i)


def make_pets(root: Path) -> None:
    for name, count in (("trainval", COUNT), ("test", 6)):
        lines = []
        for i in range(count):
            kind = ("Abyssinian", "beagle")[i % 2]
            lines.append(f"{kind}_{name}{i} {i % 2 + 1} {i % 2 + 1} 1\n")
            put(root / "images" / f"{kind}_{name}{i}.jpg", i)
        (root / "annotations").mkdir(exist_ok=True)
        head = "#Image CLASS-ID SPECIES BREED\n"
        (root / "annotations" / f"{name}.txt").write_text(head + "".join(lines))


def make_flowers(root: Path) -> None:
    total = COUNT + 12
    for i in range(total):
        put(root / "jpg" / f"image_{i + 1:05}.jpg", i)
    ids = np.arange(1, total + 1, dtype=np.uint16)[None]
    savemat(root / "imagelabels.mat", {"labels": (ids % 102 + 1).astype(np.uint8)})
    sets = {"trnid": ids[:, :COUNT], "valid": ids[:, COUNT:-6], "tstid": ids[:, -6:]}
    savemat(root / "setid.mat", sets)


def cifar(path: Path, labels: np.ndarray) -> None:
    """Records of label bytes [N, 1 or 2] and 3072 bytes of pixels."""
    random = np.random.default_rng(len(labels))
    pixels = random.integers(0, 256, (len(labels), 3072), dtype=np.uint8)
    np.concatenate([labels.astype(np.uint8), pixels], 1).tofile(path)


def make_cifar10(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "batches.meta.txt").write_text("\n".join(f"class {i}" for i in range(10)))
    for number in range(1, 6):
        cifar(root / f"data_batch_{number}.bin", np.arange(COUNT // 2)[:, None] % 10)
    cifar(root / "test_batch.bin", np.arange(10)[:, None])


def make_cifar100(root: Path) -> None:
    root.mkdir(parents=True)
    (root / "fine_label_names.txt").write_text("\n".join(f"class {i}" for i in range(100)))
    for name, count in (("train", 300), ("test", 20)):
        fine = np.arange(count)[:, None] % 100
        cifar(root / f"{name}.bin", np.concatenate([fine // 5, fine], 1))


NAMED = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "flowers102": make_flowers,
    "pets": make_pets,
    "imagenet": make_imagenet,
}
