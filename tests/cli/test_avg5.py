"""`mixer evaluate MODEL --protocol avg5`: the paper's transfer protocol on all five sets, small."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load, save_model
from mixerkit.checkpoint.rows import read_rows
from mixerkit.cli.avg5 import Avg5, folder_name, prepared
from mixerkit.cli.avg5_result import paper_of
from mixerkit.cli.avg5_text import as_text
from mixerkit.cli.main import main
from mixerkit.data.sources import Splits, opened
from mixerkit.spec.paper import FINE_TUNING
from mixerkit.spec.recipe import Data, Recipe
from mixerkit.study import runner, transfer
from mixerkit.study.grid import Trials
from mixerkit.study.runner import StudyFolder, Work
from mixerkit.study.transfer_suite import Suite, average_5, read_suite
from mixerkit.training import setup
from mixerkit.training.state import FiguresNotFinite
from tests.miniature.amount import Amount
from tests.miniature.pictures import write_class_folders
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


def test_rates_are_compared_on_the_papers_shares() -> None:
    suite = average_5()
    choose = transfer.choosing(suite).configurations()
    last = transfer.final(suite, dict.fromkeys(TASKS, 0.01)).configurations()
    assert (len(choose), len(last)) == (20, 5)
    assert [one.recipe.data.holdout for one in last] == [0] * 5
    shares = {one.levels["task"]: one.recipe.data.holdout for one in choose}
    assert shares == {"imagenet": 0.01, "cifar10": 0.02, "cifar100": 0.02, "pets": 0.1, "flowers102": 0.1}  # fmt: skip  # noqa: E501


class Watched(np.ndarray):
    """Images in memory that note when any of them are taken."""

    taken = 0

    def __getitem__(self, index):
        Watched.taken += 1
        return super().__getitem__(index)


OPENED: set[str] = set()
"""Every file that this process opened."""


def note_file(event: str, arguments: tuple) -> None:
    """Audit hook."""
    if event == "open" and isinstance(arguments[0], str | os.PathLike):
        OPENED.add(os.fspath(arguments[0]))


def test_the_test_images_are_read_in_the_end_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Avg5("zoo:fashion-demo", root=str(data), steps=2, batch_size=16)
    suite = prepared(given)
    suite = replace(suite, tasks=tuple(replace(task, rates=(0.01,)) for task in suite.tasks))
    found = [opened(task.recipe.data) for task in suite.tasks]
    train, test = (
        {str(path) for splits in found for path in getattr(splits, name).paths}
        for name in ("train", "test")
    )
    assert len(test) == 5 * 5 * 3 and not train & test  # of ImageNet, Pets and Flowers
    monkeypatch.setattr(setup, "opened", with_watched_tests)
    sys.addaudithook(note_file)

    OPENED.clear()
    choose = StudyFolder(transfer.choosing(suite), tmp_path / "choose")
    Work(choose, print).do()
    assert OPENED & train and not OPENED & test
    assert not Watched.taken  # of CIFAR-10 and CIFAR-100, whose files hold all images at once
    best = transfer.best_rates(suite, choose)
    Work(StudyFolder(transfer.final(suite, best), tmp_path / "final"), print).do()
    assert test <= OPENED and Watched.taken


def with_watched_tests(data: Data) -> Splits:
    """The splits that `data` names."""
    splits = opened(data)
    assert splits.test is not None
    if splits.test.images is None:
        return splits
    return replace(splits, test=replace(splits.test, images=splits.test.images.view(Watched)))


def test_a_plan_says_what_it_takes(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path / "new", "--dry-run", "--json")) == 0
    plan = json.loads(capsys.readouterr().out)
    rows = plan["rows"]
    assert (plan["model"], plan["suite"], plan["notes"]) == ("zoo:fashion-demo", "avg5", [])
    assert [(row["task"], row["trials"], row["steps"]) for row in rows] == [
        (task, 5, 6) for task in TASKS
    ]
    flowers = rows[-1]
    assert flowers["images"] == 5 * (20 + 5)  # with its own validation images
    assert [row["held_out"] for row in rows[1:3]] == [2, 2]  # of CIFAR's 100
    assert plan["training_seconds"] > 0 < plan["measuring_seconds"]
    assert (plan["steps"], plan["folder"]) == (6, str(tmp_path / "new"))
    for tasks in (["pets,cifar10"], ["pets", "cifar10"], ["pets,", "cifar10"]):
        assert main(words(data, tmp_path / "new", "--dry-run", "--tasks", *tasks)) == 0
        out = capsys.readouterr().out
        assert "10 trials" in out and " of training and measuring on this machine" in out
        assert "20 checkpoints of up to " in out
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
        (["--tasks"], "--tasks needs the name of at least one task after it, found none"),
        (["--suite", "none.yaml"], "none.yaml"),
        (["--stepz", "3"], "evaluate --protocol avg5 --help` shows every option"),
        (["--steps", "0"], "--steps must be a whole number of at least 1, found 0"),
        (["--batch-size", "-1"], "--batch-size must be a whole number of at least 1, found -1"),
        (["--image-size", "0"], "error: --image-size must be a positive whole number of pixels"),
        (["--root", "nowhere"], "--root must be a folder, found no folder"),
        (["--dry-run", "--again"], "--dry-run and --again exclude one another"),
    ],
)
def test_bad_input_is_one_error(
    more: list[str], message: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(data, tmp_path / "new", *more)) == 2
    assert message in capsys.readouterr().err


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A suite of one folder with 36 images for training and 6 for the test."""
    write_class_folders(tmp_path / "leaves" / "train", 3, 12, 32, 0)
    write_class_folders(tmp_path / "leaves" / "val", 3, 2, 32, 1)
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"tasks:\n  leaves: {{data: {tmp_path / 'leaves'}, steps: 3, rates: [0.01, 0.02]}}\n"
    )
    return file


