"""The study of few images: what its arms differ in, and its rows."""

import json

import pytest

from mixerkit.errors import UserError
from mixerkit.spec.recipes import recipe
from mixerkit.study import regularisation
from mixerkit.study.regularisation import ALL, ARMS, PAPER, PLAIN, settings_of


def test_arms_differ_in_the_papers_regularisation_alone():
    plain, paper, everything = (settings_of(arm, 0.1, 0, 100) for arm in (PLAIN, PAPER, ALL))
    published = recipe("b16-imagenet1k")
    assert (plain.augment.mixup, plain.optimizer.weight_decay, plain.model.drop_path) == (0, 0, 0)
    for arm in (paper, everything):
        assert arm.augment.mixup == published.augment.mixup
        assert arm.optimizer.weight_decay == published.optimizer.weight_decay
        assert arm.model.drop_path == published.model.drop_path
    assert everything.augment.randaugment == published.augment.randaugment
    assert paper.augment.randaugment == plain.augment.randaugment == 0
    assert plain.data == paper.data == everything.data
    assert not any(settings_of(arm, 0.1, 0, 100).evaluate.test for arm in ARMS)


def test_a_quick_study_has_a_row_for_each_arm_and_a_picture(tmp_path, monkeypatch, repository):
    monkeypatch.setenv("MIXERKIT_DATA", str(repository / "tests" / "samples"))
    monkeypatch.setattr(regularisation, "HOLDOUT", 100)
    monkeypatch.setattr(regularisation, "QUICK_SHARES", (0.5,))
    lines: list[str] = []
    rows = regularisation.study(tmp_path / "a.json", lines.append, quick=True)
    assert [row["regularisation"] for row in rows] == list(ARMS) and len(lines) == 4
    for row in rows:
        assert row["images"] == 250  # half of those of the 600 that are not held out
        assert row["course"][-1][0] == 40
        assert row["course"][-1][1] == row["held_out_accuracy"] <= row["best_held_out_accuracy"]
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == rows
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    # a study that was stopped after its second run goes on with the third
    stored = json.loads((tmp_path / "a.json").read_text())
    (tmp_path / "a.json").write_text(json.dumps(stored | {"rows": rows[:2]}))
    lines.clear()
    again = regularisation.study(tmp_path / "a.json", lines.append, quick=True)
    assert lines[0] == "2 of 3 runs are done" and len(lines) == 2
    assert again == rows
    monkeypatch.setattr(regularisation, "RATE", 1.0)
    with pytest.raises(UserError, match="measured with other settings"):
        regularisation.study(tmp_path / "a.json", lines.append, quick=True)
