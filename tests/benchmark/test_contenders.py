"""Who is open when; a contender in processes of its own: the median of trials in turns, and one
that fails.
"""

import weakref
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from mixerkit.benchmark import best_setting, contenders as module
from mixerkit.benchmark.contenders import Contenders
from mixerkit.benchmark.inference import prepared
from mixerkit.inference.plan import Choice, Plan


def alone(monkeypatch: pytest.MonkeyPatch, **seconds: list[float]) -> tuple[list, list, list]:
    """Rows, what was said and who was started in which order; without seconds left it fails."""
    started: list[str] = []
    said: list[str] = []

    def timed(name: str) -> tuple[float, float]:
        started.append(name)
        if not seconds[name]:
            raise RuntimeError("A contender failed: no memory")
        return seconds[name].pop(0), 0.5

    monkeypatch.setattr(module, "timed", timed)
    monkeypatch.setattr(module, "PEERS", {})
    monkeypatch.setattr(module, "PRECISIONS", {})
    monkeypatch.setattr(Contenders, "_commands", lambda *_: {name: name for name in seconds})
    found = Contenders(None, Path(), said.append)
    return found.alone((8, 3, 4, 4)), said, started


def test_trials_take_turns_and_long_ones_are_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, said, started = alone(monkeypatch, a=[9.0, 1.0, 2.0], b=[15.0, 17.0], c=[30.0])
    assert "".join(started) == "abcaba"
    figures = {row["contender"]: (row["seconds"], row["trials"]) for row in rows}
    assert figures == {"a": (2.0, 3), "b": (16.0, 2), "c": (30.0, 1)}
    assert said[0].endswith("3 trials") and said[2].endswith("1 trial")


def test_one_that_fails_has_no_row_and_the_others_have(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, said, _ = alone(monkeypatch, a=[], b=[1.0, 1.0, 1.0])
    assert [row["contender"] for row in rows] == ["b"]
    assert said[0] == "  a: A contender failed: no memory"


class Engine:
    """As our engine, but it computes nothing and counts who is open."""

    measured = Plan(Choice("native", 1, 1.0), Choice("native", 2, 1.0))
    open_now: ClassVar[weakref.WeakSet] = weakref.WeakSet()
    plans: ClassVar[list[Plan | None]] = []

    def __init__(
        self, source: object, precision: str, again: bool = False, plan: Plan | None = None
    ) -> None:
        self.open_now.add(self)
        self.plans.append(plan)
        self.plan = plan or self.measured

    def outputs(self, images: np.ndarray) -> np.ndarray:
        return images

    logits = outputs


def test_only_one_kind_is_open_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """How ours run is measured once, in the beginning, however busy the machine is."""
    few = ("timm eager", "timm eager bfloat16", "timm openvino nncf int8")
    monkeypatch.setattr(module, "PEERS", {name: module.PEERS[name] for name in few})
    monkeypatch.setattr(module, "Predictor", Engine)
    monkeypatch.setattr(best_setting, "TURN", 1e-3)
    monkeypatch.setattr(module, "open_peer", lambda *_: Engine(None, "").outputs)
    monkeypatch.setattr(module, "peer_file", lambda *_: Path("model"))
    monkeypatch.setattr(module, "absent", lambda *_: [])
    monkeypatch.setattr(module, "computes_bfloat16", lambda: True)
    monkeypatch.setattr(module, "_exported", lambda *_: Path("model.onnx"))
    found = Contenders(prepared("zoo:fashion-demo"), Path(), lambda line: None)
    assert found.kinds() == ["float32", "bfloat16", "int8"]
    for kind, peer in zip(found.kinds(), few, strict=True):
        assert not Engine.open_now
        Engine.plans.clear()
        theirs, ours = found.at(np.zeros((3, 1, 28, 28), np.uint8), kind)
        assert (theirs.name, theirs.kind, theirs.slice) == (peer, kind, 3)
        assert (ours.name, ours.kind, ours.slice) == (f"mixerkit {kind}", kind, 2)
        assert ours.setting == "native, 2 at once" and len(Engine.open_now) == 2
        assert Engine.plans[-1] is Engine.measured
        del theirs, ours
