"""Settings of a peer's runtime: what is tried, and that all give the same."""

from pathlib import Path

import numpy as np
import pytest

from mixerkit.benchmark.ceilings import _model
from mixerkit.benchmark.peer_settings import (
    Setting,
    open_in_onnxruntime,
    open_in_openvino,
    settings_of,
)


def test_runtimes_are_tried_with_threads_streams_and_sleep() -> None:
    onnxruntime = settings_of("onnxruntime", "float32", 10**12, 4)
    assert [one.threads for one in onnxruntime.values()] == [4, 2, 4, 1]
    assert Setting(4, spins=False) in onnxruntime.values()
    assert Setting(1, parts=4) in onnxruntime.values()
    openvino = settings_of("openvino", "int8", 10**12, 4)
    assert {one.parts for one in openvino.values()} == {0, 1, 4}
    assert any(one.autocast for one in settings_of("eager", "bfloat16", 1, 4).values())


def test_one_core_has_nothing_to_share_among_several() -> None:
    for runtime in ("onnxruntime", "openvino", "eager", "compiled"):
        assert list(settings_of(runtime, "float32", 1, 1).values()) == [Setting(1)]


def test_fewer_threads_than_cores_are_for_short_calls() -> None:
    for cores, long, short in ((2, [2], [2, 1]), (3, [3], [3, 1]), (8, [8, 4], [8, 4, 1])):
        for macs, wanted in ((10**12, long), (10**6, short)):
            tried = settings_of("eager", "float32", macs, cores)
            assert [one.threads for one in tried.values()] == wanted


def test_large_models_are_compiled_once() -> None:
    assert list(settings_of("compiled", "float32", 10**12, 2).values()) == [Setting(2)]
    assert len(settings_of("compiled", "float32", 10**6, 2)) == 2


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_every_setting_gives_the_same(runtime: str, tmp_path: Path) -> None:
    """With more parts than images, too."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((3, 5), np.float32)
    weight = generator.standard_normal((5, 4), np.float32)
    path = tmp_path / "product.onnx"
    path.write_bytes(_model((None, 5), weight, [("MatMul", ["x", "w"], "y")]))
    for setting in (*settings_of(runtime, "float32", 1, 2).values(), Setting(1, parts=8)):
        if runtime == "onnxruntime":
            run = open_in_onnxruntime(path, setting)
        else:
            run = open_in_openvino(path, setting, "float32")
        for some in (images, images[:1]):
            np.testing.assert_allclose(run(some), some @ weight, atol=1e-5)
