"""The bench of architectures: its groups, and what a short one writes."""

import pytest

from mixerkit.benchmark.architectures import priced
from mixerkit.benchmark.peers import timm_models
from mixerkit.results import read_results
from mixerkit.spec.paper import CLAIMS
from mixerkit.study import throughput
from mixerkit.study.throughput import ANCHOR, GROUPS, ratio_row, sentence
from mixerkit.timer import Comparison

PARTS = ("models", "ratios", "patches", "exponents")


def test_groups_name_models_that_timm_has_and_pairs_that_they_time():
    claims = {claim.name for claim in CLAIMS}
    for group in GROUPS:
        titles = [one.title for one in group.everyone]
        assert len(set(titles)) == len(titles) and titles[0] == ANCHOR.title
        for one in group.others:
            assert one.timm_name == "" or timm_models().is_model(one.timm_name), one
        for pair in group.pairs:
            assert {pair.faster.title, pair.than.title} <= set(titles)
            assert pair.claim == "" or pair.claim in claims


def test_every_model_of_the_issue_is_there():
    names = {(one.name, one.image_size) for group in GROUPS for one in group.everyone}
    assert names >= {
        *((f"Mixer-{label}", 224) for label in ("S/32", "B/32", "S/16", "B/16", "L/32", "L/16")),
        ("Mixer-H/14", 224), ("Mixer-L/16", 448), ("Mixer-H/14", 448), ("ViT-B/16", 224),
        ("ViT-L/16", 224), ("ViT-H/14", 224), ("ViT-L/16", 512), ("ViT-H/14", 518),
        ("BiT-R50x1", 224), ("BiT-R152x2", 224), ("BiT-R152x4", 480), ("ResNet-50", 224),
        ("NFNet-F4", 512), ("NFNet-F6", 576),
    }  # fmt: skip


@pytest.mark.slow
def test_weights_of_a_group_leave_room_in_12_gigabytes():
    """Shared weights are counted twice here."""
    for group in GROUPS:
        weights = sum(4 * priced(one)[0] for one in group.everyone)
        assert weights < 11e9, group.name


def test_ratios_stand_beside_both_of_the_papers_figures():
    group = GROUPS[-1]
    found = Comparison(seconds=1.0, speedup=2.0, low=1.9, high=2.1)
    rows = [ratio_row(group, pair, found, 1.5) for pair in group.pairs]
    published = [(row["published_in_words"], row["published_in_tables"]) for row in rows]
    assert published == [(2.5, 40 / 15)] * 2 + [(2.0, 40 / 26)] * 2
    assert [row["form"] for row in rows] == ["dense", "shared"] * 2
    assert "in the paper 2.5× in words, 2.67× by its tables" in sentence(rows[0])
    (pair,) = GROUPS[0].pairs
    row = ratio_row(GROUPS[0], pair, found, 1.5)
    assert (row["published_in_words"], row["published_in_tables"]) == (None, 1384 / 861)
    assert row["claim"] == "speed-b16"


def test_a_quick_bench_writes_its_parts_and_a_picture(tmp_path):
    said = []
    rows = throughput.study(tmp_path / "a.json", said.append, quick=True)
    content = read_results(tmp_path / "a.json")
    assert content["command"] == "mixer bench throughput --quick" and content["rows"] == rows
    by_part = {part: [row for row in rows if row["part"] == part] for part in PARTS}
    assert [len(found) for found in by_part.values()] == [4, 1, 8, 4]
    models = {row["title"]: row for row in by_part["models"]}
    anchor, vit = models[ANCHOR.title], models["ViT-B/16 at 224 px"]
    assert anchor["ratio"] == anchor["published_ratio"] == 1
    assert vit["published_ratio"] == 861 / 1384 and vit["timm_name"] == "vit_base_patch16_224"
    (ratio,) = by_part["ratios"]
    assert ratio["mac_ratio"] == vit["gmacs"] / anchor["gmacs"]
    assert ratio["ratio_quartiles"][0] <= ratio["ratio"] <= ratio["ratio_quartiles"][1]
    families = ["Mixer, token width kept", "Mixer, dense", "Mixer, shared tiles", "ViT"]
    assert [(row["family"], row["patches"]) for row in by_part["patches"]] == [
        (family, patches) for patches in (4, 16) for family in families
    ]
    assert all(row["seconds"] > 0 for row in by_part["patches"])
    numbered = [line for line in said if line.split(" ")[0].endswith("/12")]
    assert len(numbered) == 12 and numbered[-1].startswith("12/12")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    assert not list(tmp_path.glob("*.part.json"))
