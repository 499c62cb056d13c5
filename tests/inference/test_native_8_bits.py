"""Our own code in 8 bits: against ONNX's own reference of the same graph, in all its mixtures."""

import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings, strategies as st
from onnx.reference import ReferenceEvaluator

import mixerkit.inference.native as native_module
from mixerkit.errors import UserError
from mixerkit.inference.eight_bits import RIGHT
from mixerkit.inference.engine import Predictor
from mixerkit.inference.exported import normalised, softmax
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits, Form, followed, mixer_graph
from mixerkit.inference.native import Native, multiplies_eight_bits
from mixerkit.inference.native_constants import ready
from mixerkit.inference.native_gelu import COARSE, FINE, gelu_powers
from mixerkit.inference.native_graph import NativeGraph
from mixerkit.inference.runtimes import open_graph
from mixerkit.inference.stem_graph import PIXELS, STEM, can_be_rounded
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from tests.inference.test_mixer_graph import SMALL, moved, weights_of
from tests.inference.test_native import (
    OURS,
    TARGETS,
    configs,
    library,
    pixels_for,
    preprocess_of,
)

pytestmark = pytest.mark.usefixtures("cache_of_these_tests")

COLOURED = replace(SMALL, image_size=(24, 16), in_channels=3, width=33, token_width=13)
WIDE = replace(SMALL, width=144, token_width=30, channel_width=600, depth=1)
"""Deep enough for a product in several parts, and several panels."""


def images_for(config: MixerConfig, count: int) -> np.ndarray:
    return normalised(pixels_for(config, count), preprocess_of(config))


def products_of(config: MixerConfig) -> list[str]:
    layers = {"mlp": ("fc1", "fc2"), "linear": ("fc",)}
    parts = {"token_mixing": config.token_mixer, "channel_mixing": config.channel_mixer}
    return [STEM] * can_be_rounded(config) + [
        f"blocks.{block}.{part}.{layer}"
        for block in range(config.depth)
        for part, mixer in parts.items()
        for layer in layers[mixer]
    ]


def in_8_bits(config: MixerConfig, products: list[str], smooth: bool = True) -> EightBits:
    """Ranges as wide as the numbers are, about, with zero anywhere among the steps."""
    ranges = {
        product: PIXELS if product == STEM else Range(-2.0 - 0.1 * i, 3.0)
        for i, product in enumerate(products)
    }
    scale_C = np.linspace(0.8, 1.25, config.width).astype(np.float32)
    norms = [norm for norm, product in followed(config) if product != "head" and smooth]
    return EightBits(ranges, dict.fromkeys(norms, scale_C), preprocess_of(config))


def reference(model: MlpMixer, eight_bits: EightBits, images: np.ndarray) -> np.ndarray:
    graph = mixer_graph(model.config, weights_of(model), None, RIGHT, eight_bits)
    (result,) = ReferenceEvaluator(graph).run(None, {"images": images})
    return result


