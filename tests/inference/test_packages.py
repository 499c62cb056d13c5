"""The runtimes report to nobody that they were used."""

import os
import subprocess
import sys
from pathlib import Path

WATCHED = """
import sys
asked = []
sys.addaudithook(lambda event, given: asked.append((event, given)) if "socket" in event else None)
from mixerkit import Predictor
from mixerkit.inference.packages import nncf_module
import numpy as np

pixels = np.zeros((2, 1, 28, 28), np.uint8)
for runtime in ("onnxruntime", "openvino"):
    Predictor("zoo:fashion-demo", backend=runtime, threads=1).logits(pixels)
nncf_module()
import os
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
assert "openvino_telemetry" not in sys.modules
print(asked)
"""


def test_nobody_is_told(tmp_path: Path) -> None:
    """In a home of its own, where they would keep who they think the user is. The hook sees what
    Python sends (OpenVINO's and NNCF's), the folders what ONNX Runtime would, which is C++."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED],
        env={name: text for name, text in os.environ.items() if "ORT_" not in name} | home,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["mixerkit"]


def test_who_has_the_reporter_keeps_it() -> None:
    code = """
import sys
import openvino_telemetry
from mixerkit.inference.packages import openvino_module
openvino_module()
assert sys.modules["openvino_telemetry"] is openvino_telemetry
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
