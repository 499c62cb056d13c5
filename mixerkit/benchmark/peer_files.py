"""The files that timm's Mixer is deployed from, with the weights of ours: its tensors, the graph
that PyTorch's exporter makes of it, and that graph in 8 bits by two quantisers.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from mixerkit.benchmark.peers import copy_to_timm
from mixerkit.inference.packages import nncf_module, onnxruntime_module, openvino_module
from mixerkit.inference.runtimes import signal_stack_kept
from mixerkit.model.mixer import MlpMixer

CALIBRATION = 8
"""Images of noise that NNCF finds its ranges on: for speed it makes no difference which."""


@contextmanager
def quietly() -> Iterator[None]:
    """Without what exporters say on the way."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def peer_file(name: str, model: MlpMixer, folder: Path) -> Path:
    """The one of `FILES` that has this name, in `folder`; made where it is not there yet."""
    file, make = FILES[name]
    if not (folder / file).exists():
        with quietly():
            make(model, folder / file)
    return folder / file


def _weights(model: MlpMixer, out: Path) -> None:
    save_file(copy_to_timm(model).state_dict(), out)


def _graph(model: MlpMixer, out: Path) -> None:
    """By PyTorch's exporter, with a batch of any size."""
    example = torch.zeros(2, model.config.in_channels, *model.config.image_hw)
    torch.onnx.export(
        copy_to_timm(model).eval(),
        (example,),
        out,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )


def _dynamic_int8(model: MlpMixer, out: Path) -> None:
    """By ONNX Runtime's own dynamic quantiser."""
    onnxruntime_module()
    from onnxruntime import quantization

    quantization.quantize_dynamic(
        peer_file("graph", model, out.parent),
        out,
        per_channel=True,
        weight_type=quantization.QuantType.QInt8,
    )


def _nncf_int8(model: MlpMixer, out: Path) -> None:
    """By NNCF's post-training quantisation, without its SmoothQuant: at its usual strength that
    leaves a Mixer's logits 8 to 12 dB of signal to noise in place of 25 to 36, and for S/16 takes
    1.1 times as long."""
    openvino, nncf = openvino_module(), nncf_module()
    nncf.set_log_level(logging.ERROR)
    shape = (1, model.config.in_channels, *model.config.image_hw)
    generator = np.random.default_rng(0)
    images = [generator.standard_normal(shape, np.float32) for _ in range(CALIBRATION)]
    float_model = openvino.Core().read_model(peer_file("graph", model, out.parent))
    with signal_stack_kept():
        quantised: Any = nncf.quantize(
            float_model,
            nncf.Dataset(images),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=CALIBRATION,
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1)
            ),
        )
    openvino.save_model(quantised, out)


FILES: dict[str, tuple[str, Callable[[MlpMixer, Path], None]]] = {
    "weights": ("timm.safetensors", _weights),
    "graph": ("timm.onnx", _graph),
    "dynamic": ("timm-int8.onnx", _dynamic_int8),
    "nncf": ("timm-int8.xml", _nncf_int8),
}
"""What makes each, and what it is called."""
