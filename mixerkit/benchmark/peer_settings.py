"""The settings that a peer's runtime is tried with, and graphs opened so; PyTorch has no part here.

A peer gets a whole batch, and divides it only by what its runtime has for that: streams in
OpenVINO, concurrent calls of one session in ONNX Runtime.

Letters: B batch, K classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mixerkit.inference.packages import onnxruntime_module, openvino_module
from mixerkit.inference.runtimes import Run, by_requests, by_threads, signal_stack_kept

Kind = Literal["float32", "bfloat16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "bfloat16", "int8")
"""In what products are computed."""
PeerRuntime = Literal["eager", "compiled", "onnxruntime", "openvino"]
FEW_OPERATIONS = 10**9
"""Multiply-adds of a call, below which fewer threads than cores may be faster than all of them."""


@dataclass(frozen=True)
class Setting:
    """`threads` of a call, 0 for the runtime's own number. `parts` of the images that are computed
    at the same time: 0 for as many as the runtime thinks best. `spins`: waiting threads of ONNX
    Runtime stay awake. `autocast`: PyTorch's weights stay in float32 and are cast on the way."""

    threads: int = 0
    parts: int = 1
    spins: bool = True
    autocast: bool = False


def settings_of(runtime: PeerRuntime, kind: Kind, macs: int, cores: int) -> dict[str, Setting]:
    """What is tried, by name, for calls of so many multiply-adds on so many cores: all of them,
    half of them (those may be the real ones), for short calls one; images for each core; and what
    the runtime itself thinks best for many.

    PyTorch's own advice for processors, `torch.compile(mode="max-autotune")`, is not among them: it
    takes 1.3 to 4 times as long to compile, S/16 and B/16 get the library's products all the same,
    and with it the shipped model is as fast for 32 and 256 images. For a single one it is up to 1.5
    times as fast, where the best runtime is more than twice as fast as what is compiled.
    """
    fewer = {n for n in (cores // 2, 1) if n > 1 or macs <= FEW_OPERATIONS}
    counts = sorted({cores, *fewer} - {0}, reverse=True)
    threads = {f"{n} thread{'s' if n > 1 else ''}": Setting(n) for n in counts}
    if runtime == "onnxruntime":
        tried = threads | {f"{cores} threads that sleep when idle": Setting(cores, spins=False)}
        return tried | {"a call for each core": Setting(1, cores)} if cores > 1 else threads
    if runtime == "openvino":
        tried = threads | {"throughput hint": Setting(parts=0)}
        return tried | {"a stream for each core": Setting(parts=cores)} if cores > 1 else threads
    if runtime == "compiled" and macs > FEW_OPERATIONS:  # each setting is compiled anew
        threads = dict([next(iter(threads.items()))])
    if runtime == "eager" and kind == "bfloat16":
        return threads | {"autocast": Setting(cores, autocast=True)}
    return threads


def open_in_onnxruntime(graph: Path, setting: Setting) -> Run:
    """A graph of one input and one result, ready to run."""
    onnxruntime = onnxruntime_module()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = setting.threads, 3  # errors
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(setting.spins)))
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())

    def run(images: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, {name: images})[0]
        return result

    return by_threads(run, setting.parts) if setting.parts > 1 else run


def open_in_openvino(graph: Path, setting: Setting, kind: Kind) -> Run:
    """The same in OpenVINO, whose float products are in bfloat16 for that kind."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if kind == "bfloat16" else "f32",
        "PERFORMANCE_HINT": "LATENCY" if setting.parts == 1 else "THROUGHPUT",
    }
    if setting.parts > 1:
        options["NUM_STREAMS"] = setting.parts
    if setting.threads:
        options["INFERENCE_NUM_THREADS"] = setting.threads
    with signal_stack_kept():
        compiled = openvino_module().Core().compile_model(str(graph), "CPU", options)
    wanted = setting.parts or compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
    return by_requests(compiled, wanted)
