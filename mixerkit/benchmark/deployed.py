"""timm's Mixer, unmodified, deployed as its users do it: eager, compiled, or as a graph in ONNX
Runtime and OpenVINO, in float32 and in 8 bits. Each is what runs images [B, I, H, W].
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from mixerkit.benchmark.peers import copy_to_timm
from mixerkit.errors import UserError, how_to_install
from mixerkit.inference.eager import compiled_run
from mixerkit.inference.runtimes import Run, open_graph, signal_stack_kept
from mixerkit.model.mixer import MlpMixer

CALIBRATION = 8
"""Images of noise that NNCF finds its ranges on: for speed it makes no difference which."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters say on the way."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def peers(model: MlpMixer) -> dict[str, Callable[[], Run]]:
    """Every way to run timm's model with the weights of `model` for which the packages are here, by
    name; " int8" at the end says that products are in 8 bits."""
    timm = copy_to_timm(model).eval()
    graph = cache(partial(exported, timm, model))
    ways: dict[str, Callable[[], Run]] = {
        "timm eager": partial(eager, timm),
        "timm compiled": partial(compiled, timm),
        "timm onnxruntime": lambda: open_graph(graph(), "onnxruntime", "").run,
        "timm openvino": lambda: open_graph(graph(), "openvino", "").run,
        "timm onnxruntime dynamic int8": lambda: dynamic_int8(graph()),
        "timm openvino nncf int8": lambda: nncf_int8(graph(), model),
    }
    return ways


def eager(model: nn.Module) -> Run:
    """As it is."""

    def run(x_BIHW: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = model(torch.from_numpy(x_BIHW)).numpy()
        return found

    return run


def compiled(model: nn.Module) -> Run:
    """By TorchInductor, as ours is; nothing that was compiled before counts."""
    torch.compiler.reset()
    return compiled_run(model, threads=0)


def exported(timm: nn.Module, model: MlpMixer) -> bytes:
    """The ONNX graph that PyTorch's exporter makes of timm's model."""
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"PyTorch's exporter needs onnxscript: {how_to_install('onnxscript')}"
        ) from error
    example = torch.zeros(2, model.config.in_channels, *model.config.image_hw)
    with tempfile.TemporaryDirectory() as folder, quietly():
        path = Path(folder) / "timm.onnx"
        torch.onnx.export(
            timm,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()


def dynamic_int8(graph: bytes) -> Run:
    """ONNX Runtime's own dynamic quantiser."""
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory() as folder, quietly():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(graph)
        quantization.quantize_dynamic(
            source, target, per_channel=True, weight_type=quantization.QuantType.QInt8
        )
        return open_graph(target.read_bytes(), "onnxruntime", "").run


def nncf_int8(graph: bytes, model: MlpMixer) -> Run:
    """NNCF's post-training quantisation, in OpenVINO."""
    try:
        import nncf
    except ImportError as error:
        raise UserError(f"This peer needs nncf: {how_to_install('nncf')}") from error
    import openvino

    nncf.set_log_level(logging.ERROR)
    shape = (1, model.config.in_channels, *model.config.image_hw)
    generator = np.random.default_rng(0)
    images = [generator.standard_normal(shape, np.float32) for _ in range(CALIBRATION)]
    with tempfile.TemporaryDirectory() as folder, quietly():
        float_model = openvino.Core().read_model(graph)
        with signal_stack_kept():
            quantised: Any = nncf.quantize(
                float_model,
                nncf.Dataset(images),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=CALIBRATION,
            )
        path = Path(folder) / "int8.xml"
        openvino.save_model(quantised, path)
        return open_graph(path, "openvino", "").run
