"""Plans: the fastest is found, kept and found again; slices change nothing."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mixerkit.inference import plan as module
from mixerkit.inference.plan import Plan, fastest, kept_plan, sliced
from mixerkit.inference.runtimes import Run


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


def test_the_fastest_backend_at_its_best_size() -> None:
    """One is best alone, the other with eight at once: beyond, it leaves the cache."""
    single = sleeping(lambda n: 0.004 * n)
    many = sleeping(lambda n: 0.008 + 0.001 * n if n <= 8 else 0.02 + 0.004 * n)
    found = fastest({"single": single, "many": many}, images)
    assert (found.backend, found.slice) == ("many", 8)
    assert 0.002 <= found.seconds < 0.004


def test_slow_models_are_not_tried_with_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.01)
    sizes = set()

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.add(len(images_B))
        time.sleep(0.006 * len(images_B))
        return images_B

    fastest({"slow": run}, images)
    assert sizes == {1, 2, module.FEW}


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


def test_a_plan_that_cannot_be_read_is_measured_again(tmp_path: Path) -> None:
    some: dict[str, Callable[[], Run]] = {"A": lambda: sleeping(lambda n: 0.0)}
    kept_plan({}, some, images, tmp_path)
    (file,) = tmp_path.iterdir()
    for content in (
        '{"backend": "A", "slice": 0, "seconds": 1}',
        '{"backend": "A", "slice": "8", "seconds": 1}',
        '{"backend": [], "slice": 8, "seconds": 1}',
        "",
        "{",
        "[]",
        '{"backend": "A"}',
        '{"backend": "gone", "slice": 1, "seconds": 1}',
    ):
        file.write_text(content)
        found = kept_plan({}, some, images, tmp_path)
        assert found.backend == "A"
        assert Plan(**json.loads(file.read_text())) == found
    unwritable = tmp_path / "a file"
    unwritable.write_text("")
    assert kept_plan({}, some, images, unwritable).backend == "A"
