"""Models written in the layouts of other implementations: the tensors' bits stay as they are."""

import os
from pathlib import Path

from torch import Tensor

from mixerkit.checkpoint.files import atomic_file, check_new
from mixerkit.checkpoint.layouts import LAYOUTS, Layout, their_name
from mixerkit.checkpoint.npz import write_npz
from mixerkit.checkpoint.tensors import write_tensors
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer

SUFFIX = {"google": ".npz", "google-older": ".npz", "timm": ".safetensors"}
"""Layouts that are single files → their suffix; "mixerkit" is a folder (`load.save_model`)."""


def write_layout(path: Path, model: MlpMixer, layout: str) -> list[str]:
    """Write `model` to the file `path` in a layout of `SUFFIX`.

    Returns sentences about what that layout cannot say. Raises `UserError` for a model that it
    cannot hold, and for an existing file.
    """
    chosen = LAYOUTS[layout]
    if path.suffix != SUFFIX[layout]:
        raise UserError(f"{chosen.title} is a {SUFFIX[layout]} file, found {path}.")
    check_new(path)
    tensors = in_layout(model, chosen)
    if path.suffix == ".npz":
        write_npz(path, tensors)
    else:
        with atomic_file(path) as temporary:
            write_tensors(temporary, tensors)
            temporary.chmod(0o666 & ~_umask())  # safetensors writes for the owner alone
    return _lost(model, chosen)


def in_layout(model: MlpMixer, layout: Layout) -> dict[str, Tensor]:
    """The model's tensors under the names and with the axes of `layout`."""
    config = model.config
    if config.tiles != 1:
        raise UserError(
            "Shared tiles are mixerkit's own form of a larger image. To write the model for "
            "others, make it dense (`--enlargement dense`), or go back to its native image size."
        )
    if (config.token_mixer, config.channel_mixer, config.norm) != ("mlp", "mlp", True):
        raise UserError(f"{layout.title} holds the paper's Mixer only, with its norms and MLPs.")
    return {
        str(their_name(layout, name)): _in_their_order(name, tensor, layout)
        for name, tensor in model.state_dict().items()
    }


def _in_their_order(name: str, tensor: Tensor, layout: Layout) -> Tensor:
    if not layout.flax or not name.endswith(".weight"):
        return tensor
    if name == "stem.weight":
        return tensor.permute(2, 3, 1, 0).contiguous()
    return tensor.T.contiguous() if tensor.ndim == 2 else tensor


def _lost(model: MlpMixer, layout: Layout) -> list[str]:
    """What readers of the layout will take for granted although this model differs."""
    config, lost = model.config, []
    if config.gelu != layout.gelu:
        lost.append(
            f"Readers of {layout.title} compute the {layout.gelu} GELU; this model was trained "
            f"with {config.gelu}."
        )
    if config.norm_eps != 1e-6:
        lost.append(f"Readers take 1e-06 for LayerNorm's epsilon; here it is {config.norm_eps:g}.")
    if config.pad:
        lost.append("Readers do not know that images are padded.")
    lost.append("Image size, preprocessing, class names and figures are not in this kind of file.")
    return lost


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
