"""Every damage to a run is found, laid to the right part, and nothing is touched."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from mixerkit.checkpoint.checkpoints import Checkpoints
from mixerkit.checkpoint.files import UNFINISHED
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from tests.checkpoint.conftest import flip_bit, left_out, row_of, tensors_of

NEWEST = "checkpoints/step-00000003"


@pytest.fixture
def kept(run_path: Path, recipe, model, preprocess) -> Path:
    """A finished run with everything that a run can hold, and checkpoints of steps 1, 2 and 3."""
    with RunFolder.create(run_path, recipe) as run:
        run.save_choices({"threads": 1, "total_steps": 3})
        for step, accuracy in ((1, 0.9), (2, 0.5), (3, None)):
            run.log({"step": step, "split": "train", "loss": 1 / step})
            run.log_timing({"step": step, "seconds": 0.1})
            run.save_checkpoint(step, tensors_of(step), {"validation": accuracy}, keep=2)
        run.log_quarantine(left_out("a.jpg"))
        run.save_evaluation("test", {"top1": 0.5})
        run.save_model(model, preprocess, {})
    return run_path


@pytest.fixture
def stopped(kept: Path) -> Path:
    """The same before its model was kept."""
    shutil.rmtree(kept / "model")
    (kept / "evaluation.json").unlink()
    return kept


def flipped(content: bytes) -> bytes:
    """With one bit of its middle turned over."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def problems(path: Path) -> dict[str, str]:
    """Part → what is wrong with it."""
    return {part.name: part.problem for part in verify_run(path).parts if part.problem}


def contents(path: Path) -> dict[Path, tuple[int, bytes]]:
    """Time of change and bytes of every file; folders too."""
    return {
        p: (p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in path.rglob("*")
    }


def test_a_sound_run(kept: Path):
    before = contents(kept)
    found = verify_run(kept)
    assert found.sound and found.resume_step == 3 and found.best_step == 1
    assert found.resume == "The run is finished: a resume would find nothing left to do."
    parts = {part.name: part for part in found.parts}
    assert parts.keys() == {
        *("manifest.json", "recipe.yaml", "choices.json", "evaluation.json", "model"),
        *("metrics.jsonl", "timing.jsonl", "quarantine.jsonl"),
        *(f"checkpoints/step-0000000{step}" for step in (1, 2, 3)),
    }
    for name, part in parts.items():
        files = [p for p in [kept / name, *(kept / name).rglob("*")] if p.is_file()]
        assert part.size == sum(len(p.read_bytes()) for p in files)
    assert [p.validation for p in found.parts if p.step] == [0.9, 0.5, None]
    assert contents(kept) == before


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("manifest.json", "manifest.json"),
        ("recipe.yaml", "recipe.yaml"),
        (f"{NEWEST}/manifest.json", NEWEST),
        (f"{NEWEST}/tensors.safetensors", NEWEST),
        (f"{NEWEST}/state.json", NEWEST),
        ("model/manifest.json", "model"),
        ("model/model.safetensors", "model"),
        ("model/config.json", "model"),
    ],
)
def test_a_flipped_bit_or_a_missing_file_is_laid_to_its_part(kept: Path, file: str, part: str):
    path = kept / file
    bits = 8 * path.stat().st_size
    for bit in range(0, bits, bits // 7):
        flip_bit(path, bit)
        before = contents(kept)
        assert problems(kept).keys() == {part}
        assert path.name in problems(kept)[part]
        assert contents(kept) == before
        flip_bit(path, bit)
    path.unlink()
    assert problems(kept).keys() == {part}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("choices.json", b"[]"),
        ("evaluation.json", b'{"a": NaN}'),
        ("timing.jsonl", b"{}\n{\n"),
        ("quarantine.jsonl", b"3\n"),
        ("metrics.jsonl", b'{"step": 2}\n{"step": 1}\n' + b'{"step": 3, "x": "' + b"x" * 150),
        ("metrics.jsonl", b'{"loss": 2}\n'),
        ("metrics.jsonl", b'{"step": 3}\n'),
        ("metrics.jsonl", b'{"step": 3}\n' + bytes(500)),
    ],
)
def test_rows_and_documents_that_cannot_be_right(kept: Path, file: str, text: bytes):
    (kept / file).write_bytes(text)
    assert problems(kept).keys() == {file}


