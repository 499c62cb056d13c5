"""What other programs compute is noticed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixerkit import other_programs as module
from mixerkit.other_programs import OtherPrograms

LINE = "cpu  {user} 10 20 {idle} 50 0 5 {steal} 7 7\ncpu0 1 2 3\n"


@pytest.fixture(autouse=True)
def quiet() -> None:
    """Not here."""


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system says."""
    path = tmp_path / "stat"
    monkeypatch.setattr(module, "STAT", path)
    return path


def test_what_others_and_other_machines_took(stat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 200 ticks: 60 in programs, of which 20 ours, and 10 taken from this virtual machine."""
    ticks = module.os.sysconf("SC_CLK_TCK")
    ours = iter([(1.0, 0.5, 0.0, 0.0, 0.0), (1.0 + 15 / ticks, 0.5, 5 / ticks, 0.0, 0.0)])
    monkeypatch.setattr(module.os, "times", lambda: next(ours))
    stat.write_text(LINE.format(user=1000, idle=5000, steal=3))
    others = OtherPrograms()
    stat.write_text(LINE.format(user=1060, idle=5130, steal=13))
    assert others.share() == pytest.approx((60 + 10 - 20) / 200)


@pytest.mark.parametrize("text", [None, "", "cpu 1 2", "cpu a b c d e f g h"])
def test_a_system_that_does_not_say(stat: Path, text: str | None) -> None:
    if text is not None:
        stat.write_text(text)
    assert OtherPrograms().share() == 0.0


@pytest.mark.skipif(not module.STAT.exists(), reason="this system does not say")
def test_a_program_beside_us() -> None:
    others = OtherPrograms()
    one = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        time.sleep(1)
        beside = others.share()
    finally:
        one.kill()
        one.wait()
    assert beside > 0.5 / (module.os.cpu_count() or 1)