def on_own(own: Path, *more: str, model: str = "zoo:fashion-demo") -> list[str]:
    folder = str(own.parent / "done")
    return ["evaluate", model, "--protocol", "avg5", "--suite", str(own), "--folder", folder, *more]


def test_a_suite_of_own_folders(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(on_own(own, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert "leaves: batches of 32 images" in out and "held out" in out.splitlines()[0]
    assert main(on_own(own, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    row, average = found["rows"]
    assert row["title"] == "leaves" and average["title"] == "Avg 1"
    assert row["test_accuracy"] == average["test_accuracy"] and row["published"] is None
    assert found["suite"] == "mine" and "batches of 32 images" in found["notes"][0]


def test_what_cannot_train_is_refused_before(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own.write_text(own.read_text().replace("steps: 3", "steps: 3, batch_size: 512"))
    for more in ([], ["--dry-run"]):
        assert main(on_own(own, *more)) == 2
        assert "leaves: batch_size 512 is larger than the 32 images" in capsys.readouterr().err
    assert not (own.parent / "done").exists()


def test_a_rehearsal_of_one_step_comes_to_its_end_and_is_called_one(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short, folder = ("--steps", "1", "--batch-size", "8"), own.parent / "done"
    assert main(on_own(own, *short)) == 0
    assert f"a rehearsal, trials of 1 step, in {folder}" in capsys.readouterr().out
    assert main(on_own(own, *short, "--json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["steps"], found["batch_size"], found["folder"]) == (1, 8, str(folder))


def test_other_weights_under_the_same_name_are_refused(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, folder = load("zoo:fashion-demo"), own.parent / "model"
    save_model(folder, model, model.preprocess, {})
    assert main(on_own(own, model=str(folder))) == 0
    with torch.no_grad():
        next(iter(model.parameters())).add_(0.1)
    shutil.rmtree(folder)
    save_model(folder, model, model.preprocess, {})
    capsys.readouterr()
    assert main(on_own(own, model=str(folder))) == 2
    message = capsys.readouterr().err
    assert "begin from other weights than the model has now" in message
    assert "give another --folder" in message


def test_what_became_nan_is_tried_again(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = runner.train

    def train(recipe: Recipe, *given, **more):
        if recipe.optimizer.lr == 0.02:
            raise FiguresNotFinite("The loss is nan.", 1)
        return plain(recipe, *given, **more)

    monkeypatch.setattr(runner, "train", train)
    assert main(on_own(own)) == 0
    assert "left out: task=leaves,rate=0.02: The loss is nan." in capsys.readouterr().err
    monkeypatch.setattr(runner, "train", plain)
    assert main(on_own(own)) == 0  # it stays as it is
    assert "left out: task=leaves,rate=0.02" in capsys.readouterr().err
    assert main(on_own(own, "--again")) == 0
    printed = capsys.readouterr()
    assert "1 failed trial to try again" in printed.out and "left out" not in printed.err
    rows = (own.parent / "done" / "choose" / "rows").glob("*.json")
    assert not any("error" in json.loads(path.read_text()) for path in rows)


def test_a_rehearsal_and_the_whole_have_folders_of_their_own(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = ["evaluate", "zoo:fashion-demo", "--protocol", "avg5", "--suite", str(own)]
    short = ["--steps", "1", "--batch-size", "8"]
    assert main([*plain, *short]) == 0 and main(plain) == 0
    printed = capsys.readouterr().out
    whole = "zoo-fashion-demo,suite=mine"
    names = {path.name for path in (tmp_path / "runs" / "avg5").iterdir()}
    assert names == {whole, f"{whole},steps=1,batch_size=8"}
    assert printed.count("Next:") == 2 and f"mixer runs list runs/avg5/{whole}\n" in printed
    assert "/final/runs/task=leaves,rate=" in printed
    assert main([*plain, *short, "--folder", f"runs/avg5/{whole}"]) == 2
    error = capsys.readouterr().err
    assert "duration is '3 steps' there and '1 steps' now" in error and "--folder" in error


def test_a_part_of_the_tasks_is_a_part_of_the_whole(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task = own.read_text().splitlines()[1]
    own.write_text(f"tasks:\n{task}\n{task.replace('leaves:', 'twigs:')}\n")
    assert main(on_own(own, "--tasks", "twigs")) == 0
    out = capsys.readouterr().out
    assert "twigs: task 1 of 1, trial 3 of 3" in out
    assert main(on_own(own)) == 0
    out = capsys.readouterr().out
    assert "comparing rates: 4 trials, 2 done" in out and "leaves: task 1 of 2, trial 1 of 6" in out
    assert main(on_own(own, "--tasks", "leaves")) == 0
    assert "comparing rates: 2 trials, 2 done" in capsys.readouterr().out


def test_another_choice_of_rates_is_the_same_final_study(own: Path, tmp_path: Path) -> None:
    suite = read_suite(own)
    StudyFolder(transfer.final(suite, {"leaves": 0.01}), tmp_path / "final").begin()
    other = StudyFolder(transfer.final(suite, {"leaves": 0.02}), tmp_path / "final")
    assert other.is_begun() and [one.levels["rate"] for one in other.configurations] == ["0.02"]


def test_why_a_trial_could_not_be_trained_is_said_once_with_what_to_do(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def train(*given, **more):
        raise OSError("No space left on the disk")

    monkeypatch.setattr(runner, "train", train)
    assert main(on_own(own, "--again")) == 1
    message = capsys.readouterr().err
    assert message.count("No space left on the disk") == 1
    assert "2 trials could not be trained here" in message
    assert "Go on with:" in message and "--again" not in message


def test_a_larger_image_is_fine_tuned_in_the_dense_form(data: Path) -> None:
    native, larger = (
        prepared(Avg5("zoo:fashion-demo", root=str(data), tasks=("pets",), image_size=size))
        .tasks[0].recipe.model
        for size in (28, 56)
    )  # fmt: skip
    assert (larger.tiles, larger.token_width) == (1, 4 * native.token_width)


def test_of_equal_rates_the_smallest_is_best_and_failures_do_not_count(tmp_path: Path) -> None:
    suite = average_5()
    trials = transfer.choosing(suite)
    pets = [one for one in trials.configurations() if one.levels["task"] == "pets"]
    folder = StudyFolder(Trials("x", tuple(pets)), tmp_path)
    folder.begin()
    for one, accuracy in zip(pets, (0.5, 0.9, 0.9, None), strict=True):
        found = {"held_out_accuracy": accuracy} if accuracy else {"error": "NaN"}
        folder.note(one, {"levels": one.levels} | found)
    only = Suite("x", "x", tuple(task for task in suite.tasks if task.name == "pets"))
    assert transfer.best_rates(only, folder) == {"pets": 0.01}
    (task,) = only.tasks
    said = "0.01 and 0.03 equal on 7 held-out images: the smallest is taken."
    assert transfer.tie(task, folder, 7) == f"{task.title}: {said}"
    folder.note(pets[0], {"levels": pets[0].levels, "held_out_accuracy": 0.95})
    assert not transfer.tie(task, folder, 7)
    for one in pets:
        folder.note(one, {"levels": one.levels, "held_out_accuracy": 0.5})
    assert "all rates equal on 1 held-out image: the smallest" in transfer.tie(task, folder, 1)


def test_the_papers_row_stands_beside_ours() -> None:
    rows = [
        {"title": "ImageNet", "rate": 0.03, "held_out_accuracy": 0.8, "test_accuracy": 0.8,
         "published": 80.64},
        {"title": "Pets", "rate": 0.03, "held_out_accuracy": 0.8, "test_accuracy": None,
         "published": None},
    ]  # fmt: skip
    text = as_text(rows, True)
    assert "80.64 %" in text and "-0.64" in text and "failed" in text
    assert "paper" not in as_text(rows, False)


def test_tasks_of_your_own_are_not_compared_with_the_paper(own: Path) -> None:
    given = Avg5("zoo:b16-imagenet21k-google", suite=str(own))
    assert not paper_of(given, read_suite(own)).figures


def test_a_folder_is_named_after_the_model() -> None:
    assert folder_name("zoo:b16-x") == "zoo-b16-x"
    assert folder_name("/a/b/run@best") == "a-b-run@best"
    assert folder_name("..") == "model"
