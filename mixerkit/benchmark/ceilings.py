"""The machine's own ceilings: a block's matrix products and nothing else, in every precision, by
each library that has them, and how fast memory is read and written.

The rate depends on how many images are multiplied at once, so they are measured as a whole batch
and as the slices that our engine makes of it. The ceiling is the best of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch

from mixerkit.benchmark.deployed import absent
from mixerkit.benchmark.measure import int8_products, matrix_products, products_of
from mixerkit.benchmark.peer_settings import FEW_OPERATIONS, Kind
from mixerkit.benchmark.turns import Rounds, all_calls, in_turns
from mixerkit.inference.graph import IR_VERSION, OPSET
from mixerkit.inference.packages import onnxruntime_module, openvino_module
from mixerkit.inference.runtimes import signal_stack_kept
from mixerkit.model.cost import cost
from mixerkit.results import usable_cores
from mixerkit.spec.mixer import MixerConfig
from mixerkit.timer import Call

LIBRARIES: dict[Kind, tuple[str, ...]] = {
    "float32": ("onnxruntime", "openvino"),
    "bfloat16": ("openvino",),
    "int8": ("onnxruntime", "openvino"),
}
"""What computes such products, besides PyTorch."""
MEMORY_BYTES = 2**28
"""Of each of three arrays: far more than a processor's cache."""
MEMORY_ROUNDS = 5


@dataclass(frozen=True)
class Ceiling:
    """The products of a block for so many `images` at once; `threads` 0: one for each core."""

    kind: Kind
    library: str
    threads: int
    images: int

    def __str__(self) -> str:
        threads = f" on {self.threads} thread" if self.threads else ""
        return f"{self.kind} products by {self.library}{threads}, {self.images} images at once"

    def row(self, rate: float) -> dict[str, Any]:
        """As JSON has it, with the operations a second that were measured."""
        return {
            "kind": self.kind,
            "library": self.library,
            "threads": self.threads or usable_cores(),
            "images": self.images,
            "operations_per_second": rate,
        }


def ceilings(config: MixerConfig, kind: Kind, images: Sequence[int]) -> dict[Ceiling, Call]:
    """What may turn out to be the fastest way to compute such products."""
    graphs = [name for name in LIBRARIES[kind] if not absent("onnx", name)]
    found: dict[Ceiling, Call] = {}
    for count in dict.fromkeys(images):
        found[Ceiling(kind, "PyTorch", 0, count)] = _in_pytorch(config, kind, count)
        threads = (0, 1) if cost(config).macs * count < FEW_OPERATIONS else (0,)
        for library, number in product(graphs, threads):
            call = _in_graphs(config, kind, count, library, number)
            found[Ceiling(kind, library, number, count)] = call
    return found


def rates(config: MixerConfig, seconds: Mapping[Ceiling, Rounds]) -> dict[Ceiling, float]:
    """Operations a second (a multiply-add is two), by the median of all calls."""
    return {
        one: sum(2 * a * b * c for a, b, c in products_of(config, one.images))
        / median(all_calls(rounds))
        for one, rounds in seconds.items()
    }


def memory_bandwidth() -> float:
    """Bytes a second that a sum of two arrays reads and writes, the best of some rounds."""
    left, right, total = (torch.ones(MEMORY_BYTES // 4) for _ in range(3))
    calls: dict[str, Call] = {"": lambda: torch.add(left, right, out=total)}
    found = in_turns(calls, MEMORY_ROUNDS)[""]
    return 3 * MEMORY_BYTES / min(all_calls(found))


def _in_pytorch(config: MixerConfig, kind: Kind, count: int) -> Call:
    if kind == "int8":
        return int8_products(config, count)[0]
    return matrix_products(config, count, getattr(torch, kind))[0]


def _in_graphs(config: MixerConfig, kind: Kind, count: int, library: str, threads: int) -> Call:
    """Each product as a graph of its own, whose right side is a constant."""
    generator = np.random.default_rng(0)
    calls: list[Call] = []
    for rows, inner, columns in products_of(config, count):
        if kind == "int8":
            left = generator.integers(0, 256, (rows, inner), np.uint8)
            right = generator.integers(-127, 128, (inner, columns), np.int8)
            graph = _model((rows, inner), right, IN_EIGHT_BITS)
        else:
            left = generator.standard_normal((rows, inner), np.float32)
            right = generator.standard_normal((inner, columns), np.float32)
            graph = _model((rows, inner), right, [("MatMul", ["x", "w"], "y")])
        opened = _in_onnxruntime if library == "onnxruntime" else _in_openvino
        calls.append(opened(graph, left, kind, threads))

    def multiply() -> None:
        for call in calls:
            call()

    return multiply


def _in_onnxruntime(graph: bytes, left: np.ndarray, kind: Kind, threads: int) -> Call:
    onnxruntime = onnxruntime_module()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()  # its own 0 counts forbidden ones too
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"x": left})


def _in_openvino(graph: bytes, left: np.ndarray, kind: Kind, threads: int) -> Call:
    core = openvino_module().Core()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    with signal_stack_kept():
        compiled = core.compile_model(core.read_model(graph), "CPU", options)
    request = compiled.create_infer_request()
    return lambda: request.infer({0: left}, share_inputs=True, share_outputs=True)


# -- the graphs -------------------------------------------------------------------------------

Step = tuple[str, list[str], str]
"""An operation, what it takes and the name of its result."""


IN_EIGHT_BITS: list[Step] = [
    ("DequantizeLinear", ["x", "x_step", "x_zero"], "x_float"),
    ("DequantizeLinear", ["w", "w_step", "w_zero"], "w_float"),
    ("MatMul", ["x_float", "w_float"], "y_float"),
    ("QuantizeLinear", ["y_float", "y_step", "x_zero"], "y"),
]
"""A product from 8 bits to 8 bits, as runtimes recognise it."""


def _model(left: tuple[int | None, int], right: np.ndarray, steps: Sequence[Step]) -> bytes:
    """`steps` from x, of the shape `left`, and the constant w, which is `right`, to y."""
    from onnx import TensorProto, helper, numpy_helper

    constants = {"w": right}
    if right.dtype == np.int8:
        constants |= {
            "x_step": np.array(1 / 255, np.float32),
            "x_zero": np.array(128, np.uint8),
            "w_step": np.array(1 / 127, np.float32),
            "w_zero": np.array(0, np.int8),
            "y_step": np.array(left[1] ** 0.5 / 64, np.float32),
        }
    kind = TensorProto.UINT8 if right.dtype == np.int8 else TensorProto.FLOAT
    given = helper.make_tensor_value_info("x", kind, left)
    found = helper.make_tensor_value_info("y", kind, (left[0], right.shape[1]))
    graph = helper.make_graph(
        [helper.make_node(operation, takes, [gives]) for operation, takes, gives in steps],
        "product",
        [given],
        [found],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    return bytes(model.SerializeToString())