def test_changed_rows_are_a_problem_of_metrics_and_move_the_resume(stopped: Path, capsys):
    path = stopped / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"0.333", b"0.334"))
    found = verify_run(stopped)
    assert (
        problems(stopped).keys() == {"metrics.jsonl"}
        and "step 3" in problems(stopped)["metrics.jsonl"]
    )
    assert found.resume_step == 2 == RunFolder.open(stopped).newest_checkpoint()[1]["step"]
    path.write_bytes(whole.replace(b" 1.0", b" 1.1"))
    assert verify_run(stopped).resume == (
        "A resume would be refused: metrics.jsonl is not as it was at any checkpoint: restore it, "
        "or delete it."
    )
    assert verify_run(stopped).resume_step is None
    path.unlink()
    assert "is missing" in problems(stopped)["metrics.jsonl"]
    assert verify_run(stopped).resume_step == 3


def test_choices_must_be_those_of_the_newest_checkpoint_and_may_be_more(kept: Path):
    path = kept / "choices.json"
    for choices in ({"threads": 1, "total_steps": 4}, {"threads": 1}, {"threads": 1.0}):
        path.write_text(json.dumps(choices))
        assert problems(kept).keys() == {"choices.json"}
    path.unlink()
    assert problems(kept).keys() == {"choices.json"}
    path.write_text(json.dumps({"threads": 1, "total_steps": 3, "compile": True}))
    assert problems(kept) == {}


def test_what_nothing_vouches_for_is_not_called_checked(kept: Path):
    with RunFolder.open(kept, writing=True) as run:
        run.log(row_of(4))
    parts = {part.name: part for part in verify_run(kept).parts}
    unchecked = {name for name, part in parts.items() if not part.checked}
    assert unchecked == {"timing.jsonl", "quarantine.jsonl"}
    assert all("no checksum" in parts[name].note for name in unchecked)
    assert parts["metrics.jsonl"].note == "4 rows; no checksum of those after step 3"
    shutil.rmtree(kept / "checkpoints")
    (kept / "timing.jsonl").unlink()
    (kept / "model" / "manifest.json").unlink()
    parts = {part.name: part for part in verify_run(kept).parts}
    assert not parts["evaluation.json"].checked
    assert not parts["metrics.jsonl"].checked and not parts["choices.json"].checked
    assert parts["choices.json"].note == "no checksum"


def test_it_says_what_a_resume_would_put_back(stopped: Path):
    before = contents(stopped)
    flip_bit(stopped / "recipe.yaml", 9)
    (stopped / "manifest.json").unlink()
    (stopped / "choices.json").write_text("{")
    found = verify_run(stopped)
    assert problems(stopped).keys() == {"recipe.yaml", "manifest.json", "choices.json"}
    assert found.resume_step == 3 and found.resume == (
        "A resume would go on from step 3, after it has put back recipe.yaml and manifest.json "
        "and choices.json."
    )
    RunFolder.open(stopped, writing=True).close()
    assert problems(stopped) == {}
    assert contents(stopped)[stopped / "recipe.yaml"][1] == before[stopped / "recipe.yaml"][1]


