"""The short form of the fault programme, and the programme itself."""

from pathlib import Path

import pytest

from mixerkit.results import write_results
from tests.faults import program
from tests.faults.fault import Fault, in_turn
from tests.faults.program import all_faults, row, run_fault
from tests.tables import filled, of_faults, without_tables

SEED = 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_promises_hold(fault):
    done = run_fault(fault, range(fault.short), SEED)
    assert not done.failures, "\n\n".join(f"{f.again}\n{f.error}" for f in done.failures)
    assert done.trials or done.left_out


def test_every_row_is_found_once():
    files = sorted(Path(program.__file__).parent.glob("*.py"))
    with_rows = [file.stem for file in files if "\nFAULTS = (" in file.read_text()]
    assert sorted(program.MODULES) == with_rows
    ids = [fault.id for fault in all_faults()]
    assert len(set(ids)) == len(ids)


def test_a_broken_promise_is_counted_and_can_be_repeated():
    drawn = []

    def run(trial):
        drawn.append((trial.number, trial.random.random()))
        assert trial.number != 2, "broken"

    fault = Fault("F0", "nothing", "nothing", 4, 1, run)
    done = run_fault(fault, None, 5)
    assert done.trials == 4
    assert [f.again for f in done.failures] == ["python -m tests.faults F0:2 --seed 5"]
    assert "broken" in done.failures[0].error
    everything = dict(drawn)
    run_fault(fault, [3], 5)
    assert drawn[-1] == (3, everything[3]) and len(set(everything.values())) == 4


def test_what_cannot_be_tried_is_said_and_not_counted():
    ran = []
    fault = Fault(
        *("F0", "nothing", "all", None, 8, lambda trial: ran.append(trial.number)),
        prepare=lambda folder: ["one", "two", "three"],
        counts="points",
        points=len,
        left_out=lambda points: f"what comes after {points[-1]}",
    )
    assert run_fault(fault, range(fault.short), SEED).trials == 3
    assert run_fault(fault, [1, 7], SEED).trials == 1
    done = run_fault(fault, None, SEED)
    assert ran == [0, 1, 2, 1, 0, 1, 2]
    shown = of_faults({"rows": [row(fault, done, SEED, False)]}).splitlines()[-1]
    assert shown == "| F0 | nothing | 3 points; not tried here: what comes after three | all | 0 |"


def test_the_table_takes_the_place_of_the_one_before(tmp_path):
    fault = Fault("F0", "nothing", "all", 1, 1, lambda trial: None)
    found = row(fault, run_fault(fault, None, SEED), SEED, False)
    write_results(tmp_path / "faults.json", name="faults", command="x", settings={}, rows=[found])
    before = "a\n<!-- table of results/faults.json -->\nold\n<!-- end of the table -->\nb"
    page = filled(before, tmp_path)
    assert of_faults({"rows": [found]}) in page and "old" not in page
    assert filled(page, tmp_path) == page
    assert without_tables(page) == "a\n\nb"


def test_points_come_once_and_of_every_kind_first():
    kinds = [range(10), range(100, 103), [], range(200, 205)]
    points = in_turn(*kinds)
    assert sorted(points) == [point for kind in kinds for point in kind]
    assert [point // 100 for point in points[:9]] == [0, 1, 2] * 3
    assert points == in_turn(*kinds) and points[::3] != sorted(points[::3])
