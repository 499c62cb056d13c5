"""Several processes that train one model: the same images, the same losses, one run folder."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mixerkit.checkpoint.load import load
from mixerkit.checkpoint.rows import read_rows
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.verification import verify_run
from mixerkit.errors import UserError
from mixerkit.spec.recipe import Evaluate, NotFinite, Optimizer, Recipe, Save
from mixerkit.spec.strict import write_yaml
from tests.training.runs import RECIPE
from tests.training.seen import seen

STEPS = 30
# Dropout draws a mask for the batch as it lies in one process: everything else is independent of
# how many there are.
BASE = replace(
    RECIPE,
    model=replace(RECIPE.model, dropout=0.0),
    evaluate=Evaluate(every="10 steps", batch_size=32),
    save=Save(every="10 steps"),
    duration=f"{STEPS} steps",
    batch_size=64,
    compile="off",
    threads=1,
)
OPTIMIZERS = {
    "muon": BASE.optimizer,
    "adamw": Optimizer(name="adamw", lr=0.003, clip=1.0),
    "sgd": Optimizer(name="sgd", lr=0.05, sam=0.05),
}
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
CASES: dict[str, Recipe] = {
    f"{name}-{strategy}-{precision}": replace(
        BASE,
        optimizer=optimizer,
        strategy=strategy,
        precision=precision,
        compile="auto" if precision == "float32" else "off",  # which measures first
    )
    for name, optimizer in OPTIMIZERS.items()
    for strategy in ("ddp", "fsdp")
    for precision in ("float64", "float32")
    if precision == "float64" or name == "muon"  # the first shows errors of the arithmetic
}


def start_together(count: int, folder: Path, fails: str = "") -> list[tuple[int, str]]:
    """Have `count` processes train every recipe in `folder`, as torchrun starts them; the second
    one `fails` in some way. The exit code of each, and what it complained of."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.training.member", str(folder)],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(count),
                "LOCAL_WORLD_SIZE": str(count),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
                "MEMBER_FAILS": fails,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(count)
    ]
    try:
        complaints = [member.communicate(timeout=120)[1] for member in members]
    finally:
        for member in members:
            member.kill()
    ends = [(member.returncode, text) for member, text in zip(members, complaints, strict=True)]
    assert fails or all(code == 0 for code, _ in ends), ends
    return ends


def put(folder: Path, recipes: dict[str, Recipe]) -> None:
    folder.mkdir(exist_ok=True)
    for name, recipe in recipes.items():
        (folder / f"{name}.yaml").write_text(write_yaml(recipe))


BY_FOUR = ("muon-ddp-float64", "muon-fsdp-float64", "muon-fsdp-float32", "sgd-fsdp-float64")
SHARED = [*((2, name) for name in CASES), *((4, name) for name in BY_FOUR)]
"""(processes, case): all cases by two, and some by four."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Cases trained by one, two and four processes; FSDP by one is the plain model."""
    folders = {}
    for count in (1, 2, 4):
        folders[count] = tmp_path_factory.mktemp(f"by-{count}")
        put(folders[count], {name: CASES[name] for name in (CASES if count < 4 else BY_FOUR)})
        start_together(count, folders[count])
    return folders


def losses(run: Path) -> list[tuple[float, float]]:
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["split"] == "train"]
    return [(row["loss"], row["gradient_norm"]) for row in rows]


@pytest.mark.parametrize(("count", "name"), SHARED)
def test_losses_and_norms_are_those_of_one_process(
    runs: dict[int, Path], count: int, name: str
) -> None:
    alone, shared = losses(runs[1] / name), losses(runs[count] / name)
    assert len(alone) == len(shared) == STEPS
    assert alone[-1][0] < alone[0][0]
    within = TOLERANCE[CASES[name].precision]
    for one, other in zip(alone, shared, strict=True):
        assert other == pytest.approx(one, rel=within, abs=within)


@pytest.mark.parametrize(("count", "name"), SHARED)
def test_the_same_images_are_seen(runs: dict[int, Path], count: int, name: str) -> None:
    found = seen(runs[count], f"{name}-")
    assert found == seen(runs[1], f"{name}-")
    assert len({row[:2] for row in found}) == len(found) == STEPS * BASE.batch_size


