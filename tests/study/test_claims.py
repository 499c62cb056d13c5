"""The claims: each has an experiment or says what it would take, and each rule can fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixerkit.benchmark import patches
from mixerkit.cli.bench import STUDIES as BENCHES
from mixerkit.cli.main import main
from mixerkit.results import write_results
from mixerkit.spec.paper import CLAIMS, VARIANTS
from mixerkit.study import regularisation
from mixerkit.study.claims import NOT_TESTABLE, published, rows
from mixerkit.study.claims_page import page
from mixerkit.study.experiments import (
    EXPERIMENTS,
    MATCHED,
    NOT_REPRODUCED,
    PERMUTATION,
    REPRODUCED,
    UNDECIDED,
)
from mixerkit.study.grid import Study
from mixerkit.study.named import STUDIES, few_images, permutation, token_mixers
from mixerkit.study.throughput import GROUPS

ROOT = Path(__file__).parents[2]
NAMES = [claim.name for claim in CLAIMS]


def study_of(study: Study, accuracy: Callable[[dict[str, str], int], float]) -> dict[str, Any]:
    """A file of that study whose arms have these accuracies (levels, seed → %)."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in study.configurations():
        row = found.setdefault(tuple(one.arm.values()), {"levels": one.arm, "each": []})
        value = accuracy(one.arm, one.recipe.seed) / 100
        row["each"].append({"seed": one.recipe.seed, "held_out_accuracy": value})
    return {"name": study.name, "rows": list(found.values()), "settings": {}}


def wobble(seed: int, width: float) -> float:
    """Its interval over three seeds is 2.48 times `width` wide to either side."""
    return width * (seed - 1)


def throughput(
    ratio: float = 3.0, mixer: float = 1.0, vit: float = 1.4, extra: int = 0
) -> dict[str, Any]:
    """A file in which all models are so much faster, and cost grows so."""
    found: list[dict[str, Any]] = [
        {"part": "ratios", "claim": pair.claim or None, "form": pair.faster.form,
         "mac_ratio": 1.5, "ratio": ratio}
        for group in GROUPS for pair in group.pairs
    ]  # fmt: skip
    found += [
        {"part": "exponents", "family": family, "seconds": vit if family == "ViT" else mixer,
         "seconds_of_largest_two": 1.0}
        for family in patches.contenders(512, 256)
    ]  # fmt: skip
    found += [
        {"part": "models", "name": f"Mixer-{row.label}", "parameters": row.parameters + extra}
        for row in VARIANTS
        if row.label != "S/8"
    ]
    return {"name": "throughput", "settings": {}, "rows": found}


def shares(mixer: float, vit: float = 80.0, width: float = 0.1) -> dict[str, Any]:
    """Where they end that all begin at 70 %."""
    ends = {"mlp": mixer, "ViT (timm)": vit, "ResNet (timm)": 80.0}

    def accuracy(arm: dict[str, str], seed: int) -> float:
        if arm["share"] == "100 %":
            return ends[arm["model"]] + wobble(seed, width)
        return 70.0

    return study_of(few_images(), accuracy)


def orders(
    mixer: tuple[float, float], resnet: tuple[float, float], width: float = 0.1, gap: float = 1e-15
) -> dict[str, Any]:
    """Accuracies with patches and with pixels in another order; 90 % as they are."""
    ends = {"mlp": mixer, "ViT (timm)": mixer, "ResNet (timm)": resnet}

    def accuracy(arm: dict[str, str], seed: int) -> float:
        by_order = {"patches": ends[arm["model"]][0], "pixels": ends[arm["model"]][1]}
        if arm["order"] in by_order:
            return by_order[arm["order"]] + wobble(seed, width)
        return 90.0

    found = study_of(permutation(), accuracy)
    found["settings"] = {"identity": {"difference_float64": gap, "difference_float32": 1e-7}}
    return found


def mixers(untied: float, grouped: float, width: float = 0.1) -> dict[str, Any]:
    ends = {"untied": untied, "grouped": grouped}

    def accuracy(arm: dict[str, str], seed: int) -> float:
        name = arm["model.token_mixer"]
        return ends[name] + wobble(seed, width) if name in ends else 88.0

    return study_of(token_mixers(), accuracy)


def regularised(growth: float, plain: float) -> dict[str, Any]:
    some = {"images": 1650, "held_out_nll": growth, "course": [[1, 0.8, 1.0], [2, 0.9, growth]]}
    found = [
        {"regularisation": arm, "share": share, "held_out_accuracy": 0.85 if arm else plain} | some
        for share in regularisation.SHARES
        for arm in regularisation.ARMS
    ]
    for row in found:
        if row["regularisation"] == regularisation.PLAIN:
            row["held_out_accuracy"] = plain
    return {"name": "r", "rows": found}


