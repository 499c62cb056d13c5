"""ONNX graphs run by ONNX Runtime, by OpenVINO or by our own code; PyTorch has no part in it.

Letters: B batch, K classes.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Literal

import numpy as np

from mixerkit.errors import UserError, how_to_install
from mixerkit.inference.packages import onnxruntime_module, openvino_module
from mixerkit.results import usable_cores

Run = Callable[[np.ndarray], np.ndarray]
"""Images, as the graph takes them, with B of any size → the result [B, K]."""
Runtime = Literal["onnxruntime", "openvino", "native"]
InFloat = Literal["float32", "bfloat16"]
RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino")
"""Those of others."""
NATIVE: Literal["native"] = "native"
"""Our own code, which runs the graphs that `mixer_graph` wrote, if it computes such a model."""
LATENCY = {"PERFORMANCE_HINT": "LATENCY"}
PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}


@dataclass(frozen=True)
class Opened:
    """A graph that is ready to run, and the text in its metadata."""

    run: Run
    about: str


def open_graph(
    graph: bytes | Path,
    runtime: Runtime,
    key: str,
    threads: int = 0,
    precision: InFloat = "float32",
    streams: bool = False,
) -> Opened:
    """A graph in memory or in a file, ready to run on `threads` threads (0: one per core), and what
    its metadata say under `key`: "" for nothing.

    `precision` "bfloat16" lets OpenVINO compute products so; ONNX Runtime has no such way. With
    `streams` each core gets a part of the images, instead of all cores a part of every product.
    `UserError`: the runtime is not installed, or cannot read the file.
    """
    if runtime == NATIVE:
        from mixerkit.inference.native_graph import NativeGraph

        assert precision == "float32", "our own code has no other products in float"
        read = NativeGraph(graph)
        return Opened(read.run(threads, streams), read.metadata.get(key, ""))
    if runtime == "openvino":
        return _openvino(graph, key, threads, precision, streams)
    return _onnxruntime(graph, key, threads, streams)


def open_outputs(
    graph: bytes, names: Sequence[str], runtime: Runtime, threads: int = 0
) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """A graph in memory that gives its outputs called `names`, by one of the `RUNTIMES`.
    `UserError`: it is not installed."""
    assert runtime != NATIVE, "our own code gives the result alone"
    if runtime == "openvino":
        compiled, _ = _openvino_model(graph, threads, "float32", LATENCY)
        request = compiled.create_infer_request()

        def run(x: np.ndarray) -> dict[str, np.ndarray]:
            request.infer({0: x})
            return {name: np.array(request.get_tensor(name).data) for name in names}

        return run
    session = _session(graph, threads)
    (images,) = (one.name for one in session.get_inputs())
    return lambda x: dict(zip(names, session.run(list(names), {images: x}), strict=True))


def installed() -> tuple[Runtime, ...]:
    """Which of the runtimes this Python has; nothing is imported."""
    from importlib.util import find_spec

    return tuple(name for name in RUNTIMES if find_spec(PACKAGES[name]))


def computes_bfloat16() -> bool:
    """Whether OpenVINO is installed and this processor multiplies in bfloat16."""
    if "openvino" not in installed():
        return False
    capabilities: list[str] = (
        openvino_module().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    )
    return "BF16" in capabilities


def _onnxruntime(graph: bytes | Path, key: str, threads: int, streams: bool) -> Opened:
    session = _session(graph, 1 if streams else threads)
    (name,) = (one.name for one in session.get_inputs())
    metadata = session.get_modelmeta().custom_metadata_map

    def run(images: np.ndarray) -> np.ndarray:
        result: np.ndarray = session.run(None, {name: images})[0]
        return result

    parts = threads or usable_cores()
    return Opened(by_threads(run, parts) if streams else run, metadata.get(key, ""))


def by_threads(run: Run, count: int) -> Run:
    """About equal parts of the images, each computed by a thread."""
    pool = ThreadPoolExecutor(count)

    def in_parts(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, max(1, min(count, len(images))))
        return np.concatenate(list(pool.map(run, parts)))

    return in_parts


def _session(graph: bytes | Path, threads: int) -> Any:
    try:
        onnxruntime = onnxruntime_module()
    except ImportError as error:
        raise missing("onnxruntime", graph) from error
    options = onnxruntime.SessionOptions()
    # its own 0 counts cores of others, too
    options.intra_op_num_threads = threads or usable_cores()
    options.log_severity_level = 3  # errors
    # its threads wait by computing, and would take a core from whoever is next
    options.add_session_config_entry("session.force_spinning_stop", "1")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes are not public
        raise unreadable(graph, "ONNX Runtime", error) from error


def _openvino(
    graph: bytes | Path, key: str, threads: int, precision: InFloat, streams: bool
) -> Opened:
    parts = threads or usable_cores()
    compiled, model = _openvino_model(
        graph, threads, precision, {"NUM_STREAMS": parts} if streams else LATENCY
    )
    run = by_requests(compiled, parts) if streams else _at_once(compiled)
    place = ["framework", key]  # where it keeps ONNX's metadata, in its own files too
    return Opened(run, model.get_rt_info(place).astype(str) if model.has_rt_info(place) else "")


def _openvino_model(
    graph: bytes | Path, threads: int, precision: InFloat, settings: dict[str, Any]
) -> tuple[Any, Any]:
    """Compiled, and as it was read."""
    try:
        openvino = openvino_module()
    except ImportError as error:
        raise missing("openvino", graph) from error
    core = openvino.Core()
    hint = "bf16" if precision == "bfloat16" else "f32"
    settings = settings | {"INFERENCE_PRECISION_HINT": hint}
    if threads:
        settings["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(graph if isinstance(graph, bytes) else str(graph))
        with signal_stack_kept():
            return core.compile_model(model, "CPU", settings), model
    except RuntimeError as error:
        raise unreadable(graph, "OpenVINO", error) from error


class _Stack(ctypes.Structure):
    """sigaltstack(2)'s stack_t, as Linux has it."""

    _fields_ = (
        ("start", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("size", ctypes.c_size_t),
    )


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put back where this thread handles signals: OpenVINO gives it a stack for that when it
    compiles, and frees it with the model, after which the next signal would end the process."""
    if sys.platform != "linux":
        yield
        return
    system, stack = ctypes.CDLL(None), _Stack()
    system.sigaltstack(None, ctypes.byref(stack))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(stack), None)


def _at_once(compiled: Any) -> Run:
    request = compiled.create_infer_request()

    request_is_mine = Lock()  # several threads may call

    def run(images: np.ndarray) -> np.ndarray:
        with request_is_mine:
            found = request.infer({0: images}, share_inputs=True, share_outputs=True)
            return np.array(found[0])  # the next run writes over it

    return run


def by_requests(compiled: Any, streams: int) -> Run:
    """About equal parts of the images, computed at the same time."""
    requests = [compiled.create_infer_request() for _ in range(streams)]

    requests_are_mine = Lock()

    def run(images: np.ndarray) -> np.ndarray:
        parts = np.array_split(images, max(1, min(streams, len(images))))
        used = requests[: len(parts)]
        with requests_are_mine:
            for request, part in zip(used, parts, strict=True):
                request.start_async({0: part}, share_inputs=True)
            for request in used:
                request.wait()
            return np.concatenate([request.get_output_tensor(0).data for request in used])

    return run


def missing(runtime: str, graph: bytes | Path) -> UserError:
    """The error for a runtime that is not installed."""
    what = "an exported model" if isinstance(graph, bytes) else str(graph)
    return UserError(f"Running {what} needs {runtime}: {how_to_install(runtime)}")


def unreadable(graph: bytes | Path, runtime: str, error: Exception) -> UserError:
    """The error for a file that a runtime cannot read."""
    what = "the graph" if isinstance(graph, bytes) else str(graph)
    said = (str(error).strip().splitlines() or ["no reason"])[-1]
    said = said.removeprefix("[ONNXRuntimeError] : ").rstrip(".")
    return UserError(
        f"{runtime} cannot read {what}: {said}. Is the file whole? Export the model again."
    )
