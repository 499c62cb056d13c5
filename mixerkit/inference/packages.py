"""The runtimes, imported so that they tell nobody.

ONNX Runtime and OpenVINO would report to their makers that they were used. Whoever uses mixerkit
has not been asked.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any

TELEMETRY = "openvino_telemetry"
"""What OpenVINO and NNCF report with; both do without."""
_one_at_a_time = Lock()


def onnxruntime_module() -> Any:
    """The package onnxruntime; `ImportError` where there is none."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def openvino_module() -> Any:
    """The package openvino; `ImportError` where there is none."""
    with _telling_nobody():
        import openvino
    return openvino


def nncf_module() -> Any:
    """The package nncf; `ImportError` where there is none."""
    with _telling_nobody():
        import nncf
    return nncf


@contextmanager
def _telling_nobody() -> Iterator[None]:
    """Whoever asks for what reports is told that it is not installed; who has it already keeps
    it."""
    with _one_at_a_time:
        if TELEMETRY in sys.modules:
            yield
            return
        sys.modules[TELEMETRY] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[TELEMETRY]
