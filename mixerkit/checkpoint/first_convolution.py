"""The filters through which a network sees an image first, in weights of any project: a CNN's first
convolution, or a patch embedding.

A file of weights does not say in which order its layers are, so names and shapes must tell:

1. Tensors [N, I, h, w] with more than one filter, larger than 1 × 1, that see I = 1 or 3 channels.
2. Where some see three, those that see one are left out: they are depthwise layers further in. So
   is, in a network for grey images, what calls itself depthwise.
3. Of several that are left the first form of name in `FIRST` decides, and then the name with the
   fewest parts.

Letters: N filters, I image channels, h and w their height and width.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mixerkit.checkpoint.checkpoint_model import (
    NEWEST,
    choose,
    is_checkpoint,
    split_name,
    stored_checkpoint,
)
from mixerkit.checkpoint.find import find
from mixerkit.checkpoint.hub import HUB, fetch_from_hub
from mixerkit.checkpoint.merge import opened
from mixerkit.checkpoint.opening import has_run
from mixerkit.checkpoint.recognise import OPENERS, open_weights
from mixerkit.checkpoint.stored import WEIGHTS, Stored
from mixerkit.checkpoint.tensors import TensorFile, not_finite
from mixerkit.errors import UserError

FIRST = (
    r"(\w+_)?stem(_\w+)?(\.\w+)*",  # timm, and our own patch embedding
    r"conv_?1(\.0|\.conv)?",  # ResNets
    r"features\.(0(\.0)?|conv0|init_block(\.\w+)*)",  # torchvision
    r"(patch_)?embed\w*(\.\w+)*",  # Hugging Face, and Transformers
    r"conv_?0(\.0|\.conv)?",
    r"(first|init|initial)_conv\w*(\.\w+)*",
)
"""Names of a first layer, without what its network is called in, from the surest to the vaguest."""
DEPTHWISE = re.compile(r"dw|depthwise", re.IGNORECASE)
FLAX = (3, 2, 0, 1)
"""Axes of a "kernel" of Flax, [h, w, I, N], in the order of PyTorch."""
FILES = (WEIGHTS, "pytorch_model.bin")
"""In a folder of timm's or Hugging Face's."""
SHOWN = 5


@dataclass(frozen=True)
class FirstConvolution:
    """`name` of the tensor in its file, its weights [N, I, h, w] in float32, and a sentence about
    what was chosen where the file has weights more than once."""

    name: str
    weight: np.ndarray
    note: str = ""


def first_convolution(source: str) -> FirstConvolution:
    """The filters that see an image first in the network that `source` names: a file of weights, a
    folder of timm's or Hugging Face's, hf://ORG/NAME, a run of ours whatever it trains (its newest
    checkpoint) or one of its checkpoints, or zoo:NAME.

    Raises `UserError` where there are none, or names do not say which they are."""
    with _opened(source) as file:
        sizes = {name: shape.size for name, shape in file.shapes.items()}
        flax = {name for name, size in sizes.items() if name.endswith("kernel") and len(size) == 4}
        sizes |= {name: tuple(sizes[name][axis] for axis in FLAX) for name in flax}
        name = first_name(sizes, source)
        tensor = file.read(name).float()
        if not_finite({name: tensor}):
            raise UserError(f"{source}: {name} holds NaN or infinity, which cannot be drawn.")
        weight = (tensor.permute(FLAX) if name in flax else tensor).contiguous()
        return FirstConvolution(name, weight.numpy(), file.note)


@contextlib.contextmanager
def _opened(source: str) -> Iterator[TensorFile]:
    place = _place(source)
    with open_weights(place) if isinstance(place, Path) else opened(place) as file:
        yield file


def _place(source: str) -> Path | Stored:
    """The file of weights, or the part of a checkpoint, that `source` names."""
    path = fetch_from_hub(source) if source.startswith(HUB) else Path(source).expanduser()
    folder = path.parent if path.is_file() else path
    if is_checkpoint(folder):
        return stored_checkpoint(folder)
    if path.is_file():
        return path
    if has_run(path):
        return choose(path, NEWEST)
    for name in FILES:
        if (path / name).is_file():
            return path / name
    stored = find(source) if source.startswith("zoo:") or split_name(source) else None
    if stored is None:
        raise UserError(_what_is_wanted(path))
    return stored


def _what_is_wanted(path: Path) -> str:
    """A message about something that is no place of weights; of a study, which runs it has."""
    runs = sorted(run.name for run in (path / "runs").glob("*") if has_run(run))
    if runs:
        return f"{path} is a study: give one of its runs, such as {path / 'runs' / runs[0]}."
    found = "holds no weights that are known" if path.exists() else "does not exist"
    return (
        f"{path} {found}. Expected a file of weights ({', '.join(OPENERS)}), a folder with "
        f"{' or '.join(FILES)}, hf://ORG/NAME, a run of ours or RUN@{NEWEST}, or zoo:NAME."
    )


def first_name(sizes: dict[str, tuple[int, ...]], source: str) -> str:
    """The name of the first convolution among tensors of these sizes."""
    seeing = [name for name, size in sizes.items() if _may_see(size)]
    colour = [name for name in seeing if sizes[name][1] == 3]
    left = colour or [name for name in seeing if not DEPTHWISE.search(name)]
    if not left:
        raise UserError(
            f"{source} has no convolution that could see an image: expected a tensor "
            f"[filters, 1 or 3 channels, height, width] larger than 1 × 1, found none among "
            f"{len(sizes):,} tensors."
        )
    rank = {name: _rank(name) for name in left}
    best = [name for name in left if rank[name] == min(rank.values())]
    if len(best) > 1:
        more = ", …" if len(best) > SHOWN else ""
        raise UserError(
            f"{source} has {len(best)} convolutions that could see an image first "
            f"({', '.join(best[:SHOWN])}{more}), and their names do not say which does: save that "
            f"one alone, and give its file."
        )
    return best[0]


def _may_see(size: tuple[int, ...]) -> bool:
    return len(size) == 4 and size[0] > 1 and size[1] in (1, 3) and size[2] * size[3] > 1


def _rank(name: str) -> tuple[int, int]:
    """Place in `FIRST`, and how deep the name is: the smallest is the first layer."""
    bare = re.sub(r"\.(weight|kernel)$", "", name.replace("/", "."))
    places = [i for i, form in enumerate(FIRST) if re.fullmatch(rf"(.+\.)?{form}", bare)]
    return places[0] if places else len(FIRST), bare.count(".")
