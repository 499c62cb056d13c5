"""Rows and choices of another form are named where they are read, or passed over."""

import json

import pytest

from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from tests.checkpoint.conftest import left_out, row_of

TIMING = {"step": 1, "seconds": 2.5, "images_per_second": 3.0, "waiting": 0.1}


def write(run: RunFolder, name: str, *rows: object) -> None:
    (run.path / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step": "1"}, "a whole number under 'step', found '1'"),
        ({"step": 1.0}, "a whole number under 'step', found 1.0"),
        ({"step": True}, "a whole number under 'step', found True"),
        ({"step": 10**30}, "a whole number under 'step'"),
        ({"split": None}, "text under 'split', found None"),
        ({"loss": "low"}, "a number under 'loss', found 'low'"),
        ({"top1": None}, "a number under 'top1', found None"),
        ({"top5": [1]}, "a number under 'top5'"),
        ({"nll": True}, "a number under 'nll'"),
        ({"ece": {}}, "a number under 'ece'"),
        ({"epoch": 10**400}, "a number under 'epoch'"),
        ({"learning_rate": "1"}, "a number under 'learning_rate'"),
        ({"gradient_norm": "1"}, "a number under 'gradient_norm'"),
    ],
)
def test_a_row_of_metrics_of_another_form_is_named_with_its_line(run, change, said):
    sound = row_of(1, epoch=0.5, loss=1, learning_rate=0.1, gradient_norm=2.0)
    write(run, "metrics.jsonl", sound)
    assert run.metrics() == [sound]
    write(run, "metrics.jsonl", sound, sound | change)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2: expected ") as raised:
        run.metrics()
    assert said in str(raised.value)


@pytest.mark.parametrize("key", ["step", "split"])
def test_a_row_of_metrics_has_a_step_and_a_split(run, key):
    row = row_of(1)
    del row[key]
    write(run, "metrics.jsonl", row)
    with pytest.raises(UserError, match=f"line 1: expected .* under '{key}', found nothing"):
        run.metrics()


@pytest.mark.parametrize(
    ("name", "sound", "others"),
    [
        (
            "timing.jsonl",
            TIMING,
            [{"step": 1}, TIMING | {"step": 1.5}, TIMING | {"seconds": "1"},
             TIMING | {"waiting": ""}, TIMING | {"seconds": 10**400}],
        ),
        (
            "quarantine.jsonl",
            left_out("a"),
            [{}, left_out("a") | {"split": 1}, left_out("a") | {"index": "1"},
             left_out("a") | {"index": -1},
             left_out("a") | {"file": None}, left_out("a") | {"reason": 2}],
        ),
    ],
)  # fmt: skip
def test_rows_that_nothing_depends_on_are_passed_over_and_named_once(
    run, capsys, name, sound, others
):
    read = {"timing.jsonl": run.timings, "quarantine.jsonl": run.quarantine}[name]
    for other in [*others, 3, []]:
        write(run, name, sound, other, sound)
        assert read() == [sound, sound] and read() == [sound, sound]
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and f"{name}: 1 unusable rows are passed over (line 2" in said
    (run.path / name).write_bytes(b"\xff{\n" + json.dumps(sound).encode() + b"\n{")
    assert read() == [sound]
    assert "(line 1: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "choices",
    [{"threads": 0}, {"threads": 1.0}, {"threads": True}, {"compile": 1}, {"total_steps": "9"},
     {"images": 3}, {"threads": None}, {"contents": 5}, {"contents": ["00", 1]},
     {"classes": "ab"}],
)  # fmt: skip
def test_choices_of_another_kind_are_named(run: RunFolder, choices):
    run.save_choices({"threads": 2, "compile": True, "total_steps": 9, "images": "x", "other": []})
    sound = run.choices()
    (run.path / "choices.json").write_text(json.dumps(sound | choices))
    with pytest.raises(UserError, match=rf"choices\.json: expected .*'{next(iter(choices))}'"):
        run.choices()
