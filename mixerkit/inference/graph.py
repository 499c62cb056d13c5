"""A graph of ONNX operations, written one after the other.

Each method adds what it says and returns the name of the result, so that a model reads like its
forward pass. Operations are called after the part of the model that they belong to
(`blocks.3.channel_mixing.fc1/MatMul`), which viewers show.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mixerkit.errors import UserError, how_to_install

OPSET, IR_VERSION = 20, 9
"""The first with GELU in both forms; what ONNX Runtime has read since 1.17."""


def onnx_module() -> Any:
    """The package onnx, or an error that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise UserError(
            f"Writing and reading graphs needs onnx: {how_to_install('onnx')}"
        ) from error
    return onnx


@dataclass(frozen=True)
class Range:
    """Of the numbers that go into a product: from `low` to `high`, in 255 even steps. 0 is one of
    them, so that it stays what it is."""

    low: float
    high: float

    @property
    def scale(self) -> float:
        """The width of a step."""
        return max(max(self.high, 0) - min(self.low, 0), 1e-12) / 255

    @property
    def zero_point(self) -> int:
        """Which step is 0."""
        return round(-min(self.low, 0) / self.scale)


def rounded_steps(matrix_OI: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix in 8 bits, 127 even steps to either side for each output, int8 [O, I]; and the width
    of a step, [O]."""
    scale_O: np.ndarray = np.maximum(np.abs(matrix_OI).max(axis=1), 1e-12) / 127
    return np.rint(matrix_OI / scale_O[:, None]).astype(np.int8), scale_O


class Graph:
    """Nodes and constants, in their order. `weights`: a model's tensors by name, as arrays.

    `ranges`: the products that are computed in 8 bits, by the part of the model that they are.
    `left_of_tokens`: on which side of a product along the tokens its constant is. `products`: what
    goes into each product of a learned matrix whose constant is on the right.
    """

    def __init__(
        self,
        weights: Mapping[str, np.ndarray],
        ranges: Mapping[str, Range] | None = None,
        left_of_tokens: bool = True,
    ) -> None:
        self.weights, self.helper = weights, onnx_module().helper
        self.ranges, self.left_of_tokens = ranges or {}, left_of_tokens
        self.products: dict[str, str] = {}
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}
        self.scope = ""
        self.used: dict[str, int] = {}

    @contextmanager
    def within(self, name: str) -> Iterator[str]:
        """Operations of the part `name` of the model, inside the part that is written now."""
        outer = self.scope
        self.scope = f"{outer}.{name}" if outer else name
        try:
            yield self.scope
        finally:
            self.scope = outer

    def weight(self, name: str) -> np.ndarray:
        """The tensor `name` of the part that is written now, float32."""
        return np.asarray(self.weights[f"{self.scope}.{name}"], np.float32)

    def has(self, name: str) -> bool:
        """Whether the part that is written now has a tensor `name`."""
        return f"{self.scope}.{name}" in self.weights

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """One operation with one result."""
        return self.ops(kind, *inputs, results=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, results: int, **attributes: Any) -> list[str]:
        """One operation with several results."""
        name = self._unused(kind)
        names = [name] if results == 1 else [f"{name}:{i}" for i in range(results)]
        self.nodes.append(self.helper.make_node(kind, inputs, names, name=name, **attributes))
        return names

    def constant(self, array: np.ndarray, name: str) -> str:
        """A constant, called `name` inside the part that is written now."""
        full = self._unused(name)
        self.constants[full] = np.ascontiguousarray(array)
        return full

    def numbers(self, *values: int) -> str:
        """Whole numbers, such as a shape."""
        return self.constant(np.array(values, np.int64), "numbers")

    def number(self, value: float) -> str:
        """One float32."""
        return self.constant(np.array(value, np.float32), "number")

    def _unused(self, name: str) -> str:
        full = f"{self.scope}/{name}"
        count = self.used[full] = self.used.get(full, 0) + 1
        return full if count == 1 else f"{full}_{count}"

    # -- what a Mixer is made of --------------------------------------------------------------

    def reshape(self, x: str, *shape: int) -> str:
        """-1 stands for what is left, 0 for the same as before."""
        return self.op("Reshape", x, self.numbers(*shape))

    def transpose(self, x: str, *order: int) -> str:
        """Axes in another order."""
        return self.op("Transpose", x, perm=order)

    def add(self, x: str, y: str) -> str:
        """x + y."""
        return self.op("Add", x, y)

    def gelu(self, x: str, flavour: str) -> str:
        """GELU, "erf" or "tanh"."""
        return self.op("Gelu", x, approximate="tanh" if flavour == "tanh" else "none")

    def layer_norm(self, x: str, eps: float) -> str:
        """LayerNorm over the last axis with the `weight` and `bias` of this part."""
        scale = self.constant(self.weight("weight"), "weight")
        bias = self.weight("bias")
        inputs = [x, scale] + ([self.constant(bias, "bias")] if bias.any() else [])
        return self.op("LayerNormalization", *inputs, axis=-1, epsilon=eps)

    def dense(self, x: str) -> str:
        """The linear map of this part, along the last axis."""
        self.products[self.scope] = x
        matrix_OI, bias_O = self.weight("weight"), self.weight("bias")
        if self.scope not in self.ranges:
            return self.right(x, matrix_OI, bias_O)
        x = self.rounded(x, self.ranges[self.scope])
        y = self.op("MatMul", x, self.rounded_matrix(matrix_OI))
        return self.add(y, self.constant(bias_O, "bias"))

    def rounded(self, x: str, to: Range) -> str:
        """Numbers rounded to 8 bits; runtimes make one operation of this and the product."""
        about = self._about(to)
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, *about), *about)

    def steps(self, x: str, to: Range) -> str:
        """Which step of the range is nearest, 8-bit."""
        return self.op("QuantizeLinear", x, *self._about(to))

    def of_steps(self, steps: str, of: Range) -> str:
        """The numbers again."""
        return self.op("DequantizeLinear", steps, *self._about(of))

    def _about(self, own: Range) -> tuple[str, str]:
        scale = self.constant(np.array(own.scale, np.float32), "scale")
        return scale, self.constant(np.array(own.zero_point, np.uint8), "zero_point")

    def rounded_matrix(self, matrix_OI: np.ndarray) -> str:
        """The transposed matrix in 8 bits."""
        steps_OI, scale_O = rounded_steps(matrix_OI)
        steps = self.constant(steps_OI.T, "steps")
        scales = self.constant(scale_O.astype(np.float32), "scales")
        zeros = self.constant(np.zeros(len(scale_O), np.int8), "zeros")
        return self.op("DequantizeLinear", steps, scales, zeros, axis=1)

    def right(self, x: str, matrix_OI: np.ndarray, bias_O: np.ndarray | None = None) -> str:
        """x · matrixᵀ + bias along the last axis: the constant is on the right of the product."""
        y = self.op("MatMul", x, self.constant(matrix_OI.T, "weight"))
        return y if bias_O is None else self.add(y, self.constant(bias_O, "bias"))

    def left(self, matrix_OI: np.ndarray, x: str, bias_O: np.ndarray | None = None) -> str:
        """matrix · x + bias along the last axis but one: the constant is on the left."""
        y = self.op("MatMul", self.constant(matrix_OI, "weight"), x)
        return y if bias_O is None else self.add(y, self.constant(bias_O[..., None], "bias"))

    # -- in the end ---------------------------------------------------------------------------

    def model(
        self,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        about: Mapping[str, str],
        half: bool = False,
    ) -> Any:
        """An ONNX model with `about` in its metadata, checked by ONNX's own checker. `half`: the
        matrices are stored in float16 and computed in float32, which runtimes make of them once."""
        onnx = onnx_module()
        stored = dict(self.constants)
        nodes = self._widening(stored) + self.nodes if half else self.nodes
        tensors = [onnx.numpy_helper.from_array(a, name) for name, a in stored.items()]
        graph = self.helper.make_graph(nodes, "mixer", inputs, outputs, tensors)
        model = self.helper.make_model(
            graph,
            opset_imports=[self.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mixerkit",
        )
        self.helper.set_model_props(model, dict(about))
        onnx.checker.check_model(model, full_check=True)
        return model

    def _widening(self, stored: dict[str, np.ndarray]) -> list[Any]:
        """Operations that make float32 of the matrices, which become float16 in `stored`."""
        nodes = []
        for name, array in self.constants.items():
            if array.dtype == np.float32 and array.ndim >= 2:
                del stored[name]
                stored[f"{name}:half"] = array.astype(np.float16)
                float32 = onnx_module().TensorProto.FLOAT
                nodes.append(self.helper.make_node("Cast", [f"{name}:half"], [name], to=float32))
        return nodes
