"""Weights from a file under our names: all of them, or one error that lists what differs."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from mixerkit.checkpoint.layouts import Sizes
from mixerkit.checkpoint.recognise import Contents, contents, open_weights
from mixerkit.checkpoint.stored import Stored
from mixerkit.checkpoint.tensors import TensorFile, not_finite, part_of
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig

NAMES_SHOWN = 5
NUMBERS = ("F32", "F16", "BF16")
"""What is read; the two narrow kinds become float32, which changes no value."""


def read_tensors_of(stored: Stored) -> dict[str, Tensor]:
    """Every tensor of the model, float32, under our names and with our order of axes.

    Memory is taken only for what has proved to fit, and for one tensor at a time. On any
    difference one `UserError` lists it.
    """
    description = "recipe.yaml" if stored.part else "config.json"
    with opened(stored) as file:
        found = contents(file)
        ours = found.layout.name == "mixerkit"
        if stored.part and not ours:
            raise UserError(f"{stored.weights} holds the weights of another model than our Mixer.")
        _check_depth(stored, len(file.shapes))
        described = f"{stored.weights.with_name(description)}"
        tensors, lines = _read(file, found, sizes_of(stored.config, described))
    if not lines:
        return tensors
    what = f"the model that {description} beside it describes" if ours else f"{found.layout.title}"
    advice = (
        f"Give it the {description} that it was saved with."
        if ours
        else "The file is incomplete, or of another architecture."
    )
    raise UserError(_differs(stored, what, lines, advice))


def _differs(stored: Stored, what: str, lines: list[str], advice: str) -> str:
    return f"{stored.weights} does not fit {what}:\n  " + "\n  ".join(lines) + f"\n{advice}"


@contextlib.contextmanager
def opened(stored: Stored) -> Iterator[TensorFile]:
    """The file of the model's tensors, or its part of it."""
    with open_weights(stored.weights) as file:
        yield part_of(file, stored.part) if stored.part else file


def _read(file: TensorFile, found: Contents, wanted: Sizes) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors called as in `wanted`, and a line for each that is missing, unexpected, of
    another shape or kind, or not finite. Where there is a line, no tensor is kept."""
    dtypes = {name: file.shapes[place.name].dtype for name, place in found.places.items()}
    lines = differences(wanted, found.sizes)
    lines += [f"unexpected: {name}" for name in found.unknown]
    lines += [
        f"{found.places[name].name}: expected numbers of {', '.join(NUMBERS)}, found {dtype}"
        for name, dtype in dtypes.items()
        if dtype not in NUMBERS
    ]
    tensors: dict[str, Tensor] = {}
    for name, size in wanted.items():
        if found.sizes.get(name) == size and dtypes[name] in NUMBERS:
            tensor = in_our_order(file.read(found.places[name].name), found, name)
            if not_finite({name: tensor}):
                lines.append(f"{name}: NaN or infinity")
            elif not lines:
                tensors[name] = tensor
        if lines:
            tensors.clear()
    return tensors, lines


def in_our_order(tensor: Tensor, found: Contents, name: str) -> Tensor:
    """A tensor as it lies in the file → float32 with our axes, in memory of its own."""
    size = found.sizes[name]
    if not found.places[name].flax:
        return tensor.float()
    if name == "stem.weight":
        return tensor.permute(3, 2, 0, 1).float().contiguous()
    if len(size) == 2:
        return tensor.reshape(size[::-1]).T.float().contiguous()
    return tensor.reshape(size).float()


def sizes_of(config: MixerConfig, what: str = "This configuration") -> Sizes:
    """Name and shape of every tensor of a model, without taking memory for it."""
    try:
        with torch.device("meta"):
            return {name: tuple(t.shape) for name, t in MlpMixer(config).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:
        raise UserError(f"{what} describes a model too large to exist.") from error


def assemble(config: MixerConfig, tensors: dict[str, Tensor]) -> MlpMixer:
    """The model that has `tensors` themselves as its parameters; nothing is copied."""
    with torch.device("meta"):
        model = MlpMixer(config)
    model.load_state_dict(tensors, assign=True)
    return model.requires_grad_(True)


def _check_depth(stored: Stored, tensors: int) -> None:
    """Refuse, before a model is built to compare with, a depth that the file cannot hold."""
    if stored.config.depth > tensors:
        raise UserError(
            f"{stored.weights} holds {tensors} tensors, too few for the depth of "
            f"{stored.config.depth} that it or its config.json claims."
        )


def differences(wanted: Sizes, found: Sizes) -> list[str]:
    """One line for each tensor that is missing, unexpected, or of another shape."""
    lines = [f"missing: {name}" for name in wanted if name not in found]
    lines += [f"unexpected: {name}" for name in found if name not in wanted]
    lines += [
        f"{name}: expected {list(wanted[name])}, found {list(found[name])}"
        for name in wanted
        if name in found and wanted[name] != found[name]
    ]
    return lines


FUNCTION = (
    "gelu", "norm_eps", "patch_size", "tile_grid", "pad", "token_mixer", "token_groups",
    "channel_mixer",
)  # fmt: skip
"""What changes a model's outputs and need not show in the shapes."""


def merge_into(model: MlpMixer, stored: Stored) -> None:
    """Put stored weights into an existing model of the same configuration, all of them.

    On any difference one `UserError` lists it and names the arguments of `load` that would
    bridge it; the model is then as it was.
    """
    own = model.state_dict()
    wanted = {name: tuple(tensor.shape) for name, tensor in own.items()}
    with opened(stored) as file:
        tensors, lines = _read(file, contents(file), wanted)
    lines += [
        f"{name}: the model has {getattr(model.config, name)}, the weights were made for "
        f"{getattr(stored.config, name)}"
        for name in FUNCTION
        if getattr(model.config, name) != getattr(stored.config, name)
    ]
    if lines:
        bridge = _bridge(model.config, stored.config)
        raise UserError(_differs(stored, "this model", lines, bridge))
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


def _bridge(wanted: MixerConfig, found: MixerConfig) -> str:
    """The arguments of `load` that make the weights fit, or that there are none."""
    names = ("image_size", "patch_size", "in_channels", "num_classes", "gelu")
    asked = {n: getattr(wanted, n) for n in names if getattr(wanted, n) != getattr(found, n)}
    with contextlib.suppress(UserError):  # no such model
        same_depth = wanted.depth == found.depth  # else not built to compare: it may be a million
        if asked and same_depth and sizes_of(replace(found, **asked)) == sizes_of(wanted):
            arguments = ", ".join(f"{name}={value!r}" for name, value in asked.items())
            return f"mixerkit.load(…, {arguments}) gives a model with these weights."
    return "They are of another architecture, or damaged."


def check_finite(tensors: dict[str, Tensor], what: str) -> None:
    """Raise `UserError` naming the tensors of `what` that hold NaN or infinity."""
    broken = not_finite(tensors)
    if broken:
        raise UserError(f"{what} has NaN or infinite weights in: {listed(broken)}.")


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more
