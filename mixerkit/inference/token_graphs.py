"""The token mixers as ONNX operations, each with the tensors that `model/token_mixers.py` learned.

Letters as there: B batch, S patches (tokens), C channels, T token-mixing width, G groups of
channels, N channels of a group, H W rows and columns of the token grid; M modes of its spectrum.
"""

from collections.abc import Callable

import numpy as np

from mixerkit.inference.graph import Graph
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.token_mixers import KERNEL, POOL

Write = Callable[[Graph, MixerConfig, str], str]


def turned(graph: Graph, x: str) -> str:
    """Tokens along the last axis where the constants are on the right, and back again."""
    return x if graph.left_of_tokens else graph.transpose(x, 0, 2, 1)


def dense(graph: Graph, x: str) -> str:
    """The linear map of this part along the tokens, which are `turned`."""
    if not graph.left_of_tokens:
        return graph.dense(x)
    return graph.left(graph.weight("weight"), x, graph.weight("bias"))


def token_mlp(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """W2 · gelu(W1 · x) along the tokens."""
    with graph.within("fc1"):
        h = graph.gelu(dense(graph, turned(graph, x_BSC)), config.gelu)
    with graph.within("fc2"):
        return turned(graph, dense(graph, h))


def token_linear(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """One linear map along the tokens."""
    with graph.within("fc"):
        return turned(graph, dense(graph, turned(graph, x_BSC)))


def grouped(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """A token-mixing MLP for each group of channels."""
    groups = config.width if config.token_mixer == "untied" else config.token_groups
    x_BSGN = graph.reshape(x_BSC, 0, 0, groups, config.width // groups)
    h = graph.transpose(x_BSGN, 0, 2, 1, 3)
    for name in ("fc1", "fc2"):
        with graph.within(name):
            weight_GTS, bias = graph.weight("weight"), graph.weight("bias")
            h = graph.left(weight_GTS, h, bias.reshape(weight_GTS.shape[:2]))
            if name == "fc1":
                h = graph.gelu(h, config.gelu)
    y_BSGN = graph.transpose(h, 0, 2, 1, 3)
    return graph.reshape(y_BSGN, 0, 0, config.width)


def circulant(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """The matrix that the kernel stands for."""
    kernel_HW = graph.weight("kernel")[0, 0]
    rows, columns = kernel_HW.shape
    moved = [
        np.roll(kernel_HW, (i, j), (0, 1)).ravel() for i in range(rows) for j in range(columns)
    ]
    bias_S = np.repeat(graph.weight("bias"), rows * columns)
    return graph.left(np.stack(moved), x_BSC, bias_S)


def random_matrix(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """A fixed mean."""
    return graph.left(graph.weight("weight"), x_BSC)


def gated(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """gMLP's unit."""
    with graph.within("proj_in"):
        h = graph.dense(x_BSC)
    u_BSC, v_BSC = graph.ops("Split", graph.gelu(h, config.gelu), results=2, axis=-1, num_outputs=2)
    with graph.within("norm"):
        v_BSC = graph.layer_norm(v_BSC, config.norm_eps)
    with graph.within("gate"):
        gate_BSC = turned(graph, dense(graph, turned(graph, v_BSC)))
    with graph.within("proj_out"):
        y_BSC = graph.op("Mul", u_BSC, gate_BSC)
        return graph.dense(y_BSC)


def attention(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Multi-head self-attention."""
    heads, size = config.token_groups, config.width // config.token_groups
    with graph.within("qkv"):
        h = graph.dense(x_BSC)
    h_3BGSN = graph.transpose(graph.reshape(h, 0, 0, 3, heads, size), 2, 0, 3, 1, 4)
    parts = graph.ops("Split", h_3BGSN, results=3, axis=0, num_outputs=3)
    q_BGSN, k_BGSN, v_BGSN = (graph.op("Squeeze", one, graph.numbers(0)) for one in parts)
    scores = graph.op("MatMul", q_BGSN, graph.transpose(k_BGSN, 0, 1, 3, 2))
    weights = graph.op("Softmax", graph.op("Mul", scores, graph.number(size**-0.5)), axis=-1)
    y_BSGN = graph.transpose(graph.op("MatMul", weights, v_BGSN), 0, 2, 1, 3)
    with graph.within("proj"):
        y_BSC = graph.reshape(y_BSGN, 0, 0, config.width)
        return graph.dense(y_BSC)


# -- maps over the token grid -----------------------------------------------------------------


def on_grid(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Tokens as a field over their grid, [B, C, H, W]."""
    return graph.reshape(graph.transpose(x_BSC, 0, 2, 1), 0, 0, *config.tile_grid)


def in_raster(graph: Graph, config: MixerConfig, x_BCHW: str) -> str:
    """The inverse of `on_grid`."""
    return graph.transpose(graph.reshape(x_BCHW, 0, 0, -1), 0, 2, 1)


def pool(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """The mean over neighbours, less the token itself."""
    sides = [POOL // 2] * 4
    near = graph.op(
        "AveragePool",
        on_grid(graph, config, x_BSC),
        kernel_shape=[POOL, POOL],
        pads=sides,
        count_include_pad=0,
    )
    return graph.op("Sub", in_raster(graph, config, near), x_BSC)


def depthwise(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """A convolution of each channel with a kernel of its own; then GELU."""
    kernel, bias = (graph.constant(graph.weight(name), name) for name in ("weight", "bias"))
    y_BCHW = graph.op(
        "Conv",
        on_grid(graph, config, x_BSC),
        kernel,
        bias,
        kernel_shape=[KERNEL, KERNEL],
        pads=[KERNEL // 2] * 4,
        group=config.width,
    )
    return in_raster(graph, config, graph.gelu(y_BCHW, config.gelu))


def shift(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """A quarter of the channels moves one patch down, one up, one right, one left. Which token
    each takes its values from is a constant."""
    rows, columns = config.tile_grid
    places = np.arange(rows * columns).reshape(rows, columns)
    from_above = np.concatenate([places[:1], places[:-1]])
    from_below = np.concatenate([places[1:], places[-1:]])
    from_left = np.concatenate([places[:, :1], places[:, :-1]], axis=1)
    from_right = np.concatenate([places[:, 1:], places[:, -1:]], axis=1)
    sizes = [len(part) for part in np.array_split(np.arange(config.width), 4)]
    quarters = graph.ops("Split", x_BSC, graph.numbers(*sizes), results=4, axis=2)
    taken = [
        graph.op("Gather", quarter, graph.numbers(*source.ravel().tolist()), axis=1)
        for quarter, source in zip(
            quarters, (from_above, from_below, from_left, from_right), strict=True
        )
    ]
    return graph.op("Concat", *taken, axis=2)


def fourier(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Real part of the unitary transform along tokens and channels: cos·x·cos − sin·x·sin."""
    parts = []
    for wave in (np.cos, np.sin):
        along_channels = graph.right(x_BSC, waves(wave, config.width))
        parts.append(graph.left(waves(wave, config.tile_patches), along_channels))
    return graph.op("Sub", *parts)


def waves(wave: Callable[[np.ndarray], np.ndarray], size: int) -> np.ndarray:
    """The symmetric matrix [size, size] of a unitary transform."""
    steps = np.outer(np.arange(size), np.arange(size)) % size
    matrix: np.ndarray = wave(2 * np.pi * steps / size) / np.sqrt(size)
    return matrix.astype(np.float32)


def global_filter(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """Into the spectrum of the grid, times the filter, and back: the transforms are matrices."""
    tokens, grid = config.tile_patches, config.tile_grid
    unit_SHW = np.eye(tokens).reshape(tokens, *grid)
    spectrum_SM = np.fft.rfft2(unit_SHW, norm="ortho").reshape(tokens, -1)
    modes = np.eye(spectrum_SM.shape[1]).reshape(-1, grid[0], grid[1] // 2 + 1)
    filter_MC = graph.weight("filter").reshape(len(modes), config.width, 2)
    real_MC, imaginary_MC = (graph.constant(filter_MC[..., i], "filter") for i in (0, 1))
    x_real = graph.left(spectrum_SM.real.T.astype(np.float32), x_BSC)
    x_imaginary = graph.left(spectrum_SM.imag.T.astype(np.float32), x_BSC)

    def product(a: str, b: str) -> str:
        return graph.op("Mul", a, b)

    y_real = graph.op("Sub", product(x_real, real_MC), product(x_imaginary, imaginary_MC))
    y_imaginary = graph.op("Add", product(x_real, imaginary_MC), product(x_imaginary, real_MC))

    def back(y_BMC: str, unit: complex) -> str:
        matrix_MS = np.fft.irfft2(unit * modes, s=grid, norm="ortho").reshape(-1, tokens)
        return graph.left(matrix_MS.T.astype(np.float32), y_BMC)

    return graph.add(back(y_real, 1), back(y_imaginary, 1j))


def identity(graph: Graph, config: MixerConfig, x_BSC: str) -> str:
    """No mixing."""
    return x_BSC


TOKEN_GRAPHS: dict[str, Write] = {
    "mlp": token_mlp,
    "linear": token_linear,
    "gated": gated,
    "attention": attention,
    "pool": pool,
    "fourier": fourier,
    "global-filter": global_filter,
    "depthwise": depthwise,
    "shift": shift,
    "random": random_matrix,
    "circulant": circulant,
    "untied": grouped,
    "grouped": grouped,
    "identity": identity,
}
