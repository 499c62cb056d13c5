"""What a file of weights is, from the names and shapes of its tensors: nothing is read yet."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.layouts import LAYOUTS, Found, Layout, Sizes, recognise
from mixerkit.checkpoint.npz import open_npz
from mixerkit.checkpoint.pickled import open_pth
from mixerkit.checkpoint.tensors import TensorFile, is_shard, open_safetensors
from mixerkit.errors import UserError
from mixerkit.spec.mixer import MixerConfig, Size, as_pair

OPENERS = {
    ".safetensors": open_safetensors,
    ".npz": open_npz,
    ".pth": open_pth,
    ".pt": open_pth,
    ".bin": open_pth,
    ".tar": open_pth,  # timm's train.py writes last.pth.tar
}
EXPORTED = (".onnx", ".xml")
"""Files that `mixer export` writes for other runtimes; they do not come back."""
NAMES_SHOWN = 4


@dataclass(frozen=True)
class Contents:
    """The tensors of a file under our names: where each is, its size in our order of axes, the
    names that no Mixer has, and how many tensors are beside a training checkpoint's weights."""

    layout: Layout
    places: dict[str, Found]
    sizes: Sizes
    unknown: list[str]
    beside: int


def _opener(path: Path) -> Callable[[Path], AbstractContextManager[TensorFile]]:
    if not is_shard(path.name):
        return OPENERS[path.suffix]
    from mixerkit.checkpoint.shards import open_shards

    return lambda shard: open_shards(shard.parent)


@contextmanager
def open_weights(path: Path) -> Iterator[TensorFile]:
    """The named tensors of a .safetensors, .npz, .pth, .pt or .bin file."""
    if path.suffix not in OPENERS:
        raise UserError(
            f"Expected a file of weights ({', '.join(OPENERS)}) or a folder, found {path}"
            + (
                ", which is exported: give the model that it was exported from."
                if path.suffix in EXPORTED
                else "."
            )
        )
    if not path.is_file():
        raise UserError(f"{path} is missing, or not a plain file.")
    with _opener(path)(path) as file:
        yield file


def contents(file: TensorFile) -> Contents:
    """Which layout the file has, and every tensor under our name."""
    found = recognise(file.shapes)
    if found is None:
        names = ", ".join(list(file.shapes)[:NAMES_SHOWN]) or "none"
        known = "; ".join(layout.title for layout in LAYOUTS.values())
        raise UserError(
            f"{file.path} holds no Mixer: its {len(file.shapes)} tensors are called {names} … "
            f"Known are the names of {known}."
        )
    sizes = {
        ours: our_size(ours, file.shapes[place.name].size, place.flax)
        for ours, place in found.tensors.items()
    }
    return Contents(found.layout, found.tensors, sizes, found.unknown, found.beside)


def our_size(name: str, size: tuple[int, ...], flax: bool) -> tuple[int, ...]:
    """The shape that a tensor gets under our name `name`.

    Flax's dense kernels [in, out] and stem [P, P, I, C] are turned round; the oldest files also
    have axes of length 1 too many, which go.
    """
    if not flax:
        return size
    if name == "stem.weight":
        return (size[3], size[2], size[0], size[1]) if len(size) == 4 else size
    matrix = name.endswith(".weight") and "norm" not in name
    plain = list(size)
    while len(plain) > (2 if matrix else 1) and 1 in plain:
        plain.remove(1)
    return tuple(plain[::-1]) if matrix else tuple(plain)


def infer(
    found: Contents,
    path: Path,
    image_size: Size | None = None,
    likely_size: Size | None = None,
    **known: Any,
) -> MixerConfig:
    """The configuration whose tensors these are.

    `image_size` is needed where the tokens form no square; `likely_size` is taken where it fits
    their number. `known` are settings that no shape tells, such as `gelu`.
    """
    sizes = found.sizes
    blocks = [int(m[1]) for name in sizes if (m := re.match(r"blocks\.(\d+)\.", name))]
    needed = (
        "stem.weight",
        "blocks.0.token_mixing.fc1.weight",
        "blocks.0.channel_mixing.fc1.weight",
    )
    absent = [name for name in needed if len(sizes.get(name, ())) != (4 if "stem" in name else 2)]
    if absent:
        raise UserError(
            f"{path} looks like {found.layout.title}, but the shape of the model cannot be told: "
            f"missing or of unusual shape: {', '.join(absent)}."
        )
    width, channels, patch_h, patch_w = sizes["stem.weight"]
    token_width, tokens = sizes["blocks.0.token_mixing.fc1.weight"]
    return MixerConfig(
        image_size=_image_size(path, tokens, (patch_h, patch_w), image_size, likely_size),
        patch_size=(patch_h, patch_w),
        in_channels=channels,
        width=width,
        depth=max(blocks) + 1,
        token_width=token_width,
        channel_width=sizes["blocks.0.channel_mixing.fc1.weight"][0],
        num_classes=sizes["head.weight"][0] if "head.weight" in sizes else 0,
        **known,
    )


def _image_size(
    path: Path, tokens: int, patch: tuple[int, int], asked: Size | None, likely: Size | None
) -> Size:
    """The image size that is asked for, or a likely one, or the square that so many tokens form."""
    if asked is not None:
        if _tokens(asked, patch) != tokens:
            raise UserError(
                f"{path} mixes {tokens} tokens of {patch[0]} × {patch[1]} px; images of "
                f"native_size={asked!r} have {_tokens(asked, patch)}."
            )
        return asked
    if likely is not None and _tokens(likely, patch) == tokens:
        return likely
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise UserError(
            f"{path} mixes {tokens} tokens, which form no square: say the size of its images, "
            f"native_size=(height, width)."
        )
    return (side * patch[0], side * patch[1])


def _tokens(size: Size, patch: tuple[int, int]) -> int:
    height, width = as_pair(size)
    return (height // patch[0]) * (width // patch[1])
