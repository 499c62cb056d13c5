"""`mixer train` under torchrun, as people type it."""

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from mixerkit.checkpoint.opening import is_run, state_of
from mixerkit.spec.strict import write_yaml
from tests.faults.child import environment
from tests.faults.ranks import torchrun
from tests.faults.sample import MUON


def start(folder: Path, *words: str, options: tuple[str, ...] = ()) -> subprocess.Popen:
    """`torchrun --nproc-per-node 2 -m mixerkit WORDS` in `folder`."""
    return subprocess.Popen(
        torchrun(2, "mixerkit", list(words), *options),
        cwd=folder,
        env=environment() | {"GLOO_SOCKET_IFNAME": "lo"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "options", "said"),
    [
        (["train", "nosuch"], (), "Unknown recipe 'nosuch'"),
        (["train", "recipe.yaml", "--batch-size", "61"], (), "batch_size 61 must be a multiple"),
        (["train", "recipe.yaml"], ("--max-restarts=1",), "give one, --out FOLDER"),
    ],
)
def test_a_mistake_is_said_once(tmp_path, words, options, said):
    (tmp_path / "recipe.yaml").write_text(write_yaml(MUON))
    process = start(tmp_path, *words, options=options)
    _, complained = process.communicate(timeout=120)
    assert process.returncode != 0
    starts = 2 if options else 1
    assert complained.count("mixer: error:") == complained.count(said) == starts, complained
    assert complained.count("Traceback") == 1  # torchrun's own, at its end
    assert "exitcode  : 2" in complained
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.yaml"]


@pytest.mark.slow
def test_a_signal_stops_all_saved_and_json_is_printed_once(tmp_path):
    (tmp_path / "recipe.yaml").write_text(write_yaml(MUON))
    long = ["train", "recipe.yaml", "--duration", "5000 steps", "--out", "run"]
    process = start(tmp_path, *long)
    end = time.monotonic() + 120
    while not (is_run(tmp_path / "run") and list((tmp_path / "run").glob("checkpoints/*"))):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, complained = process.communicate(timeout=120)
    assert out.count("Stopping and saving") == out.count("--resume run") == 1, out + complained
    assert state_of(tmp_path / "run") == "stopped"
    recipe = (tmp_path / "run" / "recipe.yaml").read_text()
    assert "5000 steps" in recipe

    process = start(tmp_path, "train", "recipe.yaml", "--json", "--out", "whole")
    out, complained = process.communicate(timeout=120)
    assert process.returncode == 0, complained
    told = json.loads(out)
    assert told["steps"] == 32 and told["test"]["samples"] == 200
    assert Path(tmp_path / told["report"]).is_file()
