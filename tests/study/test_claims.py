"""The claims: each has an experiment or says what it would take, and each rule can fail."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixerkit.cli.main import main
from mixerkit.results import write_results
from mixerkit.spec.paper import CLAIMS, VARIANTS
from mixerkit.study import claims
from mixerkit.study.claims import EXPERIMENTS, NOT_TESTABLE, REPRODUCED, published, rows
from mixerkit.study.claims_page import page

ROOT = Path(__file__).parents[2]
NAMES = [claim.name for claim in CLAIMS]


def arm(accuracy: float, half: float = 0.004, **levels: str) -> dict[str, Any]:
    return {
        "levels": levels,
        "held_out_accuracy": accuracy,
        "held_out_accuracy_half_width": half,
    }


def throughput(
    ratio: float = 3.0, mixer: float = 1.0, vit: float = 1.4, tiles: float = 1.0, extra: int = 0
) -> dict[str, Any]:
    """A file in which all models are so much faster, and cost grows so."""
    pairs = (
        ("Mixer-H/14 at 448 px, dense", "ViT-H/14 at 518 px", "dense"),
        ("Mixer-H/14 at 448 px, shared tiles", "ViT-H/14 at 518 px", "shared"),
        ("Mixer-H/14 at 448 px, dense", "BiT-R152x4 at 480 px", "dense"),
        ("Mixer-B/16 at 224 px", "ViT-B/16 at 224 px", None),
        ("Mixer-L/16 at 224 px", "ViT-L/16 at 224 px", None),
    )
    found = [
        {"part": "ratios", "faster": faster, "than": than, "form": form, "mac_ratio": 1.5,
         "ratio": ratio}
        for faster, than, form in pairs
    ]  # fmt: skip
    exponents = {"Mixer, token width kept": mixer, "Mixer, shared tiles": tiles, "ViT": vit}
    found += [
        {"part": "exponents", "family": family, "seconds": value, "macs": value,
         "seconds_of_largest_two": value}
        for family, value in exponents.items()
    ]  # fmt: skip
    found += [
        {"part": "models", "name": f"Mixer-{row.label}", "image_size": 224,
         "parameters": row.parameters + extra}
        for row in VARIANTS
    ]  # fmt: skip
    return {"name": "throughput", "settings": {}, "rows": found}


def shares(mixer: float, vit: float = 0.8) -> dict[str, Any]:
    ends = {"mlp": mixer, "ViT (timm)": vit, "ResNet (timm)": 0.8}
    found = [arm(0.7, model=name, share="3 %") for name in ends]
    found += [arm(end, model=name, share="100 %") for name, end in ends.items()]
    return {"name": "few-images", "rows": found}


def orders(
    mixer: tuple[float, float], resnet: tuple[float, float], gap: float = 1e-7
) -> dict[str, Any]:
    """Accuracies with patches and with pixels in another order; 0.9 as they are."""
    found = [
        arm(accuracy, model=model, order=order)
        for model, ends in (("mlp", mixer), ("ResNet (timm)", resnet))
        for order, accuracy in zip(("as it is", "patches", "pixels"), (0.9, *ends), strict=True)
    ]
    return {"name": "p", "rows": found, "settings": {"identity": {"difference_float32": gap}}}


def mixers(untied: float, grouped: float) -> dict[str, Any]:
    ends = {"mlp": 0.88, "untied": untied, "grouped": grouped}
    return {"name": "m", "rows": [arm(end, token_mixer=name) for name, end in ends.items()]}


def regularised(known: float, plain: float) -> dict[str, Any]:
    some = {"images": 1650, "training_accuracy": known}
    found = [
        {"regularisation": "none", "share": 0.03, "held_out_accuracy": plain} | some,
        {"regularisation": "decay, mixup, depth", "share": 0.03, "held_out_accuracy": 0.85},
        {"regularisation": "none", "share": 1.0, "held_out_accuracy": 0.9} | some,
    ]
    return {"name": "r", "rows": found}


def weights(**first: float) -> dict[str, Any]:
    """Figures of the first block, and of a last one without structure."""
    plain = {"local": 0.3, "local_shuffled": 0.0, "wide": 0.5, "partners": 0.6,
             "partners_shuffled": 0.1, "smoothness": 0.6}  # fmt: skip
    found = [{"part": "filters"}, {"part": "block 1"} | plain | first]
    return {"rows": [*found, {"part": "block 2"} | plain | {"smoothness": 0.2}]}


def frontier(correlation: float) -> dict[str, Any]:
    return {"settings": {"rank_correlation_training_macs": correlation}, "rows": [{}] * 20}


Case = tuple[Callable[[], dict[str, Any]], list[Callable[[], dict[str, Any]]]]
CASES: dict[str, Case] = {
    "speed-vit": (lambda: throughput(2.1), [lambda: throughput(1.9)]),
    "speed-bit": (lambda: throughput(1.3), [lambda: throughput(1.1)]),
    "speed-b16": (lambda: throughput(1.4), [lambda: throughput(1.2)]),
    "speed-l16": (lambda: throughput(1.4), [lambda: throughput(1.1)]),
    "sizes": (throughput, [lambda: throughput(extra=1)]),
    "linear-cost": (
        throughput,
        [lambda: throughput(mixer=1.2), lambda: throughput(mixer=1.05, vit=1.0)],
    ),
    "tiles": (throughput, [lambda: throughput(tiles=1.05)]),
    "compute": (lambda: frontier(0.8), [lambda: frontier(0.6), lambda: frontier(-0.9)]),
    "more-data": (lambda: shares(0.85), [lambda: shares(0.81), lambda: shares(0.85, vit=0.9)]),
    "overfits": (
        lambda: regularised(1.0, 0.83),
        [lambda: regularised(0.98, 0.83), lambda: regularised(1.0, 0.845)],
    ),
    "patch-order": (
        lambda: orders((0.897, 0.8), (0.85, 0.8)),
        [
            lambda: orders((0.88, 0.8), (0.85, 0.8)),
            lambda: orders((0.897, 0.8), (0.893, 0.8)),
            lambda: orders((0.897, 0.8), (0.85, 0.8), gap=1e-5),
        ],
    ),
    "pixels-order": (
        lambda: orders((0.9, 0.8), (0.9, 0.6)),
        [lambda: orders((0.9, 0.8), (0.9, 0.797))],
    ),
    "pixels-mixer": (
        lambda: orders((0.9, 0.5), (0.9, 0.2)),
        [lambda: orders((0.9, 0.8), (0.9, 0.2)), lambda: orders((0.9, 0.3), (0.9, 0.2))],
    ),
    "pixels-resnet": (
        lambda: orders((0.9, 0.5), (0.9, 0.2)),
        [lambda: orders((0.9, 0.8), (0.9, 0.5))],
    ),
    "local-global": (
        weights,
        [
            lambda: weights(local=0.05),
            lambda: weights(wide=0.0),
            lambda: weights(local_shuffled=0.4),
        ],
    ),
    "pairs": (weights, [lambda: weights(partners=0.15)]),
    "deeper": (weights, [lambda: weights(smoothness=0.3)]),
    "untied": (lambda: mixers(0.885, 0.9), [lambda: mixers(0.89, 0.8)]),
    "grouped": (lambda: mixers(0.9, 0.87), [lambda: mixers(0.8, 0.9)]),
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_each_rule_can_hold_and_can_fail(name: str) -> None:
    good, bad = CASES[name]
    find = EXPERIMENTS[name].find
    assert find(good()).holds
    for each in bad:
        assert not find(each()).holds, find(each()).measured


def test_every_claim_has_an_experiment_or_says_what_it_takes() -> None:
    assert set(EXPERIMENTS) | {claim.name for claim in CLAIMS if claim.needs} == set(NAMES)
    assert not [claim.name for claim in CLAIMS if claim.needs and claim.name in EXPERIMENTS]


def test_published_values_name_both_wordings() -> None:
    by_name = dict(zip(NAMES, map(published, CLAIMS), strict=True))
    assert by_name["speed-vit"] == "2.5× (by its tables 2.67)"
    assert by_name["under-vit"] == "0.5 points (by its tables 0.61)"
    assert by_name["from-scratch"] == "76.44 % top-1" and by_name["compute"] == "trend"


def test_rows_say_what_was_measured_or_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = orders((0.897, 0.5), (0.85, 0.2))
    file = tmp_path / "permutation.json"
    write_results(file, name="permutation", command="x", settings=content["settings"],
                  rows=content["rows"])  # fmt: skip
    assert main(["study", "claims", "--results", str(tmp_path), "--json"]) == 0
    found = {row["claim"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(found) == NAMES
    assert {"claim", "published", "measured", "verdict", "evidence"} <= set(found["sizes"])
    pixels = found["pixels-mixer"]
    assert pixels["verdict"] == REPRODUCED and pixels["evidence"] == "results/permutation.json"
    assert pixels["measured"] == "44 % drop, from 90.0 ± 0.4 % to 50.0 ± 0.4 %"
    assert found["sizes"]["verdict"] == "not measured"
    assert found["sizes"]["evidence"] == "mixer bench throughput"
    assert found["huge-jft"]["verdict"] == NOT_TESTABLE and "JFT" in found["huge-jft"]["evidence"]
    out = tmp_path / "claims.md"
    assert main(["study", "claims", "--results", str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"written: {out}" in printed and f"{len(NAMES)} claims" in printed
    assert out.read_text() == page(rows(tmp_path))


def test_a_missing_folder_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "claims", "--results", str(tmp_path / "no")]) == 2
    assert "There is no folder" in capsys.readouterr().err


def test_the_page_is_what_results_say() -> None:
    """docs/claims.md, by `mixer study claims --out docs/claims.md`."""
    assert (ROOT / "docs" / "claims.md").read_text() == page(rows(ROOT / "results"))


def test_commands_in_the_table_exist() -> None:
    from mixerkit.cli.bench import STUDIES as BENCHES
    from mixerkit.study.named import STUDIES

    for experiment in claims.EXPERIMENTS.values():
        _, kind, name, *_ = experiment.command.split()
        assert name in {"bench": BENCHES, "study": STUDIES, "visualize": ["zoo:fashion-best"]}[kind]
