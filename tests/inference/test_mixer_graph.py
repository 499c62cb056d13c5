"""The exported graph against the eager model, in ONNX Runtime and in OpenVINO."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from mixerkit.data.augment import normalise
from mixerkit.inference.mixer_graph import METADATA, Form, folded, followed, mixer_graph
from mixerkit.inference.runtimes import open_graph
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import from_dict
from mixerkit.spec.token_mixers import TOKEN_MIXERS

SMALL = MixerConfig(
    image_size=(28, 20),
    patch_size=4,
    in_channels=1,
    width=24,
    depth=2,
    token_width=12,
    channel_width=48,
    num_classes=7,
)
GROUPS = {"attention": 4, "grouped": 3}
CONFIGS = {
    name: replace(SMALL, token_mixer=name, token_groups=GROUPS.get(name, 1))
    for name in TOKEN_MIXERS
}
CONFIGS |= {
    "erf": replace(SMALL, gelu="erf"),
    "no head": replace(SMALL, num_classes=0),
    "padded": replace(SMALL, image_size=(31, 30), patch_size=(7, 8), in_channels=3, pad=True),
    "tiles": replace(SMALL, image_size=32, in_channels=3, tiles=(2, 4)),
    "tiles and attention": replace(SMALL, image_size=32, tiles=2, token_mixer="attention"),
    "linear channels": replace(SMALL, channel_mixer="linear"),
    "odd grid": replace(SMALL, image_size=(20, 12), width=10, token_mixer="shift"),
    "the article's": replace(variant("article"), image_size=32, width=24, depth=3, num_classes=5),
}


def moved(config: MixerConfig) -> MlpMixer:
    """A model in which no tensor is as it starts."""
    torch.manual_seed(0)
    model = MlpMixer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def weights_of(model: MlpMixer) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def images_for(config: MixerConfig, count: int) -> Tensor:
    return torch.randn(count, config.in_channels, *config.image_hw)


def by_onnxruntime(graph: Any, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    found: np.ndarray = session.run(None, {"images": images})[0]
    return found


def by_openvino(graph: Any, images: np.ndarray) -> np.ndarray:
    return open_graph(graph.SerializeToString(), "openvino", "", threads=1).run(images)


@pytest.mark.parametrize("run", [by_onnxruntime, by_openvino])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_agrees_with_the_eager_model(config: MixerConfig, run: Any) -> None:
    """In batches of three and of one, though the graph is made once."""
    model = moved(config)
    graph = mixer_graph(config, weights_of(model))
    for count in (3, 1):
        images = images_for(config, count)
        with torch.inference_mode():
            wanted = model(images).numpy()
        found = run(graph, images.numpy())
        assert found.shape == wanted.shape and found.dtype == np.float32
        assert np.abs(found - wanted).max() < 2e-6 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("name", ["mlp", "gated", "attention", "no head", "linear channels"])
def test_folding_changes_tensors_and_not_the_function(name: str) -> None:
    """What is folded no longer scales or shifts; in float64 the outputs stay the same."""
    config = CONFIGS[name]
    model = moved(config).double()
    images = images_for(config, 2).double()
    with torch.inference_mode():
        wanted = model(images)
    changed = folded(config, weights_of(model))
    pairs = followed(config)
    expected = config.depth * (2 if name in ("gated", "attention") else 1) + (name != "no head")
    assert len(pairs) == expected
    for norm, product in pairs:
        assert (changed[f"{norm}.weight"] == 1).all() and not changed[f"{norm}.bias"].any()
        assert not np.array_equal(
            changed[f"{product}.weight"], weights_of(model)[f"{product}.weight"]
        )
    model.load_state_dict({name: torch.from_numpy(array) for name, array in changed.items()})
    with torch.inference_mode():
        torch.testing.assert_close(model(images), wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["mlp", "padded"])
def test_pixels_in_and_probabilities_out(name: str) -> None:
    """The graph normalises as the loader does, around the edges too."""
    config = CONFIGS[name]
    model = moved(config)
    channels = config.in_channels
    preprocess = Preprocess(
        image_size=config.image_size,
        channels=channels,
        mean=(0.4, 0.5, 0.6)[:channels],
        std=(0.2, 0.3, 0.25)[:channels],
    )
    graph = mixer_graph(config, weights_of(model), preprocess, Form(True, True))
    pixels = torch.randint(256, (3, channels, *config.image_hw), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = model(normalise(pixels, preprocess)).softmax(dim=1).numpy()
    for run in (by_onnxruntime, by_openvino):
        found = run(graph, pixels.permute(0, 2, 3, 1).contiguous().numpy())
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_says_what_it_is() -> None:
    preprocess = Preprocess(image_size=SMALL.image_size, channels=1, class_names=tuple("abcdefg"))
    graph = mixer_graph(SMALL, weights_of(moved(SMALL)), preprocess, Form(pixels=True))
    (entry,) = graph.metadata_props
    about = json.loads(entry.value)
    assert entry.key == METADATA
    assert from_dict(MixerConfig, about["model"]) == SMALL
    assert from_dict(Preprocess, about["preprocess"]) == preprocess
    assert (about["input"], about["output"]) == ("pixels", "logits")


def test_operations_are_named_after_the_parts_of_the_model() -> None:
    graph = mixer_graph(SMALL, weights_of(moved(SMALL)))
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert {"stem/Conv", "blocks.1.token_mixing.fc2/MatMul", "head/MatMul"} < set(names)
    products = [node for node in graph.graph.node if node.op_type == "MatMul"]
    assert len(products) == 4 * SMALL.depth + 1


def test_the_graph_has_no_more_numbers_than_the_model() -> None:
    """Nothing is stored twice: what folding leaves of a LayerNorm is all that is added."""
    config = variant("N/4", in_channels=1, num_classes=10)
    model = moved(config)
    graph = mixer_graph(config, weights_of(model))
    stored = sum(
        np.prod(one.dims)
        for one in graph.graph.initializer
        if one.data_type == onnx.TensorProto.FLOAT
    )
    own = sum(parameter.numel() for parameter in model.parameters())
    left_out = config.width * (config.depth + 1)  # biases of folded norms
    assert stored == own - left_out
