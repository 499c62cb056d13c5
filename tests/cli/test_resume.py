"""Going on: after damage to a finished run, on images that moved, and what every ending says."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from mixerkit.checkpoint.manifest import manifest_text, read_manifest
from mixerkit.checkpoint.run import RunFolder
from mixerkit.cli import running
from mixerkit.cli.program import program
from mixerkit.errors import RunFailed, UserError
from mixerkit.training import loop
from mixerkit.training.progress import Silent
from tests.cli.tiny import make_photos


@pytest.fixture
def run(trained: Path, here: Path) -> Path:
    """A trained run of one's own."""
    return Path(shutil.copytree(trained, here / "run"))


@pytest.fixture
def stopped(tiny: Path, mixer, here: Path, monkeypatch) -> Path:
    """A run that SIGTERM stopped at step 4."""
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)

    class Stop(Silent):
        stopped = False

        def progress(self, now):
            if now.step == 4 and not self.stopped:
                self.stopped = True
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("mixerkit.cli.progress.Console", lambda stream: Stop())
    assert mixer("train", "tiny.yaml", "--out", "run")[0] == 128 + signal.SIGTERM
    monkeypatch.undo()
    monkeypatch.chdir(here)
    return here / "run"


def kept(run: Path) -> dict[str, bytes]:
    """Every file that tells neither time nor who wrote."""
    names = ["recipe.yaml", "choices.json", "metrics.jsonl", "evaluation.json"]
    files = [*(run / name for name in names), *(run / "model").iterdir()]
    files += [path for path in (run / "checkpoints").rglob("*") if path.is_file()]
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    "lost",
    [
        ["model"],
        ["model/manifest.json"],
        ["model/model.safetensors"],
        ["model/config.json"],
        ["evaluation.json"],
        ["report.html"],
        ["model/model.safetensors", "checkpoints/step-00000006/state.json"],
    ],
)
def test_what_a_finished_run_lost_is_named_and_made_again(run: Path, mixer, lost: list[str]):
    before = kept(run)
    for name in lost:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert mixer("runs", "verify", "run")[0] == 1
    code, _, err = mixer("train", "--resume", "run")
    assert code == 0 and all(name in err for name in lost if name != "report.html")
    assert kept(run) == before and (run / "report.html").is_file()
    assert mixer("runs", "verify", "run")[0] == 0


def test_changed_figures_are_made_again(run: Path, mixer):
    before = kept(run)
    path = run / "evaluation.json"
    path.write_text(path.read_text().replace("top1", "top2"))
    code, _, err = mixer("train", "--resume", "run")
    assert code == 0 and "evaluation.json was changed" in err and kept(run) == before


def test_test_rows_stand_once_after_what_was_lost_is_made_again(mixer, tiny, photos, here):
    shutil.copytree(photos, here / "split" / "train")
    shutil.copytree(photos, here / "split" / "test")
    found = mixer("train", "tiny.yaml", "--data.source", "split", "--out", "tested")
    assert found[0] == 0, found
    (here / "tested" / "evaluation.json").unlink()
    assert mixer("train", "--resume", "tested")[0] == 0
    rows = RunFolder.open(here / "tested").metrics()
    assert [row["split"] for row in rows].count("test") == 1


def test_images_that_moved_are_named_at_the_resume(stopped: Path, mixer, photos: Path, here):
    recipe = (stopped / "recipe.yaml").read_bytes()
    photos.rename(here / "moved")
    code, _, err = mixer("train", "--resume", "run")
    assert code == 2 and "--resume run --data.source FOLDER" in err
    code, out, _ = mixer("train", "--resume", "run", "--data.source", "moved")
    assert code == 0 and "resumed at step 4" in out
    assert (stopped / "recipe.yaml").read_bytes() == recipe
    assert json.loads(mixer("evaluate", "run", "--json")[1])["samples"] == 8
    (here / "moved" / "dark").rename(here / "moved" / "dim")
    code, _, err = mixer("train", "--resume", "run", "--data.source", "moved")
    assert code == 2 and "run was started on" in err


def test_the_list_says_why_a_run_stopped_until_it_goes_on(stopped: Path, mixer):
    out = mixer("runs", "list", "run")[1]
    assert "run stopped: SIGTERM (" in out
    assert "SIGTERM" in json.loads(mixer("runs", "list", "run", "--json")[1])[0]["stopped"]
    assert mixer("train", "--resume", "run")[0] == 0
    assert not (stopped / "stopped.json").exists()
    assert json.loads(mixer("runs", "list", "run", "--json")[1])[0]["stopped"] is None


def test_a_failure_says_how_to_go_on_and_is_remembered(mixer, tiny, here, monkeypatch):
    def fail(*_: object) -> None:
        raise RunFailed("The disk is full.\nIt really is.")

    with monkeypatch.context() as patched:
        patched.setattr(loop._Training, "_train", fail)
        code, _, err = mixer("train", "tiny.yaml")
    go_on = f"Go on with:\n  {program()} train --resume runs/tiny\n"
    assert code == 1 and err.endswith(go_on) and "It really is" in err
    assert "runs/tiny stopped: The disk is full. (" in mixer("runs")[1]


