"""The machine's ceilings: the model's own products, in 8 bits too, and rates that add up."""

import numpy as np
import pytest

from mixerkit.benchmark import ceilings as module
from mixerkit.benchmark.ceilings import IN_EIGHT_BITS, Ceiling, ceilings, rates
from mixerkit.benchmark.measure import int8_products, matrix_products
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import variant

CONFIG = variant("N/7", in_channels=1, num_classes=10)


def per_block() -> int:
    widths = 2 * CONFIG.token_width + 2 * CONFIG.channel_width
    return 2 * CONFIG.num_patches * CONFIG.width * widths


def test_ceilings_are_of_the_models_own_products() -> None:
    for make in (matrix_products, int8_products):
        multiply, operations = make(CONFIG, 4)
        multiply()
        assert operations == 4 * per_block()
    assert CONFIG.depth * per_block() < 2 * cost(CONFIG).macs < 1.5 * CONFIG.depth * per_block()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_every_library_computes_whole_batches_and_slices(kind) -> None:
    found = ceilings(CONFIG, kind, [4, 2, 2])
    assert {one.images for one in found} == {4, 2}
    assert {"PyTorch", "openvino"} <= {one.library for one in found}
    assert {one.kind for one in found} == {kind}
    for multiply in found.values():
        multiply()


def test_without_runtimes_pytorch_is_the_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "absent", lambda *packages: list(packages))
    assert {one.library for one in ceilings(CONFIG, "int8", [2])} == {"PyTorch"}


@pytest.mark.parametrize(("threads", "used"), [(0, 3), (1, 1)])
def test_onnxruntime_takes_the_processors_that_it_may_use(
    threads: int, used: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own count, 0, is of all that the machine has."""
    import onnxruntime

    seen: list[int] = []
    monkeypatch.setattr(module, "usable_cores", lambda: 3)
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda graph, options, providers: seen.append(options.intra_op_num_threads),
    )
    module._in_onnxruntime(b"", np.empty(0), "float32", threads)
    assert seen == [used]


def test_a_rate_is_operations_of_the_median_call() -> None:
    one = Ceiling("int8", "openvino", 1, 4)
    found = rates(CONFIG, {one: [[0.5, 2.0], [4.0]]})
    assert found == {one: 4 * per_block() / 2.0}
    assert str(one) == "int8 products by openvino on 1 thread, 4 images at once"
    assert one.row(7.0)["operations_per_second"] == 7.0


def test_products_from_8_bits_to_8_bits_are_what_they_say() -> None:
    """The runtime's answer beside the same in float64."""
    import onnxruntime

    generator = np.random.default_rng(0)
    left = generator.integers(0, 256, (6, 64), np.uint8)
    right = generator.integers(-127, 128, (64, 5), np.int8)
    graph = module._model(left.shape, right, IN_EIGHT_BITS)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": left})[0]
    exact = (left.astype(float) - 128) / 255 @ (right / 127)
    wanted = np.clip(np.round(exact / (64**0.5 / 64)) + 128, 0, 255)
    assert found.dtype == np.uint8 and np.abs(found - wanted).max() <= 1
    assert np.ptp(wanted) > 20
