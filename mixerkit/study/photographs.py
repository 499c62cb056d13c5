"""A few hundred photographs in ImageNet's folder form, cut from the background pictures of Debian.

Each class is one photograph, and its images are parts of it at ImageNet's usual size: good for
measuring how fast and how large things are, not how accurate.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from mixerkit.data.decode import open_image
from mixerkit.data.download import fetch_from_debian
from mixerkit.spec.imagenet import imagenet_names

PACKAGES = {
    "mate-backgrounds": (
        *("Aqua.jpg", "Blinds.jpg", "Dune.jpg", "FreshFlower.jpg", "Garden.jpg", "GreenMeadow.jpg"),
        *("LadyBird.jpg", "RainDrops.jpg", "Storm.jpg", "TwoWings.jpg", "Wood.jpg"),
        "YellowFlower.jpg",
    ),
    "lomiri-wallpapers-16.04": (
        *(
            "Bridge_by_Sander_Klootwijk.jpg",
            "Dragonfly_by_Bolly.jpg",
            "Picture_0B_by_freespace.jpg",
        ),
        *("Picture_1A_by_freespace.jpg", "Wine_by_Jakkub_Mede.jpg", "free_by_Peter_Nerlich.jpg"),
        *("aitzgorri_by_Aitzol_Berasategi.jpg", "friends_by_Aitzol_Berasategi.jpg"),
        *("greentock_by_Peter_Nerlich.jpg", "life_by_Aitzol_Berasategi.jpg"),
        *("picosdeeuropa_by_Aitzol_Berasategi.jpg", "sunset_by_Aitzol_Berasategi.jpg"),
    ),
}
"""Those of each package that are photographs; their licences are in the packages."""
SIZE, QUALITY = (500, 375), 90
"""Width and height of an image, and how JPEG keeps it."""
PER_CLASS = 8
"""Images of each class, in the training and in the validation split."""


def photographs() -> Iterator[tuple[str, Image.Image]]:
    """The name of each photograph and its pixels, [H, W, 3] in 8 bits."""
    for package, names in PACKAGES.items():
        with fetch_from_debian(package, list(names)) as folder:
            for name in names:
                yield name, open_image(folder / name)


def imagenet_of(folder: Path, pictures: Iterator[tuple[str, Image.Image]], per_class: int) -> None:
    """Write `train/` and `val/` below `folder`, with `per_class` parts of each picture as JPEG
    files under one of ImageNet's numbers. The same ones every time."""
    draws = np.random.default_rng(0)
    for wnid, (_, picture) in zip(sorted(imagenet_names()), pictures, strict=False):
        for split in ("train", "val"):
            (folder / split / wnid).mkdir(parents=True)
            for number in range(per_class):
                part = _part(picture, draws.random(3))
                part.save(folder / split / wnid / f"{wnid}_{number}.JPEG", quality=QUALITY)


def _part(picture: Image.Image, draw: np.ndarray) -> Image.Image:
    """A part of half to all of the picture's shorter side, at ImageNet's size."""
    picture = picture.convert("RGB")
    share, across, down = draw
    scale = (0.5 + 0.5 * share) * min(picture.width / SIZE[0], picture.height / SIZE[1])
    width, height = SIZE[0] * scale, SIZE[1] * scale
    left, top = across * (picture.width - width), down * (picture.height - height)
    box = (left, top, left + width, top + height)
    return picture.resize(SIZE, Image.Resampling.BICUBIC, box=box)
