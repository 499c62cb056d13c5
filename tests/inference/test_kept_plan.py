"""Plans are kept and found again, and measured anew where they should be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mixerkit.inference import plan as module
from mixerkit.inference.kept_plan import kept_plan
from mixerkit.inference.plan import Plan
from mixerkit.inference.runtimes import Run
from mixerkit.other_programs import OtherPrograms
from mixerkit.spec.strict import from_dict
from tests.inference.test_plan import images, sleeping


def test_a_plan_is_measured_once_for_each_machine_and_model(tmp_path: Path) -> None:
    made: list[str] = []

    def candidate(name: str) -> Callable[[], Run]:
        def make() -> Run:
            made.append(name)
            return sleeping(lambda n: 0.0)

        return make

    some = {name: candidate(name) for name in ("A", "B")}
    first = kept_plan({"model": 1}, some, images, tmp_path)
    assert kept_plan({"model": 1}, some, images, tmp_path) == first and made == ["A", "B"]
    kept_plan({"model": 2}, some, images, tmp_path)
    kept_plan({"model": 1}, {"A": some["A"]}, images, tmp_path)
    assert made == [*"ABAB", "A"] and len(list(tmp_path.iterdir())) == 3
    kept_plan({"model": 1}, some, images, tmp_path, again=True)
    assert made == [*"ABAB", "A", *"AB"] and len(list(tmp_path.iterdir())) == 3


def test_a_plan_that_cannot_be_read_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLICES", (1,))
    some: dict[str, Callable[[], Run]] = {"A": lambda: sleeping(lambda n: 0.0)}
    kept_plan({}, some, images, tmp_path)
    (file,) = tmp_path.iterdir()
    good = {"backend": "A", "slice": 8, "seconds": 1.0}
    for wrong in (
        good | {"slice": 0},
        good | {"slice": "8"},
        good | {"backend": []},
        good | {"backend": "gone"},
        {"backend": "A"},
        [],
    ):
        for content in ({"one": good, "many": wrong}, {"one": wrong, "many": good}, wrong):
            kept = {"plan": content, "others": 0.0, "times": 1}
            _is_measured_again(file, json.dumps(kept), some)
    for text in ("", "{", "[]"):
        _is_measured_again(file, text, some)
    unwritable = tmp_path / "a file"
    unwritable.write_text("")
    assert kept_plan({}, some, images, unwritable).one.backend == "A"


def _is_measured_again(file: Path, text: str, some: dict[str, Callable[[], Run]]) -> None:
    file.write_text(text)
    found = kept_plan({}, some, images, file.parent)
    assert found.one.backend == found.many.backend == "A"
    assert from_dict(Plan, json.loads(file.read_text())["plan"]) == found


def test_a_plan_measured_beside_others_is_measured_anew_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quieter of two counts; where others never rest, so does the quietest of three."""

    def measured(others: float, seconds: float) -> tuple[Plan, list[str]]:
        monkeypatch.setattr(OtherPrograms, "share", lambda self: others)
        told: list[str] = []
        run = sleeping(lambda n: seconds)
        return kept_plan({}, {"A": lambda: run}, images, tmp_path, told.append), told

    first, told = measured(others=0.6, seconds=0.001)
    assert told[-1] == (
        "other programs took 60% of the processors meanwhile; measured anew the next time"
    )
    quieter, _ = measured(others=0.2, seconds=0.002)
    assert quieter.one.seconds >= 0.002 > first.one.seconds
    third, told = measured(others=0.4, seconds=0.003)
    assert third == quieter and "took 20%" in told[-1] and "`again` measures anew" in told[-1]
    assert measured(others=0.0, seconds=0.004) == (quieter, [])


def test_a_plan_measured_in_quiet_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares = iter([0.5, 0.05])
    monkeypatch.setattr(OtherPrograms, "share", lambda self: next(shares))
    some: dict[str, Callable[[], Run]] = {"A": lambda: sleeping(lambda n: 0.001)}
    kept_plan({}, some, images, tmp_path)
    second = kept_plan({}, some, images, tmp_path)
    assert kept_plan({}, some, images, tmp_path) == second
