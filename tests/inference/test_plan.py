"""Plans: the fastest is found, kept and found again; slices change nothing."""

import json
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mixerkit.inference import plan as module
from mixerkit.inference.plan import Plan, fastest, kept_plan, sliced
from mixerkit.inference.runtimes import Run
from mixerkit.other_programs import OtherPrograms
from mixerkit.spec.strict import from_dict


def images(count: int) -> np.ndarray:
    return np.arange(3 * count, dtype=np.float32).reshape(count, 3)


def sleeping(seconds: Callable[[int], float]) -> Run:
    def run(images_B: np.ndarray) -> np.ndarray:
        time.sleep(seconds(len(images_B)))
        return 2 * images_B

    return run


@pytest.mark.parametrize("count", [1, 7, 8, 9, 64, 65])
def test_slices_are_even_and_their_results_in_order(count: int) -> None:
    sizes = []

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.append(len(images_B))
        return 2 * images_B

    found = sliced(run, images(count), 8)
    assert np.array_equal(found, 2 * images(count))
    assert sum(sizes) == count and max(sizes) <= 8 and max(sizes) - min(sizes) <= 1
    assert len(sizes) == -(-count // 8)


def test_full_slices_and_a_rest() -> None:
    """For what is compiled for few sizes, and fills up what is smaller."""
    sizes = []

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.append(len(images_B))
        return 2 * images_B

    assert np.array_equal(sliced(run, images(21), 8, even=False), 2 * images(21))
    assert sizes == [8, 8, 5]


def opened(**runs: Run) -> dict[str, Callable[[], Run]]:
    return {name: lambda run=run: run for name, run in runs.items()}


def test_the_fastest_for_one_image_and_for_many_at_its_best_size() -> None:
    """One is best alone, the other with eight at once: beyond, it leaves the cache."""
    single = sleeping(lambda n: 0.004 * n)
    many = sleeping(lambda n: 0.008 + 0.001 * n if n <= 8 else 0.02 + 0.004 * n)
    found = fastest(opened(single=single, many=many), images)
    assert (found.one.backend, found.one.slice) == ("single", 1)
    assert (found.many.backend, found.many.slice) == ("many", 8)
    assert 0.004 <= found.one.seconds < 0.008 and 0.002 <= found.many.seconds < 0.004
    assert found.for_batch(1) == found.one and found.for_batch(2) == found.many


def test_a_small_model_is_asked_for_many_images() -> None:
    """By eight images what gives each core a part is the last: handing over costs more."""
    alone = sleeping(lambda n: 0.0004 * n)
    parts = sleeping(lambda n: 0.004 + 0.0001 * n)
    found = fastest(opened(alone=alone, other=alone, parts=parts), images)
    assert found.one.backend != "parts" and found.many.backend == "parts"
    assert found.many.slice >= 64


def test_few_ways_are_open_at_once() -> None:
    """A large model in a dozen ways would not fit into memory."""
    kept: list[weakref.ref[Run]] = []
    most = 0

    def make(seconds: float) -> Callable[[], Run]:
        def opening() -> Run:
            nonlocal most
            run = sleeping(lambda n: seconds)
            kept.append(weakref.ref(run))
            most = max(most, sum(one() is not None for one in kept))
            return run

        return opening

    order = np.random.default_rng(0).permutation(12)
    found = fastest({f"{i}": make(0.001 + 0.001 * i) for i in order.tolist()}, images)
    assert found.one.backend == found.many.backend == "0"
    assert len(kept) == 12 and most <= 4


def test_a_hopeless_way_gets_no_turns() -> None:
    calls = 0

    def slow(images_B: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        time.sleep(0.02)
        return images_B

    fastest(opened(quick=sleeping(lambda n: 0.001), slow=slow), images)
    # once to prepare and once in earnest, twice, for one image and for several
    assert calls == 8


def test_one_slow_moment_throws_no_way_out() -> None:
    """As when the machine does something else for a while."""
    calls = 0

    def quick(images_B: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        time.sleep(0.04 if calls in (2, 8) else 0.0005)
        return images_B

    found = fastest(opened(slow=sleeping(lambda n: 0.004), quick=quick), images)
    assert found.one.backend == found.many.backend == "quick"


def test_slices_grow_while_that_is_faster() -> None:
    found = fastest(opened(only=sleeping(lambda n: 0.01 + 0.00001 * n)), images)
    assert found.many.slice >= 128


def test_slices_of_a_small_model_grow_in_any_case() -> None:
    """Two doublings that gain nothing say little of calls that take no time."""
    run = sleeping(lambda n: {1: 0.0005, 2: 0.0012, 4: 0.0024}.get(n, 0.0003 * n))
    assert fastest(opened(only=run), images).many.slice >= 8


def test_slow_models_are_not_tried_with_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)
    sizes = set()

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.add(len(images_B))
        time.sleep(0.006 * len(images_B))
        return images_B

    fastest(opened(slow=run), images)
    assert sizes == {1, 2}


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
