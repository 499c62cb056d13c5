"""Plans: the fastest is found; slices change nothing."""

import time
import weakref
from collections.abc import Callable

import numpy as np
import pytest

from mixerkit.inference import plan as module
from mixerkit.inference.plan import fastest, sliced
from mixerkit.inference.runtimes import Run


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not here, but for the last contest, which is only long."""
    monkeypatch.setattr(module, "FINAL", 0.5)


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


def test_ways_for_many_are_told_apart_by_images_that_cores_can_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of three images one of two cores would take two, and such a way be thrown out."""
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "SECONDS", 0.02)
    together = sleeping(lambda n: 0.006 * n)
    parts = sleeping(lambda n: 0.01 * -(-n // 2))
    found = fastest(opened(together=together, other=together, parts=parts), images)
    assert found.one.backend != "parts" and found.many.backend == "parts"


def test_each_core_gets_an_image_of_a_large_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """One image takes longer than a call should; by it alone one of two cores would rest."""
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "SECONDS", 0.005)
    together = sleeping(lambda n: 0.006 * n)
    parts = sleeping(lambda n: 0.0096 * -(-n // 2))
    for ways in (opened(parts=parts), opened(together=together, parts=parts)):
        many = fastest(ways, images).many
        assert many.backend == "parts" and many.slice % 2 == 0


def test_few_ways_are_open_at_once() -> None:
    """A large model in a dozen ways would not fit into memory: the best for one image, the best two
    for many and one more."""
    kept: list[weakref.ref[Run]] = []
    most = 0

    def make(seconds: float) -> Callable[[], Run]:
        def opening() -> Run:
            nonlocal most
            run = sleeping(lambda n: seconds if n > 1 else 0.013 - seconds)
            kept.append(weakref.ref(run))
            most = max(most, sum(one() is not None for one in kept))
            return run

        return opening

    order = np.random.default_rng(0).permutation(12)
    found = fastest({f"{i}": make(0.001 + 0.001 * i) for i in order.tolist()}, images)
    assert (found.one.backend, found.many.backend) == ("11", "0")
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
    """As when the machine does something else for a while, once in each of two looks. Calls are
    long beside what other processes take from this one."""
    calls = 0

    def quick(images_B: np.ndarray) -> np.ndarray:
        nonlocal calls
        calls += 1
        time.sleep(0.2 if calls in (2, 5) else 0.0025)
        return images_B

    found = fastest(opened(slow=sleeping(lambda n: 0.02), quick=quick), images)
    assert found.one.backend == found.many.backend == "quick"


def test_slices_grow_while_that_is_faster() -> None:
    found = fastest(opened(only=sleeping(lambda n: 0.01 + 0.00001 * n)), images)
    assert found.many.slice >= 128


def test_slices_of_a_small_model_grow_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two doublings that gain nothing say little of calls that take no time."""
    monkeypatch.setattr(module, "_few", lambda *_: 1)
    monkeypatch.setattr(module, "FEW", 1)
    run = sleeping(lambda n: {1: 0.0005, 2: 0.0012, 4: 0.0024}.get(n, 0.0003 * n))
    assert fastest(opened(only=run), images).many.slice >= 8


def test_slow_models_are_not_tried_with_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "SECONDS", 0.01)
    sizes = set()

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.add(len(images_B))
        time.sleep(0.006 * len(images_B))
        return images_B

    fastest(opened(slow=run), images)
    assert sizes == {1, 2, 4, 8}


def test_what_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUNDS", 1)
    ways = {f"{i}": sleeping(lambda n: 0.001) for i in range(3)}
    told: list[str] = []
    fastest(opened(**ways), images, told.append)
    assert not told
    monkeypatch.setattr(module, "LONG", 0.0)
    fastest(opened(**ways), images, told.append)
    assert len(told) == 1 and told[0].startswith("that takes about ")


@pytest.mark.parametrize(("seconds", "rounds"), [(0.1, 5), (2.4, 4), (60.0, 3)])
def test_a_large_model_gets_fewer_turns(seconds: float, rounds: int) -> None:
    assert module._rounds(seconds) == rounds


def times_asked(
    seconds: float, beside: float, monkeypatch: pytest.MonkeyPatch, **changed: float
) -> list[int]:
    """How often each of two ways is called in a contest: the one that is known, and another."""
    for name, value in {"LEAST_LOOK": 1e-4, **changed}.items():
        monkeypatch.setattr(module, name, value)
    calls = [0, 0]

    def way(number: int, takes: float) -> Run:
        def run(images_B: np.ndarray) -> np.ndarray:
            calls[number] += 1
            time.sleep(takes)
            return images_B

        return run

    known = (module._Entrant("known", way(0, beside), beside),)
    module._contest(known, module._Entrant("other", way(1, seconds)), images(1))
    return calls


def test_no_long_call_is_made_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of the other are its look; turns follow at once if calls take long."""
    assert times_asked(0.01, 0.02, monkeypatch, LASTING=9) == [6, 8]
    assert times_asked(0.01, 0.02, monkeypatch, LASTING=0) == [5, 7]


def test_what_is_hopeless_for_long_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not even prepared for a second call where it is far from the best."""
    assert times_asked(0.03, 0.01, monkeypatch, LONG_CALL=9) == [0, 4]
    assert times_asked(0.03, 0.01, monkeypatch, LONG_CALL=0.001, FAR=99) == [0, 2]
    assert times_asked(0.03, 0.01, monkeypatch, LONG_CALL=0.001, FAR=2) == [0, 1]


def test_ways_for_many_are_told_apart_by_two_images_for_each_core(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a model so slow that two images take longer than a call should: of one for each core, the
    best of them would be thrown out."""
    monkeypatch.setattr(module, "usable_cores", lambda: 2)
    monkeypatch.setattr(module, "SECONDS", 0.001)
    pairs = sleeping(lambda n: 0.024 * -(-n // 4))
    alone = sleeping(lambda n: 0.007 * n)
    found = fastest(opened(alone=alone, other=alone, pairs=pairs), images)
    assert found.one.backend != "pairs" and found.many.backend == "pairs"