def assert_rounds_as_the_graph(
    model: MlpMixer,
    eight_bits: EightBits,
    count: int = 5,
    code: ctypes.CDLL | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Its noise is the graph's: of the few numbers halfway between two steps some go the other
    way."""
    config, images = model.config, images_for(model.config, count)
    ours = Native(ready(config, weights_of(model), eight_bits), code).by(threads)
    found, wanted = ours(images), reference(model, eight_bits, images)
    with torch.inference_mode():
        exact = model(torch.from_numpy(images)).numpy()
    noise, rest = rms(wanted - exact), rms(found - wanted)
    assert found.shape == wanted.shape
    assert rest <= 0.25 * noise + 1e-6 * rms(exact), (rest, noise, rms(exact))
    return found


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).mean()))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OURS)
def test_it_rounds_as_the_graph_does(name: str, target: str, folder: Path) -> None:
    model = moved(OURS[name])
    eight_bits = in_8_bits(model.config, products_of(model.config))
    assert_rounds_as_the_graph(model, eight_bits, code=library(target, folder))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(config=configs(), data=st.data(), threads=st.integers(1, 3))
def test_any_sizes_and_any_products(config: MixerConfig, data: Any, threads: int) -> None:
    config = replace(config, norm_eps=0.1)  # of few channels a LayerNorm makes much of nothing
    products = products_of(config)
    chosen = data.draw(st.lists(st.sampled_from(products), min_size=1, unique=True))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_module, "AT_ONCE", data.draw(st.integers(1, 2**18)))
        assert_rounds_as_the_graph(moved(config), in_8_bits(config, chosen), 9, threads=threads)


@pytest.mark.parametrize("config", [SMALL, COLOURED, WIDE], ids=["small", "coloured", "wide"])
def test_each_product_alone_and_each_left_out(config: MixerConfig) -> None:
    """What is in float beside what is not: every way from one to the next."""
    model, products = moved(config), products_of(config)
    for product in products:
        assert_rounds_as_the_graph(model, in_8_bits(config, [product]))
        others = [one for one in products if one != product]
        assert_rounds_as_the_graph(model, in_8_bits(config, others, smooth=False))


@pytest.mark.parametrize("config", [SMALL, COLOURED, WIDE], ids=["small", "coloured", "wide"])
@pytest.mark.parametrize("eight", [True, False])
def test_several_threads_give_what_one_gives(config: MixerConfig, eight: bool) -> None:
    model = moved(config)
    about = in_8_bits(config, products_of(config)) if eight else None
    native = Native(ready(config, weights_of(model), about))
    for count in (1, 2, 7):
        images = images_for(config, count)
        wanted = native(images)
        for threads in (2, 3, 40):
            np.testing.assert_array_equal(native.by(threads)(images), wanted)
            np.testing.assert_array_equal(native.by(threads, True)(images), wanted)


def test_pixels_are_exact_and_sums_are_whole() -> None:
    """The patch embedding alone, as what mixes is 0, with weights that are whole steps."""
    config = MixerConfig(
        **dict(image_size=8, patch_size=4, in_channels=3, width=20, depth=1, num_classes=0),
        **dict(token_mixer="linear", channel_mixer="linear", norm=False),  # type: ignore[arg-type]
    )
    rng = np.random.default_rng(0)
    kernel = rng.integers(-127, 128, (20, 3, 4, 4)).astype(np.float32)
    kernel[:, 0, 0, 0] = 127  # so that a step is 1
    preprocess = Preprocess(8, 3, mean=(0.0, 0.5, 0.25), std=(1.0, 1.0, 1.0))
    nothing = {name: np.zeros_like(a) for name, a in weights_of(MlpMixer(config)).items()}
    weights = nothing | {"stem.weight": kernel}
    pixels = rng.integers(0, 256, (3, 3, 8, 8), np.uint8)
    native = Native(ready(config, weights, EightBits({STEM: PIXELS}, {}, preprocess)))
    x = pixels / 255 - np.array([0.0, 0.5, 0.25])[:, None, None]
    patches = x.reshape(3, 3, 2, 4, 2, 4).transpose(0, 2, 4, 1, 3, 5).reshape(3, 4, 48)
    wanted = (patches @ kernel.reshape(20, 48).T.astype(np.float64)).mean(axis=1)
    np.testing.assert_allclose(native(normalised(pixels, preprocess)), wanted, atol=2e-4)


def test_what_is_beyond_a_range_stays_at_its_end() -> None:
    model = moved(SMALL)
    narrow = EightBits({p: Range(-0.1, 0.2) for p in products_of(SMALL)[1:]}, {})
    assert_rounds_as_the_graph(model, narrow)


def test_what_is_not_a_number_stays_with_its_image() -> None:
    native = Native(ready(SMALL, weights_of(moved(SMALL)), in_8_bits(SMALL, products_of(SMALL))))
    images = images_for(SMALL, 5)
    wanted = native(images)
    images[2] = np.nan
    np.testing.assert_array_equal(native(images)[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]])
    assert native(images[:0]).shape == (0, 7)


@pytest.mark.parametrize("flavour", FINE.limits)
def test_the_coarse_gelu_is_far_finer_than_a_step(flavour: str) -> None:
    x = np.linspace(-10, 10, 100_001)
    limit, powers = COARSE.limits[flavour], gelu_powers(flavour, COARSE)
    u = 2 * x**2 / limit**2 - 1
    inside = x / 2 + x / 2 * x * np.polyval(powers, u)
    found = np.where(x > limit, x, np.where(x < -limit, 0, inside))
    approximate = "tanh" if flavour == "tanh" else "none"
    wanted = torch.nn.functional.gelu(torch.from_numpy(x), approximate=approximate).numpy()
    assert np.abs(found - wanted).max() < 2e-5


# -- graphs and files -------------------------------------------------------------------------

FORMS = {
    "plain": Form(),
    "right": Form(left_of_tokens=False),
    "pixels": Form(pixels=True),
    "probabilities": Form(probabilities=True),
    "half": Form(half=True),
    "all": Form(pixels=True, probabilities=True, half=True, left_of_tokens=False),
}
MORE = {
    "square": replace(SMALL, token_mixer="linear", channel_mixer="linear", in_channels=3),
    "two channels": replace(SMALL, in_channels=2),
    "four channels": replace(SMALL, in_channels=4),
}


@pytest.mark.parametrize("name", [*OURS, *MORE])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("eight", [True, False], ids=["int8", "float"])
def test_a_graph_is_read(name: str, form: str, eight: bool) -> None:
    config = (OURS | MORE)[name]
    model, how = moved(config), FORMS[form]
    eight_bits = in_8_bits(config, products_of(config)) if eight else None
    about = (preprocess_of(config), how, eight_bits)
    graph = mixer_graph(config, weights_of(model), *about).SerializeToString()
    pixels = pixels_for(config, 4)
    images = pixels.transpose(0, 2, 3, 1) if how.pixels else images_for(config, 4)
    native = Native(ready(config, weights_of(model), eight_bits))
    wanted = native(images_for(config, 4))
    if how.probabilities and config.num_classes:
        wanted = softmax(wanted)
    close = 1e-2 if how.half else 1e-5
    for threads, streams in ((1, False), (2, False), (2, True)):
        opened = open_graph(graph, "native", "mixerkit", threads, streams=streams)
        found = opened.run(np.ascontiguousarray(images))
        np.testing.assert_allclose(found, wanted, atol=close * max(1, np.abs(wanted).max()))
        assert '"model"' in opened.about


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"no graph at all", "onnx cannot read the graph"),
        (onnx.ModelProto().SerializeToString(), "does not say what it is"),
    ],
)
def test_what_is_no_graph_of_ours_is_told(content: bytes, says: str) -> None:
    with pytest.raises(UserError, match=says):
        NativeGraph(content)


def test_other_token_mixers_are_told() -> None:
    model = moved(replace(SMALL, token_mixer="pool"))
    graph = mixer_graph(model.config, weights_of(model)).SerializeToString()
    with pytest.raises(UserError, match="mlp and linear, found pool"):
        NativeGraph(graph)


def changed_about(graph: Any, **sizes: int) -> None:
    (entry,) = graph.metadata_props
    about = json.loads(entry.value)
    about["model"] |= sizes
    entry.value = json.dumps(about)


def renamed(graph: Any, name: str) -> None:
    next(one for one in graph.graph.initializer if one.name == name).name = "something/else"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda graph: changed_about(graph, token_width=4096), r"fc1.weight of shape \[4096, 35\]"),
        (lambda graph: changed_about(graph, depth=3), "blocks.2.* of shape .*, found none"),
        (lambda graph: changed_about(graph, depth=1), "Expected no tensor blocks.1.channel"),
        (lambda graph: changed_about(graph, in_channels=2), "stem.weight of shape"),
        (lambda graph: renamed(graph, "stem/bias"), "stem.bias of shape .* found none"),
        (lambda graph: renamed(graph, "blocks.1.channel_mixing.fc2/scales"), "no constant blocks"),
        (lambda graph: renamed(graph, "blocks.0.token_mixing.fc1/scale"), "no constant blocks"),
    ],
)
@pytest.mark.parametrize("pixels", [True, False])
def test_a_graph_that_is_not_what_it_says_is_never_computed(
    change: Any, says: str, pixels: bool
) -> None:
    eight_bits = in_8_bits(SMALL, products_of(SMALL))
    about = (preprocess_of(SMALL), Form(pixels=pixels), eight_bits)
    graph = mixer_graph(SMALL, weights_of(moved(SMALL)), *about)
    change(graph)
    with pytest.raises(UserError, match=says if not pixels else "export the model again"):
        NativeGraph(graph.SerializeToString())


def test_a_file_that_our_code_cannot_read_is_run_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    graph = mixer_graph(SMALL, weights_of(moved(SMALL)), preprocess_of(SMALL))
    changed_about(graph, channel_width=47)
    path, told = tmp_path / "a.onnx", list[str]()
    path.write_bytes(graph.SerializeToString())
    predictor = Predictor(path, watch=told.append)
    assert "native" not in predictor.plan.one.backend + predictor.plan.many.backend
    assert len([line for line in told if "native" in line and "left out" in line]) == 1
    with pytest.raises(UserError, match=r"a\.onnx: Expected .*\.fc1\.weight of shape"):
        Predictor(path, backend="native")


def test_without_the_package_that_reads_graphs_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.onnx"
    graph = mixer_graph(SMALL, weights_of(moved(SMALL)), preprocess_of(SMALL))
    path.write_bytes(graph.SerializeToString())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"reading graphs needs onnx: .*pip install"):
        Predictor(path, backend="native")


def test_what_this_processor_can_is_known() -> None:
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    assert multiplies_eight_bits() == ("avx512_vnni" in flags or "avx_vnni" in flags)
