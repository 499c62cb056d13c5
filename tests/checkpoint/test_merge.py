"""Weights into a model that is there already: all of them, or one list and nothing touched."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load_weights
from mixerkit.checkpoint.tensors import write_tensors
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from tests.checkpoint import published
from tests.checkpoint.conftest import TINY

WIDE = replace(TINY, image_size=(8, 16), in_channels=3, gelu="erf")


def in_timms_names(config: MixerConfig, path: Path, **changes: torch.Tensor | None) -> Path:
    """A random model as timm names it; `changes` replaces tensors (dots as `__`), None drops."""
    names = {"stem.": "stem.proj.", "token_norm": "norm1", "token_mixing": "mlp_tokens",
             "channel_norm": "norm2", "channel_mixing": "mlp_channels"}  # fmt: skip
    tensors: dict[str, torch.Tensor | None] = {}
    for name, tensor in MlpMixer(config).state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        tensors[name] = tensor
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    write_tensors(path, {name: t for name, t in tensors.items() if t is not None})
    return path


def refused(model: MlpMixer, path: Path) -> str:
    """The error; the model's bits are as they were."""
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UserError) as error:
        load_weights(model, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    return str(error.value)


def test_the_model_says_what_size_its_images_have(tmp_path: Path):
    """Eight tokens form no square, and the file cannot tell."""
    model = MlpMixer(WIDE)
    path = in_timms_names(WIDE, tmp_path / "x.safetensors", head__bias=torch.tensor([1.0, 2, 3]))
    load_weights(model, path)
    assert model.head.bias.tolist() == [1, 2, 3]


def test_files_whose_shape_cannot_be_told_are_compared_tensor_by_tensor(tmp_path: Path):
    path = in_timms_names(
        WIDE,
        tmp_path / "x.safetensors",
        stem__proj__weight=None,
        blocks__0__mlp_tokens__fc1__weight=torch.ones(5),
        blocks__1__norm2__bias=torch.full((6,), torch.nan),
        norm__bias=torch.ones(6, dtype=torch.int32),
        head__bias=torch.ones(4),
        more=torch.ones(1),
    )
    message = refused(MlpMixer(WIDE), path)
    for line in (
        "missing: stem.weight",
        "unexpected: more",
        "blocks.0.token_mixing.fc1.weight: expected [5, 8], found [5]",
        "head.bias: expected [3], found [4]",
        "blocks.1.channel_norm.bias: NaN or infinity",
        "norm.bias: expected numbers of F32, F16, BF16, found I32",
    ):
        assert f"\n  {line}\n" in message, message


def test_every_tensor_that_is_not_finite_is_listed(tmp_path: Path):
    names = [f"blocks__{block}__norm{i}__bias" for block in (0, 1) for i in (1, 2)]
    names += ["head__bias", "norm__bias"]
    broken = {name: torch.full((3 if "head" in name else 6,), torch.inf) for name in names}
    path = in_timms_names(WIDE, tmp_path / "x.safetensors", **broken)
    assert refused(MlpMixer(WIDE), path).count("NaN or infinity") == 6


def test_a_model_whose_head_was_exchanged_by_hand_is_not_half_loaded(tmp_path: Path):
    model = MlpMixer(WIDE)
    model.head = torch.nn.Linear(6, 5)
    message = refused(model, in_timms_names(WIDE, tmp_path / "x.safetensors"))
    assert "head.weight: expected [5, 6], found [3, 6]" in message


def test_a_bridge_that_cannot_be_built_hides_no_difference(tmp_path: Path):
    """Resizing to 10 pixels would need padding, which the file does not know."""
    model = MlpMixer(replace(WIDE, image_size=10, pad=True))
    message = refused(model, in_timms_names(WIDE, tmp_path / "x.safetensors"))
    assert "token_mixing.fc1.weight: expected [5, 9], found [5, 8]" in message


def test_whole_numbers_in_an_npz_are_one_line_among_others(tmp_path: Path):
    arrays = published.linen(published.TINY)
    arrays["head/bias"] = np.zeros(3, np.int32)
    arrays["pre_head_layer_norm/bias"] = np.full(12, np.nan, np.float32)
    del arrays["head/kernel"]
    model = MlpMixer(
        MixerConfig(image_size=12, patch_size=4, width=12, depth=2, token_width=5,
                    channel_width=20, num_classes=3)
    )  # fmt: skip
    message = refused(model, published.write(tmp_path / "x.npz", arrays))
    for line in ("missing: head.weight", "head/bias: expected numbers", "norm.bias: NaN or inf"):
        assert line in message