def figures(run: Path) -> list[dict]:
    rows = read_rows(run / "metrics.jsonl")
    return [row for row in rows if row["split"] != "train"]


@pytest.mark.parametrize(("count", "name"), [each for each in SHARED if "float64" in each[1]])
def test_every_image_is_measured_once(runs: dict[int, Path], count: int, name: str) -> None:
    alone, shared = figures(runs[1] / name), figures(runs[count] / name)
    assert [row["split"] for row in alone] == [*["validation"] * 3, "test"]
    for one, other in zip(alone, shared, strict=True):
        assert other.pop("split") == one.pop("split")
        assert other == pytest.approx(one, rel=1e-6)
    told = [json.loads((runs[n] / name / "evaluation.json").read_text()) for n in (1, count)]
    assert told[0]["confusion"] == told[1]["confusion"]
    assert [row["index"] for row in told[0]["mistakes"]] == [
        row["index"] for row in told[1]["mistakes"]
    ]


@pytest.fixture(scope="module")
def cut(runs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of two processes that were stopped at step 20, finished by one and by four."""
    folders = {}
    for count in (1, 4):
        folders[count] = tmp_path_factory.mktemp(f"on-by-{count}")
        for name in ("muon-ddp-float64", "muon-fsdp-float64", "adamw-fsdp-float64"):
            put(folders[count], {name: CASES[name]})
            run = folders[count] / name
            shutil.copytree(runs[2] / name, run)
            for last in ("checkpoints/step-00000030", "model", "figures"):
                shutil.rmtree(run / last, ignore_errors=True)
            (run / "evaluation.json").unlink()
        start_together(count, folders[count])
    return folders


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("name", ["muon-ddp-float64", "muon-fsdp-float64", "adamw-fsdp-float64"])
def test_another_number_of_processes_goes_on(
    runs: dict[int, Path], cut: dict[int, Path], count: int, name: str
) -> None:
    straight, resumed = losses(runs[1] / name), losses(cut[count] / name)
    assert len(resumed) == STEPS
    for one, other in zip(straight, resumed, strict=True):
        assert other == pytest.approx(one, rel=1e-10, abs=1e-10)
    steps = {row[0] for row in seen(cut[count], f"{name}-")}
    assert steps - {0} == set(range(20, STEPS))  # step 0 is only tried
    assert figures(cut[count] / name)[-1]["top1"] == figures(runs[1] / name)[-1]["top1"]
    shards = sorted(path.name for path in (cut[count] / name).glob("checkpoints/*30/shard-*"))
    assert len(shards) == (count if "fsdp" in name and count > 1 else 0)


def test_a_sharded_checkpoint_is_a_model_and_is_verified(runs: dict[int, Path]) -> None:
    run = runs[4] / "muon-fsdp-float32"
    one = load(run)
    best = load(f"{run}@newest")
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, best.state_dict()[name]), name
    assert verify_run(run).sound
    shard = next((run / "checkpoints" / "step-00000030").glob("shard-00002-*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    try:
        with pytest.raises(UserError, match="shard-00002"):
            load(f"{run}@30")
    finally:
        content[len(content) // 2] ^= 1
        shard.write_bytes(content)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize("fails", ["reading", "measuring", "nan", "signal"])
def test_what_fails_in_one_is_answered_by_all(tmp_path: Path, strategy: str, fails: str) -> None:
    """Nothing hangs, and what was reached is saved."""
    recipe = replace(
        CASES[f"sgd-{strategy}-float64"],
        not_finite=NotFinite("skip"),
        evaluate=Evaluate(every="25 steps", batch_size=32, test=False),
    )
    put(tmp_path, {"run": recipe})
    (first, said), (second, also) = start_together(2, tmp_path, fails)
    with RunFolder.open(tmp_path / "run") as run:
        saved, rows, state = run.checkpoints.steps(), run.metrics(), run.state()
    if fails == "nan":
        assert (first, second, state) == (0, 0, "finished")
        assert [row["step"] for row in rows if row["split"] == "left out"] == [12]
    elif fails == "signal":
        assert (first, second, state) == (0, 0, "stopped")
        assert saved[-1] == 11
    else:
        assert first and second and state == "stopped"
        assert saved[-1] == (11 if fails == "reading" else 25)
        assert "Step" in said and "is saved" in also
