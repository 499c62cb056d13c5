"""What a study leaves: averages, costs, figures of its kind."""

import io
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from mixerkit.checkpoint.lock import Lock
from mixerkit.cli.main import main
from mixerkit.study import figures
from mixerkit.study.arms import averaged, rank_correlation
from mixerkit.study.grid import Configuration
from mixerkit.study.named import STUDIES, permutation
from mixerkit.study.permutation import Reordered
from mixerkit.study.runner import model_of
from tests.study.test_runner import TEXT


def arm(levels: dict[str, str], accuracy: float, cost: float = 1.0, **more: object) -> dict:
    return {
        **levels, "levels": levels, "runs": 2, "held_out_accuracy": accuracy,
        "held_out_accuracy_half_width": 0.01, "test_accuracy": None, "parameters": int(1e5 * cost),
        "macs": int(1e6 * cost), "training_macs": int(1e9 * cost), "step_seconds": 0.01 * cost,
        "images_per_second": 1000 / cost,
        "each": [{"seed": seed, "held_out_accuracy": accuracy + seed / 100} for seed in (0, 1)],
        **more,
    }  # fmt: skip


def test_rank_correlation_is_spearmans() -> None:
    random.seed(0)
    for _ in range(20):
        one = [random.randint(0, 6) for _ in range(12)]
        other = [random.gauss(number, 2) for number in one]
        expected = stats.spearmanr(one, other).statistic
        assert rank_correlation(one, other) == pytest.approx(expected, abs=1e-12)


def test_a_course_is_averaged_over_seeds() -> None:
    config = permutation().configurations()[0]
    row = dict.fromkeys(("test_accuracy", "training_loss"), 0.5) | dict(
        held_out_accuracy=0.8, parameters=1, macs=1, training_macs=1, seconds=1.0
    )
    rows = [
        (config, row | {"seed": 0, "course": [[0.5, 0.6], [1.0, 0.8]]}),
        (config, row | {"seed": 1, "course": [[0.5, 0.7], [1.0, 0.9]]}),
    ]
    [found] = averaged([*rows, (config, row | {"seed": 2})])
    assert "course" not in found  # a row of an older version has none
    [found] = averaged(rows)
    assert np.array(found["course"]) == pytest.approx(np.array([[0.5, 0.65], [1.0, 0.85]]))


def test_each_study_gets_the_figures_that_fit_it() -> None:
    plain = [arm({"mixer": name}, 0.8) for name in ("mlp", "identity")]
    assert set(figures.figures(plain)) == {"ranking"}  # equal costs are nothing to draw
    sizes = [one | {"macs": 10**place} for place, one in enumerate(plain)]
    assert set(figures.figures(sizes)) == {"ranking", "cost"}
    shares = [
        arm({"model": name, "share": share}, 0.8) for name in "ab" for share in ("3 %", "100 %")
    ]
    assert set(figures.figures(shares)) == {"ranking", "levels"}
    timed = [one | {"course": [[0.5, 0.6], [1.0, 0.8]]} for one in sizes]
    drawn = figures.figures(timed)
    assert set(drawn) == {"ranking", "cost", "course"}
    for picture in drawn.values():
        pixels = np.asarray(Image.open(io.BytesIO(picture)))
        assert min(pixels.shape[:2]) > 200 and len(np.unique(pixels)) > 50


def test_sizes_of_one_thing_are_one_family() -> None:
    found = [figures.family_of(arm({"model": name}, 0.8)) for name in ("ViT (timm) 24", "mlp 96")]
    assert found == ["ViT (timm)", "mlp"]
    assert figures.family_of(arm({"width": "64"}, 0.8)) == "64"


def test_levels_are_numbers_or_words() -> None:
    found = [figures.number_of(level) for level in ("3 %", "0.1", "1e+30", ".", "1.2.3", "patches")]
    assert found == [3, 0.1, 1e30, None, None, None]


def test_what_was_not_measured_is_not_drawn() -> None:
    assert figures.figures([arm({"mixer": "mlp"}, 0.8) | {"held_out_accuracy": None}]) == {}


@pytest.mark.parametrize("name", STUDIES)
def test_every_named_study_is_whole(name: str) -> None:
    """Its configurations can be built, and each arm has three seeds."""
    study = STUDIES[name]()
    arms: dict[tuple[str, ...], list[Configuration]] = {}
    for one in study.configurations():
        arms.setdefault(tuple(one.arm.values()), []).append(one)
    assert {len(some) for some in arms.values()} == {3}
    assert not any(one.recipe.evaluate.test for some in arms.values() for one in some)


def test_an_order_is_trained_and_published_with_the_identity(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "small.yaml", tmp_path / "study"
    text = TEXT.replace("every: 20 steps", "every: 10 steps").replace("[0, 1]", "[0]")
    orders = "order: {as it is: {}, moved: {order: patches}}"
    text = text.replace("model.token_mixer: [mlp, pool, random]", orders)
    file.write_text(text)
    assert main(["study", str(file), "--folder", str(folder)]) == 0
    out = capsys.readouterr().out
    results = json.loads((folder / "results.json").read_text())
    assert f"written: {folder / 'results.json'}" in out
    assert [row["order"] for row in results["rows"]] == ["as it is", "moved"]
    assert [len(row["course"]) for row in results["rows"]] == [2, 2]
    assert results["settings"]["identity"]["difference_float64"] < 1e-12
    assert {"results-ranking.png", "results-course.png"} <= {
        path.name for path in folder.glob("*.png")
    }
    # nothing is trained again, nor published: the results are there
    words = ["study", str(file), "--folder", str(folder)]
    assert main([*words, "--json"]) == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 2 and "written" not in printed.err
    # a kill before the results were written leaves them to the next start
    (folder / "results.json").unlink()
    lock = Lock(folder / "claims")
    assert main(words) == 0
    assert "another process does that" in capsys.readouterr().out
    assert not (folder / "results.json").exists()
    lock.release()
    assert main(words) == 0
    assert "written:" in capsys.readouterr().out
    # and so does a file of other rows
    content = json.loads((folder / "results.json").read_text())
    content["rows"][0]["held_out_accuracy"] = 0.123
    (folder / "results.json").write_text(json.dumps(content))
    assert main(words) == 0
    assert "written:" in capsys.readouterr().out


def test_a_peer_sees_reordered_images_too() -> None:
    chosen = [one for one in permutation().configurations() if one.peer and one.order]
    assert len(chosen) == 2 * 2 * 3
    assert all(isinstance(model_of(one), Reordered) for one in chosen[:2])
