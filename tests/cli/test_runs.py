"""`mixer runs`: what is listed, and `verify` in words, in JSON and as an exit code."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(trained: Path, here: Path) -> Path:
    """A trained run of one's own."""
    return Path(shutil.copytree(trained, here / "runs" / "mine"))


def damage(path: Path) -> None:
    """One bit of one file of the newest checkpoint."""
    newest = max((path / "checkpoints").iterdir()) / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[-1] ^= 1
    newest.write_bytes(content)


def test_a_sound_run_is_said_to_be_sound_line_by_line(run, mixer):
    code, out, err = mixer("runs", "verify", str(run))
    assert (code, err) == (0, "")
    *parts, last = out.splitlines()
    unknown = [line.split()[0] for line in parts if "  sound" not in line]
    assert len(parts) >= 7 and unknown == ["timing.jsonl", "figures", "report.html"]
    assert sum("no checksum" in line for line in parts) == 3
    assert last == "The run is finished: a resume would find nothing left to do."


def test_damage_is_named_and_gives_exit_code_1(run, mixer):
    damage(run)
    (run / "model" / "config.json").unlink()
    code, out, _ = mixer("runs", "verify", str(run))
    assert code == 1
    known = [line for line in out.splitlines()[:-2] if "no checksum" not in line]
    damaged = [line for line in known if "  sound" not in line]
    assert len(damaged) == 2 and "step-00000006/tensors.safetensors was changed" in damaged[0]
    assert damaged[1].endswith("is missing: manifest.json lists it. A resume makes it again.")
    *_, resume, command = out.splitlines()
    assert resume == "A resume would go on from step 4, and make model again."
    assert command.startswith("To mend it: ") and command.endswith(f" train --resume {run}")


def test_json_says_the_same(run, mixer):
    code, out, _ = mixer("runs", "verify", str(run), "--json")
    found = json.loads(out)
    assert code == 0 and found["sound"] and found["resume_step"] == 6
    damage(run)
    code, out, _ = mixer("runs", "verify", str(run), "--json")
    found = json.loads(out)
    assert code == 1 and not found["sound"] and found["resume_step"] == 4
    assert [part["step"] for part in found["parts"] if part["problem"]] == [6]


def test_what_to_verify_must_be_a_run(here, mixer):
    code, _, err = mixer("runs", "verify", str(here))
    assert code == 2 and "is not a run folder" in err
    code, _, err = mixer("runs", "verify")
    assert code == 2 and "Which run?" in err


def test_the_list_shows_damaged_runs_beside_sound_ones(run, here, mixer):
    broken = shutil.copytree(run, here / "runs" / "broken")
    (broken / "recipe.yaml").write_text("name: other\n")
    code, out, err = mixer("runs")
    assert code == 0
    states = {Path(line.split()[0]).name: line.split()[1] for line in out.splitlines()[1:]}
    assert states == {"mine": "finished", "broken": "damaged"}
    assert "recipe.yaml was changed or damaged" in err


def test_runs_further_below_are_listed_or_said_to_be_there(run, here, mixer):
    deep = here / "runs" / "avg5" / "model" / "choose" / "runs"
    for name in ("a", "b"):
        shutil.copytree(run, deep / name)
    (here / "runs" / "empty" / "folder").mkdir(parents=True)
    code, out, _ = mixer("runs")
    assert code == 0 and out.count("finished") == 1
    assert out.splitlines()[-1].startswith("2 more runs below runs/avg5: ")
    assert out.splitlines()[-1].endswith("mixer runs list runs/avg5")
    code, out, _ = mixer("runs", "list", "runs/avg5")
    assert code == 0 and out.count("finished") == 2 and "more runs" not in out
    found = json.loads(mixer("runs", "list", "runs/avg5", "--json")[1])
    assert sorted(row["path"] for row in found) == [
        f"runs/avg5/model/choose/runs/{name}" for name in ("a", "b")
    ]
    assert "more" not in mixer("runs", "list", str(run))[1]