def test_what_a_kill_leaves_is_no_damage(kept: Path):
    with (kept / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 4, "lo')
    (kept / "checkpoints" / f"{UNFINISHED}step-00000004-ab").mkdir()
    (kept / "figures").mkdir()
    (kept / "figures" / f"{UNFINISHED}loss.png-ab").write_bytes(b"x")
    found = verify_run(kept)
    assert found.sound
    notes = {part.name: part.note for part in found.parts}
    assert notes["metrics.jsonl"].startswith("3 rows; the last line is being written, or torn")
    assert "a resume removes it" in notes[f"checkpoints/{UNFINISHED}step-00000004-ab"]
    assert "a resume removes it" in notes[f"figures/{UNFINISHED}loss.png-ab"]
    RunFolder.open(kept, writing=True).close()
    assert not list(kept.rglob(f"{UNFINISHED}*"))


def test_it_says_where_a_resume_goes_on_as_a_resume_does(stopped: Path, capsys):
    for step in (3, 2, 1):
        found = RunFolder.open(stopped).newest_checkpoint()
        assert found and verify_run(stopped).resume_step == found[1]["step"] == step
        flip_bit(stopped / f"checkpoints/step-0000000{step}/state.json", 5)
    assert verify_run(stopped).resume == (
        "A resume would be refused: no checkpoint is as it was saved."
    )
    with pytest.raises(UserError):
        RunFolder.open(stopped).newest_checkpoint()
    shutil.rmtree(stopped / "checkpoints")
    assert verify_run(stopped).resume == "A resume would be refused: the checkpoints are lost."
    (stopped / "timing.jsonl").unlink()
    assert verify_run(stopped).resume == (
        "A resume would start from the beginning: there is no checkpoint."
    )
    flip_bit(stopped / "manifest.json", 5)
    found = verify_run(stopped)
    assert found.resume_step is None and "refused: manifest.json" in found.resume


def test_without_the_runs_manifest_the_recipe_is_held_against_the_checkpoints(kept: Path):
    (kept / "manifest.json").unlink()
    assert problems(kept).keys() == {"manifest.json"}
    with (kept / "recipe.yaml").open("a") as file:
        file.write("# changed\n")
    assert problems(kept).keys() == {"manifest.json", "recipe.yaml"}


def test_what_is_no_run_is_refused(tmp_path: Path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="is not a run folder"):
            verify_run(path)


def test_what_is_pruned_while_it_is_read_is_read_anew(kept: Path, monkeypatch):
    """The writer saves step 4 and prunes step 2 just when step 2 is looked at."""
    read = Checkpoints.read

    def pruned_meanwhile(checkpoints, step):
        if step == 2:
            monkeypatch.undo()
            with RunFolder.open(kept, writing=True) as run:
                run.log(row_of(4))
                run.save_checkpoint(4, tensors_of(4), {"validation": 0.95}, keep=2)
        return read(checkpoints, step)

    monkeypatch.setattr(Checkpoints, "read", pruned_meanwhile)
    found = verify_run(kept)
    assert found.sound and (found.resume_step, found.best_step) == (4, 4)
    assert [part.step for part in found.parts if part.step] == [3, 4]


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("model", "model"),
        ("model/manifest.json", "model"),
        ("model/model.safetensors", "model"),
        ("evaluation.json", "evaluation.json"),
    ],
)
def test_what_a_finished_run_left_and_lost_is_made_again(kept: Path, file: str, part: str):
    """`figures/filters.png` says that there was a model, also where all of it is gone."""
    (kept / "figures").mkdir()
    Image.new("L", (9, 9)).save(kept / "figures" / "filters.png")
    (kept / "report.html").write_text("<!doctype html>…</html>\n")
    path = kept / file
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert problems(kept).keys() == {part}
    assert problems(kept)[part].endswith("A resume makes it again.")
    assert verify_run(kept).resume == f"A resume would go on from step 3, and make {part} again."


@pytest.mark.parametrize("content", [None, "<!doctype html><p>half"])
def test_a_report_that_is_gone_or_cut_is_a_problem_with_its_remedy(kept: Path, content):
    (kept / "figures").mkdir()
    Image.new("L", (9, 9)).save(kept / "figures" / "filters.png")
    if content:
        (kept / "report.html").write_text(content)
    assert problems(kept).keys() == {"report.html"}
    assert f"`mixer runs report {kept}` writes it again." in problems(kept)["report.html"]


@pytest.mark.parametrize("harm", [lambda whole: b"junk", lambda whole: whole[:-9], flipped])
def test_a_figure_that_is_no_whole_png_is_a_problem_with_its_remedy(kept: Path, harm):
    (kept / "figures").mkdir()
    figure = kept / "figures" / "loss.png"
    Image.new("L", (9, 9)).save(figure)
    parts = {part.name: part for part in verify_run(kept).parts}
    assert problems(kept) == {} and parts["figures"].note == "no checksum"
    figure.write_bytes(harm(figure.read_bytes()))
    assert problems(kept).keys() == {"figures"}
    assert "figures/loss.png is no whole PNG" in problems(kept)["figures"]
    assert f"`mixer runs report {kept}` writes it again." in problems(kept)["figures"]


@pytest.mark.parametrize("text", ["", "[]", '{"why": "x"}', '{"why": "x", "when": 3}'])
def test_why_a_run_stopped_is_looked_at(stopped: Path, text: str):
    (stopped / "stopped.json").write_text('{"why": "SIGTERM", "when": "today"}')
    assert problems(stopped) == {}
    (stopped / "stopped.json").write_text(text)
    assert problems(stopped).keys() == {"stopped.json"}
    assert not verify_run(stopped).mends


def test_lost_checkpoints_are_a_problem(stopped: Path):
    shutil.rmtree(stopped / NEWEST)
    assert problems(stopped).keys() == {NEWEST}
    assert "is missing, though a checkpoint was saved at step 3" in problems(stopped)[NEWEST]
    assert verify_run(stopped).resume == "A resume would go on from step 2."
    shutil.rmtree(stopped / "checkpoints")
    assert problems(stopped).keys() == {"checkpoints"}


def test_a_run_that_goes_on_is_said_to(kept: Path):
    with RunFolder.open(kept, writing=True) as run:
        run.save_evaluation("test", {"top1": 0.6})  # the model follows
        found = verify_run(kept)
    assert found.sound and found.resume.startswith("The run is going on, written by process ")
    assert not verify_run(kept).sound
