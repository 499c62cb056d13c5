"""A study at work: killed at a random moment, gone on with by two processes at once."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint.lock import Lock
from mixerkit.checkpoint.rows import read_rows
from mixerkit.cli.main import main
from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.spec.mixer import variant
from mixerkit.study import grid, runner
from mixerkit.study.arms import averaged, ranked_by
from mixerkit.study.grid import Trials, read_study
from mixerkit.study.named import STUDIES
from mixerkit.study.peers import PEERS, cost_of, peer_of
from mixerkit.study.runner import StudyFolder, Work
from mixerkit.training.loop import train
from tests.training.runs import SAMPLE, StopAt, final_tensors

TEXT = f"""
name: small
recipe: fashion-demo
set:
  model: {{width: 16, depth: 1, token_width: 8, channel_width: 16}}
  data: {{root: {SAMPLE}, holdout: 100}}
  optimizer: {{name: adamw, lr: 0.003}}
  duration: 20 steps
  evaluate: {{every: 20 steps}}
  save: {{every: 5 steps}}
  batch_size: 50
  threads: 1
factors:
  model.token_mixer: [mlp, pool, random]
  seed: [0, 1]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TEXT)
    return path


def silent(line: str) -> None:
    """Nobody listens."""


def start(file: Path, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "mixerkit", "study", str(file), "--folder", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def until_saved(folder: Path) -> None:
    deadline = time.monotonic() + 60
    while not list((folder / "runs").glob("*/checkpoints/step-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_killed_study_is_finished_by_two_processes_each_run_once(
    file: Path, tmp_path: Path
) -> None:
    """The rows are those of a study that nothing happened to, but for the time."""
    folder = tmp_path / "study"
    first = start(file, folder)
    until_saved(folder)
    time.sleep(random.random())
    first.send_signal(signal.SIGKILL)
    first.communicate()
    both = [start(file, folder), start(file, folder)]
    said = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    lines = [line for text in said for line in text.splitlines() if " of 6: " in line]
    trained = [line.split(": ")[1] for line in lines]
    assert len(trained) == len(set(trained))

    plain = StudyFolder(read_study(file), tmp_path / "plain")
    Work(plain, silent).do()
    shared = StudyFolder(read_study(file), folder)
    assert len(shared.rows()) == len(shared.configurations) == 6
    for (_, one), (_, other) in zip(shared.rows(), plain.rows(), strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
        steps = read_rows(folder / "runs" / one["configuration"] / "metrics.jsonl")
        assert [row["step"] for row in steps if row["split"] == "train"] == list(range(1, 21))


def test_a_signal_stops_it_saved(file: Path, tmp_path: Path) -> None:
    file.write_text(TEXT.replace("duration: 20 steps", "duration: 100000 steps"))
    process = start(file, tmp_path / "study")
    until_saved(tmp_path / "study")
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Stopping and saving" in said
    assert "6 runs left. Go on with:" in said and f"study {file} --folder" in said


def test_a_signal_that_came_while_a_run_was_set_up_is_heeded(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    plain = runner.is_run

    def signalled(path: Path) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return plain(path)

    monkeypatch.setattr(runner, "is_run", signalled)
    work = Work(StudyFolder(read_study(file), tmp_path / "study"), silent)
    work.do()
    assert work.stopped == signal.SIGTERM and not work.folder.rows()


def test_failures_are_noted_and_others_go_on(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXT.replace("[mlp, pool, random]", "[mlp, pool]").replace("  seed: [0, 1]\n", "")
    file.write_text(
        text + "  optimizer.lr: [0.003, 1.0e+30]\n"  # the last one makes the loss infinite
    )
    folder = tmp_path / "study"
    words = ["study", str(file), "--folder", str(folder), "--out", str(tmp_path / "results.json")]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.err.count("failed: ") == 2 and "became" in printed.err
    results = json.loads((tmp_path / "results.json").read_text())
    assert [row["model.token_mixer"] for row in results["rows"]] == ["mlp", "pool"]
    assert [row["each"][0]["seed"] for row in results["rows"]] == [0, 0]
    assert results["settings"]["failed"] == 2
    assert all(row["step_seconds"] > 0 < row["images_per_second"] for row in results["rows"])
    # what failed is not tried again unless that is asked for
    assert main(words) == 1
    assert "of 4:" not in capsys.readouterr().out
    assert main([*words, "--again"]) == 1
    assert "2 failed runs to try again" in capsys.readouterr().out


def test_what_one_machine_cannot_do_is_left_for_others(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what nobody has thought of: it ends no other run, and is no result."""
    plain = train

    def broken(recipe, *arguments, **settings):
        if recipe.model.token_mixer == "pool":
            raise ZeroDivisionError("a bug of somebody's")
        return plain(recipe, *arguments, **settings)

    monkeypatch.setattr(runner, "train", broken)
    words = ["study", str(file), "--folder", str(tmp_path / "study")]
    assert main(words) == 1
    printed = capsys.readouterr()
    assert printed.err.count("ZeroDivisionError: a bug of somebody's") == 2
    assert "2 runs left. Go on with:" in printed.out
    monkeypatch.setattr(runner, "train", plain)
    assert main(words) == 0
    assert "6 of 6:" in capsys.readouterr().out


def test_what_another_process_works_on_is_waited_for(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SECONDS_BETWEEN_LOOKS", 0.2)
    folder = StudyFolder(read_study(file), tmp_path / "study")
    folder.begin()
    first = folder.configurations[0]
    folder.claim_of(first).mkdir(parents=True)
    lock = Lock(folder.claim_of(first))
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waiting for"):
            lock.release()  # that process died

    Work(folder, say).do()
    assert said[-1].startswith(f"6 of 6: {first.name}")
    assert f"waiting for {first.name}, taken by process {os.getpid()}" in said[-2]


def test_a_run_that_was_stopped_is_said_to_go_on_from_its_step(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    folder = StudyFolder(read_study(file), tmp_path / "study")
    folder.begin()
    one, other = folder.configurations[:2]
    train(one.recipe, folder.run_of(one), watch=StopAt(7, signal.SIGTERM))
    train(other.recipe, folder.run_of(other), watch=StopAt(7, signal.SIGTERM))
    shutil.rmtree(folder.run_of(other) / "checkpoints")
    (folder.run_of(other) / "checkpoints").mkdir()
    said: list[str] = []
    work = Work(folder, said.append)
    work.do()
    assert f"{one.name}: goes on from step 7" in said
    assert f"{other.name}: starts over: no step of it was saved" in said
    assert sum("goes on" in line or "starts over" in line for line in said) == 2


def test_another_study_does_not_mix_with_it(file: Path, tmp_path: Path) -> None:
    StudyFolder(read_study(file), tmp_path / "study").begin()
    file.write_text(TEXT.replace("duration: 20 steps", "duration: 30 steps"))
    with pytest.raises(UserError, match="duration is '20 steps' there and '30 steps' now"):
        StudyFolder(read_study(file), tmp_path / "study").begin()
    assert main(["study", str(file), "--folder", str(tmp_path / "study"), "--look"]) == 2


def test_trials_are_of_the_weights_that_they_began_with(file: Path, tmp_path: Path) -> None:
    listed = tuple(read_study(file).configurations())
    StudyFolder(Trials("x", listed, "a" * 64), tmp_path / "study").begin()
    assert StudyFolder(Trials("x", listed, "a" * 64), tmp_path / "study").is_begun()
    with pytest.raises(UserError, match=r"other weights.* is aaaaaaaaaaaa, now it is bbbbbbbbbbbb"):
        StudyFolder(Trials("x", listed, "b" * 64), tmp_path / "study").begin()
    with pytest.raises(UserError, match="it is 'x' there and 'y' now"):
        StudyFolder(Trials("y", listed, "b" * 64), tmp_path / "study").begin()


def test_a_part_of_some_trials_and_the_whole_share_a_folder(file: Path, tmp_path: Path) -> None:
    """In either order, and as long as each trial means the same."""
    listed = tuple(read_study(file).configurations())
    parts = [listed[:2], listed[3:], listed, listed[1:2]]
    for part in parts:
        StudyFolder(Trials("x", part), tmp_path / "study").begin()
    described = json.loads((tmp_path / "study" / "study.json").read_text())
    assert described["configurations"].keys() == {one.name for one in listed}
    file.write_text(TEXT.replace("duration: 20 steps", "duration: 30 steps"))
    other = tuple(read_study(file).configurations())[:1]
    with pytest.raises(UserError, match="duration is '20 steps' there and '30 steps' now"):
        StudyFolder(Trials("x", other), tmp_path / "study").begin()
    assert json.loads((tmp_path / "study" / "study.json").read_text()) == described


def test_trials_that_depend_on_results_are_of_one_study(file: Path, tmp_path: Path) -> None:
    every = tuple(read_study(file).configurations())
    StudyFolder(Trials("x", every[:1], possible=every), tmp_path / "study").begin()
    other = StudyFolder(Trials("x", every[2:3], possible=every), tmp_path / "study")
    assert other.is_begun() and other.configurations == [every[2]]


def test_settings_that_did_not_exist_yet_are_at_their_defaults(file: Path, tmp_path: Path) -> None:
    folder = StudyFolder(read_study(file), tmp_path / "study")
    folder.begin()
    path = folder.path / "study.json"
    described = json.loads(path.read_text())
    for one in described["configurations"].values():
        del one["recipe"]["data"]["share"]
    path.write_text(json.dumps(described))
    assert folder.is_begun()
    described["configurations"].popitem()
    path.write_text(json.dumps(described))
    with pytest.raises(UserError, match="holds another study"):
        folder.is_begun()


ARCHITECTURES = """
  architecture:
    mixer: {}
    vit: {peer: vit, model: {token_mixer: attention, token_groups: 2}}
    resnet: {peer: resnet, model: {width: 4}}
"""


def test_peers_are_trained_by_the_same_loop(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("timm")
    file.write_text(TEXT.replace("\n  model.token_mixer: [mlp, pool, random]\n", ARCHITECTURES))
    folder = StudyFolder(read_study(file), tmp_path / "study")
    work = Work(folder, silent)
    work.do()
    assert not work.given_up
    arms = averaged(folder.rows())
    assert [arm["architecture"] for arm in arms] == ["mixer", "vit", "resnet"]
    assert all(arm["runs"] == 2 and arm["parameters"] > 0 and arm["macs"] > 0 for arm in arms)
    assert ranked_by(arms) == "held_out_accuracy"


def test_a_stopped_peer_goes_on_to_the_same_bits(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the running means of its batch norms."""
    pytest.importorskip("timm")
    monkeypatch.setattr("mixerkit.training.logbook.SECONDS_BETWEEN_SIGNS", 0.0)
    file.write_text(TEXT.replace("\n  model.token_mixer: [mlp, pool, random]\n", ARCHITECTURES))
    one = next(one for one in read_study(file).configurations() if one.peer == "resnet")

    def peer() -> torch.nn.Module:
        torch.manual_seed(0)
        return peer_of(one.peer, one.recipe.model)

    train(one.recipe, tmp_path / "straight", model=peer())
    stopped = train(one.recipe, tmp_path / "run", model=peer(), watch=StopAt(7, signal.SIGTERM))
    assert stopped.interrupted
    train(one.recipe, tmp_path / "run", resume=True, model=peer())
    left, right = final_tensors(tmp_path / "straight"), final_tensors(tmp_path / "run")
    assert any("running_mean" in name for name in left)
    assert all(torch.equal(left[name], right[name]) for name in left | right)


@pytest.mark.parametrize("name", PEERS)
def test_peers_take_the_sizes_of_a_recipe(name: str) -> None:
    pytest.importorskip("timm")
    attention = {"token_mixer": "attention", "token_groups": 4} if name == "vit" else {}
    config = variant("N/4", in_channels=1, num_classes=10, **attention)
    parameters, macs = cost_of(name, config)
    assert parameters == sum(p.numel() for p in peer_of(name, config).parameters())
    ours = cost(config)
    if name == "mixer":
        assert (parameters, macs) == (ours.parameters, ours.macs)
    if name == "vit":  # one token more, and a place for it: 50 in the place of 49
        body = sum(part.macs for part in ours.parts if part.name.startswith("block"))
        squares = 4 * 2 * 49**2 * 64
        more = (body - squares) * 50 / 49 + squares * (50 / 49) ** 2 - body
        assert macs == pytest.approx(ours.macs + more)
        assert parameters == ours.parameters + 2 * 64


@pytest.mark.parametrize(
    ("name", "changes"),
    [("vit", {"drop_path": 0.1}), ("resnet", {"norm": False}), ("vit", {"tiles": 7})],
)
def test_settings_that_a_peer_would_ignore_are_refused(name: str, changes: dict) -> None:
    with pytest.raises(UserError, match=rf"The peer {name} has no counterpart of"):
        peer_of(name, variant("N/4", **changes))


def test_peers_have_one_list() -> None:
    assert tuple(PEERS) == grid.PEERS


def test_without_a_name_all_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study"]) == 0
    out = capsys.readouterr().out
    for name in STUDIES:
        assert re.search(rf"^  {name} +[0-9]+ +[A-Z]", out, re.MULTILINE), name


def test_a_plan_is_listed_with_its_costs(
    file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "small: 6 runs (nothing was written)" in out and "token_mixer=pool,seed=1" in out
    assert main(["study", "token-mixers", "--dry-run", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 14 * 3
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--dry-run"], "Which study? It comes first"),
        (["token-mixer"], "Did you mean 'token-mixers'?"),
        (["nowhere.yaml"], "Cannot read nowhere.yaml"),
        (["token-mixers", "--look"], "holds no study yet"),
        (["token-mixers", "--look", "--dry-run"], "exclude one another"),
    ],
)
def test_bad_input_is_one_message(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(["study", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
