"""`mixer evaluate MODEL --protocol avg5`: the paper's transfer protocol on all five sets, small."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixerkit.checkpoint.rows import read_rows
from mixerkit.cli.avg5 import as_text, folder_name
from mixerkit.cli.main import main
from mixerkit.spec.paper import FINE_TUNING
from mixerkit.study import transfer
from mixerkit.study.grid import Trials
from mixerkit.study.runner import StudyFolder
from tests.miniature.amount import Amount
from tests.miniature.sets import write_sets

TASKS = ("imagenet", "cifar10", "cifar100", "pets", "flowers102")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    write_sets(root, Amount(classes=5, train=20, test=5, side=40))
    return root


def words(data: Path, folder: Path, *more: str) -> list[str]:
    return [
        "evaluate", "zoo:fashion-demo", "--protocol", "avg5", "--root", str(data),
        "--steps", "6", "--batch-size", "16", "--folder", str(folder), *more,
    ]  # fmt: skip


def test_killed_in_both_stages_it_goes_on_and_trains_each_trial_once(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "avg5"
    for stage, least in (("choose", 3), ("choose", 12), ("final", 2)):
        with subprocess.Popen(
            [sys.executable, "-m", "mixerkit", *words(data, folder)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process:  # fmt: skip
            deadline = time.monotonic() + 120
            while len(list((folder / stage / "rows").glob("*.json"))) < least:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
    assert main(words(data, folder, "--json")) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    rates = {row.task: row.lrs for row in FINE_TUNING}
    trials = {(task, f"{rate:g}") for task in TASKS for rate in rates[task]}
    rows = [json.loads(path.read_text()) for path in (folder / "choose" / "rows").glob("*.json")]
    assert {(row["levels"]["task"], row["levels"]["rate"]) for row in rows} == trials
    for run in (folder / "choose" / "runs").iterdir():
        steps = [r["step"] for r in read_rows(run / "metrics.jsonl") if r["split"] == "train"]
        assert steps == sorted(set(steps)) and steps[-1] == 6, run
    assert [row["task"] for row in found["rows"]] == [*TASKS, "average"]
    tested = [row["test_accuracy"] for row in found["rows"]]
    assert tested[-1] == pytest.approx(sum(tested[:-1]) / 5)
    for row in found["rows"][:-1]:
        held_out = [
            (one["held_out_accuracy"], -float(one["levels"]["rate"]))
            for one in rows
            if one["levels"]["task"] == row["task"]
        ]
        assert (row["held_out_accuracy"], -row["rate"]) == max(held_out)
    assert "5 trials, 5 done" in printed.err or "5 of 5" in printed.err


def test_the_test_images_are_read_in_the_end_alone(data: Path) -> None:
    suite = transfer.average_5()
    choose = transfer.choosing(suite).configurations()
    last = transfer.final(suite, dict.fromkeys(TASKS, 0.01)).configurations()
    assert not any(one.recipe.evaluate.test for one in choose) and len(choose) == 20
    assert all(one.recipe.evaluate.test for one in last) and len(last) == 5
    assert [one.recipe.data.holdout for one in last] == [0] * 5
    shares = {one.levels["task"]: one.recipe.data.holdout for one in choose}
    assert shares == {"imagenet": 0.01, "cifar10": 0.02, "cifar100": 0.02, "pets": 0.1, "flowers102": 0.1}  # fmt: skip  # noqa: E501


def test_a_plan_says_what_it_takes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path / "new", "--dry-run", "--json")) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["task"], row["trials"], row["steps"]) for row in rows] == [
        (task, 5, 6) for task in TASKS
    ]
    flowers = rows[-1]
    assert flowers["images"] == 5 * (20 + 5)  # with its own validation images
    assert main(words(data, tmp_path / "new", "--dry-run", "--tasks", "pets")) == 0
    assert "5 trials" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_nothing_starts_where_images_are_missing(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "some"
    root.mkdir()
    (root / "pets").symlink_to(data / "pets")
    assert main(words(root, tmp_path / "new")) == 2
    message = capsys.readouterr().err
    assert "Nothing was started." in message
    for title in ("ImageNet:", "CIFAR-10:", "CIFAR-100:", "Oxford Flowers:"):
        assert title in message
    assert "Pets" not in message and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--tasks", "pet"], "Unknown task 'pet'"),
        (["--suite", "none.yaml"], "none.yaml"),
        (["--stepz", "3"], "--steps"),
    ],
)
def test_bad_input_is_one_error(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path / "new", *more)) == 2
    assert message in capsys.readouterr().err


def test_a_suite_of_own_folders(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"name: mine\ntasks:\n  stripes: {{data: {data / 'imagenet' / 'train'}, steps: 4, "
        f"warmup: 1, rates: [0.01], held_out: 0.2}}\n"
    )
    suite = transfer.read_suite(file)
    assert [(task.name, task.rates) for task in suite.tasks] == [("stripes", (0.01,))]
    assert suite.tasks[0].recipe.duration == "4 steps"
    # what stands beside train/ is the test
    (tmp_path / "both").mkdir()
    for name in ("train", "val"):
        (tmp_path / "both" / name).symlink_to(data / "imagenet" / "train")
    whole = tmp_path / "whole.yaml"
    whole.write_text(
        file.read_text().replace(str(data / "imagenet" / "train"), str(tmp_path / "both"))
    )
    assert main([*words(data, tmp_path / "done", "--suite", str(whole), "--json")]) == 0
    row, average = json.loads(capsys.readouterr().out)["rows"]
    assert row["title"] == "stripes" and average["title"] == "Avg 1"
    assert row["test_accuracy"] == average["test_accuracy"] and row["published"] is None
    # that folder has no test images
    assert main(words(data, tmp_path / "new", "--suite", str(file))) == 2
    assert "there is no test split" in capsys.readouterr().err
    file.write_text("tasks: {a: {folder: x}}\n")
    assert main(words(data, tmp_path / "new", "--suite", str(file))) == 2
    assert "Unknown setting 'tasks.a.folder'" in capsys.readouterr().err


def test_of_equal_rates_the_smallest_is_best_and_failures_do_not_count(tmp_path: Path) -> None:
    suite = transfer.average_5()
    trials = transfer.choosing(suite)
    pets = [one for one in trials.configurations() if one.levels["task"] == "pets"]
    folder = StudyFolder(Trials("x", tuple(pets)), tmp_path)
    folder.begin()
    for one, accuracy in zip(pets, (0.5, 0.9, 0.9, None), strict=True):
        found = {"held_out_accuracy": accuracy} if accuracy else {"error": "NaN"}
        folder.note(one, {"levels": one.levels} | found)
    only = transfer.Suite("x", "x", tuple(task for task in suite.tasks if task.name == "pets"))
    assert transfer.best_rates(only, folder) == {"pets": 0.01}


def test_the_papers_row_stands_beside_ours() -> None:
    row = transfer.published_for("zoo:b16-imagenet21k-google", 224)
    assert row is not None and (row.imagenet, row.average5) == (80.64, 92.50)
    assert transfer.published_for("zoo:b16-imagenet21k-google", 448) is None
    assert transfer.published_for("zoo:fashion-demo", 28) is None
    rows = [
        {"title": "ImageNet", "rate": 0.03, "held_out_accuracy": 0.8, "test_accuracy": 0.8,
         "published": 80.64},
        {"title": "Pets", "rate": 0.03, "held_out_accuracy": 0.8, "test_accuracy": None,
         "published": None},
    ]  # fmt: skip
    text = as_text(rows, True)
    assert "80.64 %" in text and "-0.64" in text and "failed" in text


def test_a_folder_is_named_after_the_model() -> None:
    assert folder_name("zoo:b16-x") == "zoo-b16-x"
    assert folder_name("/a/b/run@best") == "a-b-run@best"
    assert folder_name("..") == "model"