def frontier(correlation: float) -> dict[str, Any]:
    return {"settings": {"rank_correlation_training_macs": correlation}, "rows": [{}] * 20}


def weights(last: float = 0.2, **first: float) -> dict[str, Any]:
    """Figures of the first block, and of a last one with less structure."""
    plain = {"local": 0.3, "local_shuffled": 0.0, "wide": 0.5, "partners": 0.6,
             "partners_shuffled": 0.1, "smoothness": 0.6, "smoothness_shuffled": 0.0}  # fmt: skip
    found = [{"part": "filters"}, {"part": "block 1"} | plain | first]
    return {"rows": [*found, {"part": "block 2"} | plain | {"smoothness": last}]}


Case = dict[str, list[Callable[[], dict[str, Any]]]]
CASES: dict[str, Case] = {
    "speed-vit": {REPRODUCED: [lambda: throughput(2.1)], NOT_REPRODUCED: [lambda: throughput(1.9)]},
    "speed-bit": {REPRODUCED: [lambda: throughput(1.3)], NOT_REPRODUCED: [lambda: throughput(1.1)]},
    "speed-b16": {REPRODUCED: [lambda: throughput(1.4)], NOT_REPRODUCED: [lambda: throughput(1.2)]},
    "speed-l16": {REPRODUCED: [lambda: throughput(1.4)], NOT_REPRODUCED: [lambda: throughput(1.1)]},
    "sizes": {REPRODUCED: [throughput], NOT_REPRODUCED: [lambda: throughput(extra=1_000_000)]},
    "linear-cost": {
        REPRODUCED: [throughput],
        NOT_REPRODUCED: [lambda: throughput(mixer=1.2), lambda: throughput(mixer=1.05, vit=1.0)],
    },
    "compute": {
        REPRODUCED: [lambda: frontier(0.8)],
        NOT_REPRODUCED: [lambda: frontier(0.6), lambda: frontier(-0.9)],
    },
    "more-data": {
        REPRODUCED: [lambda: shares(85)],
        NOT_REPRODUCED: [lambda: shares(75), lambda: shares(85, vit=90)],
        UNDECIDED: [lambda: shares(80.2), lambda: shares(85, width=2.0)],
    },
    "overfits": {
        REPRODUCED: [lambda: regularised(1.2, 0.83)],
        NOT_REPRODUCED: [lambda: regularised(1.05, 0.83), lambda: regularised(1.2, 0.845)],
    },
    "patch-order": {
        REPRODUCED: [lambda: orders((89.7, 80), (85, 80))],
        NOT_REPRODUCED: [
            lambda: orders((88, 80), (85, 80)),
            lambda: orders((89.7, 80), (85, 80), gap=1e-5),
            lambda: orders((89.2, 80), (89.9, 80), width=0.01),
        ],
        # what noise says nothing about
        UNDECIDED: [
            lambda: orders((89.7, 80), (85, 80), width=3),
            lambda: orders((90, 1), (90, 1)),
        ],
    },
    "pixels-order": {
        REPRODUCED: [lambda: orders((90, 80), (90, 60))],
        NOT_REPRODUCED: [lambda: orders((90, 60), (90, 80))],
        UNDECIDED: [lambda: orders((90, 80), (90, 79.7)), lambda: orders((90, 80), (90, 60), 9)],
    },
    "pixels-mixer": {
        REPRODUCED: [lambda: orders((90, 50), (90, 20))],
        NOT_REPRODUCED: [lambda: orders((90, 80), (90, 20)), lambda: orders((90, 30), (90, 20))],
    },
    "pixels-resnet": {
        REPRODUCED: [lambda: orders((90, 50), (90, 20))],
        NOT_REPRODUCED: [lambda: orders((90, 80), (90, 50))],
    },
    "local-global": {
        REPRODUCED: [weights],
        NOT_REPRODUCED: [
            lambda: weights(local=0.05),
            lambda: weights(wide=0.0),
            lambda: weights(local_shuffled=0.4),
        ],
    },
    "pairs": {REPRODUCED: [weights], NOT_REPRODUCED: [lambda: weights(partners=0.15)]},
    "deeper": {
        REPRODUCED: [weights],
        NOT_REPRODUCED: [lambda: weights(last=0.5), lambda: weights(smoothness=0.3)],
        UNDECIDED: [lambda: weights(last=-0.05, smoothness=-0.02)],
    },
    "untied": {
        REPRODUCED: [lambda: mixers(88.5, 95)],
        NOT_REPRODUCED: [lambda: mixers(90, 80)],
        UNDECIDED: [lambda: mixers(93, 80, width=6)],
    },
    "grouped": {
        REPRODUCED: [lambda: mixers(95, 87)],
        NOT_REPRODUCED: [lambda: mixers(80, 90)],
        UNDECIDED: [lambda: mixers(80, 88, width=1)],
    },
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_rule_can_hold_and_can_fail(name: str) -> None:
    """On files with the arms, families and pairs that the experiments themselves have."""
    find = EXPERIMENTS[name].find
    assert {REPRODUCED, NOT_REPRODUCED} <= set(CASES[name])
    for verdict, files in CASES[name].items():
        for file in files:
            found = find(file())
            assert found.verdict == verdict, found.measured


def test_every_claim_has_an_experiment_or_says_what_it_takes() -> None:
    assert set(EXPERIMENTS) | {claim.name for claim in CLAIMS if claim.needs} == set(NAMES)
    assert not [claim.name for claim in CLAIMS if claim.needs and claim.name in EXPERIMENTS]


def test_published_values_name_both_wordings() -> None:
    by_name = dict(zip(NAMES, map(published, CLAIMS), strict=True))
    assert by_name["speed-vit"] == "2.5× (by its tables 2.67)"
    assert by_name["under-vit"] == "0.5 points (by its tables 0.61)"
    assert by_name["from-scratch"] == "76.44 % top-1" and by_name["compute"] == "trend"


def written(folder: Path, content: dict[str, Any], file: str, command: str) -> None:
    write_results(
        folder / file, name="x", command=command, settings=content["settings"],
        rows=content["rows"],
    )  # fmt: skip


def test_rows_say_what_was_measured_or_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = EXPERIMENTS["pixels-mixer"].command
    written(tmp_path, orders((89.7, 50), (85, 20)), PERMUTATION, command)
    assert main(["study", "claims", "--results", str(tmp_path), "--json"]) == 0
    found = {row["claim"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(found) == NAMES
    assert {"claim", "published", "measured", "verdict", "evidence"} <= set(found["sizes"])
    pixels = found["pixels-mixer"]
    assert pixels["verdict"] == REPRODUCED
    assert pixels["evidence"] == str(tmp_path / "permutation.json")
    assert pixels["measured"] == "44 % drop, from 90.0 to 50.0 %"
    assert found["sizes"]["verdict"] == "not measured"
    assert found["sizes"]["evidence"] == "mixer bench throughput"
    assert found["huge-jft"]["verdict"] == NOT_TESTABLE and "JFT" in found["huge-jft"]["evidence"]
    out = tmp_path / "claims.md"
    assert main(["study", "--json", "claims", "--results", str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert f"written: {out}" in printed.err and len(json.loads(printed.out)) == len(NAMES)
    assert out.read_text() == page(rows(tmp_path))
    assert main(["study", "claims", "--results", str(tmp_path)]) == 0
    assert f"{len(NAMES)} claims" in capsys.readouterr().out


def test_files_of_another_command_and_of_failed_runs_do_not_count(tmp_path: Path) -> None:
    content = mixers(88, 88)
    written(tmp_path, content, MATCHED, "mixer study mine.yaml")
    (row,) = [one for one in rows(tmp_path) if one.claim == "untied"]
    assert row.verdict == "not measured" and "another command" in row.measured
    content["settings"] = {"failed": 2}
    written(tmp_path, content, MATCHED, EXPERIMENTS["untied"].command)
    (row,) = [one for one in rows(tmp_path) if one.claim == "untied"]
    assert row.verdict == "not measured" and "2 runs failed" in row.measured


@pytest.mark.parametrize("name", ["untied", "sizes", "speed-vit", "compute", "more-data", "pairs"])
def test_a_file_that_lacks_the_figures_is_one_error(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = EXPERIMENTS[name]
    lone = {"part": "none", "levels": {"model": "mlp", "share": "3 %"}, "each": []}
    written(tmp_path, {"settings": {}, "rows": [lone]}, one.file, one.command)
    assert main(["study", "claims", "--results", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "lacks what the claim" in message and one.command in message


def test_a_missing_folder_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "claims", "--results", str(tmp_path / "no")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_the_page_is_what_results_say() -> None:
    """docs/claims.md, by `mixer study claims --out docs/claims.md`."""
    assert (ROOT / "docs" / "claims.md").read_text() == page(rows(ROOT / "results"))


def test_commands_in_the_table_exist() -> None:
    known = {"bench": set(BENCHES), "study": set(STUDIES), "visualize": {"zoo:fashion-best"}}
    for experiment in EXPERIMENTS.values():
        _, kind, name, *_ = experiment.command.split()
        assert name in known[kind]