def damage_checkpoints(run: Path) -> None:
    for state in run.glob("checkpoints/*/state.json"):
        state.write_text("{")


def make_other_images(run: Path) -> None:
    photo = run.parent / "photos" / "dark" / "00.png"
    photo.rename(photo.with_name("another.png"))


def make_other_format(run: Path) -> None:
    for folder in (run / "checkpoints").iterdir():
        manifest = read_manifest(folder)
        text = manifest_text(manifest["about"] | {"format": 99}, manifest["files"])
        (folder / "manifest.json").write_bytes(text)


@pytest.mark.parametrize(
    ("harm", "said", "why"),
    [
        (damage_checkpoints, "can be used:", "No checkpoint in run/checkpoints can be used. ("),
        (make_other_images, "was started on other images", "SIGTERM ("),
        (make_other_format, "newer mixerkit", "SIGTERM ("),
    ],
)
def test_a_resume_that_is_refused_suggests_no_resume(stopped: Path, mixer, harm, said, why):
    harm(stopped)
    code, _, err = mixer("train", "--resume", "run")
    assert code == 2 and said in err and "Go on with" not in err
    assert f"run stopped: {why}" in mixer("runs", "list", "run")[1]


def test_a_finished_run_that_is_not_gone_on_with_was_not_stopped(run: Path, mixer):
    recipe = (run / "recipe.yaml").read_text()
    moved = run.parent / "other"
    make_photos(moved, count=10)
    assert str(moved) not in recipe
    code, _, err = mixer("train", "--resume", "run", "--data.source", "other")
    assert code == 2 and "was started on other images" in err
    assert not (run / "stopped.json").exists()


def test_an_error_of_the_input_on_the_way_says_how_to_go_on(stopped, mixer, monkeypatch):
    def fail(*_: object) -> None:
        raise UserError("The disk of the images went away.")

    with monkeypatch.context() as patched:
        patched.setattr(loop._Training, "_train", fail)
        code, _, err = mixer("train", "--resume", "run")
    assert code == 2 and err.endswith(f"Go on with:\n  {program()} train --resume run\n")
    assert "run stopped: The disk of the images went away. (" in mixer("runs", "list", "run")[1]


def test_what_is_refused_before_a_run_began_suggests_no_resume(stopped, mixer, here):
    words = ("train", "tiny.yaml", "--out", "run", "--data.source", "nowhere")
    code, _, err = mixer(*words)
    assert code == 2 and "--resume" not in err


def test_of_two_that_start_at_once_the_second_takes_the_next_folder(mixer, tiny, monkeypatch):
    folder = running.free_folder

    def late(*words: object) -> Path:
        chosen = folder(*words)
        monkeypatch.setattr(running, "free_folder", folder)
        assert mixer("train", "tiny.yaml", "--out", str(chosen))[0] == 0
        return chosen

    monkeypatch.setattr(running, "free_folder", late)
    code, out, _ = mixer("train", "tiny.yaml")
    assert code == 0 and "runs/tiny was taken by another run in the same moment." in out
    assert "run:  runs/tiny-2" in out


def test_a_run_as_a_recipe_must_have_it_as_it_was_saved(run: Path, mixer):
    path = run / "recipe.yaml"
    path.write_text(path.read_text().replace("0.02", "0.05"))
    for words in (("train", "run", "--out", "other"), ("recipes", "show", "run")):
        code, _, err = mixer(*words)
        assert code == 2 and "train --resume run` puts it back" in err
        assert "run/recipe.yaml can be named itself" in err
    code, out, _ = mixer("recipes", "show", "run/recipe.yaml")
    assert code == 0 and "lr: 0.05" in out


def test_checkpoints_are_models_to_every_command(stopped: Path, mixer, photos: Path):
    code, _, err = mixer("evaluate", "run")
    assert code == 2 and "run@newest and run@best name its checkpoints" in err
    found = json.loads(mixer("evaluate", "run@newest", "--json")[1])
    assert (found["step"], found["samples"]) == (4, 8)
    assert "run@best (step 4) on photos, held out" in mixer("evaluate", "run@best")[1]
    assert "4 steps" in mixer("info", "run@4")[1]
    code, out, _ = mixer("predict", "photos/dark/00.png", "--model", "run@best")
    assert code == 0 and "dark" in out and "light" in out
    assert mixer("convert", "run@newest", "as-model")[0] == 0
    assert "dark" in mixer("predict", "photos/dark/00.png", "--model", "as-model")[1]


def test_rows_of_images_that_are_not_there_do_not_stop_a_resume(stopped: Path, mixer):
    row = {"split": "photos", "index": 999, "file": "gone.png", "reason": "cut short"}
    (stopped / "quarantine.jsonl").write_text(f"{json.dumps(row)}\n")
    code, _, err = mixer("train", "--resume", "run")
    assert code == 0 and "has no image 999" in err
