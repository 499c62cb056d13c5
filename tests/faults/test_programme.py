"""The short form of the fault programme, and the programme itself."""

import pytest

from tests.faults.fault import Fault
from tests.faults.program import all_faults, run_fault

SEED = 0


@pytest.mark.slow
@pytest.mark.parametrize("fault", all_faults(), ids=lambda fault: fault.id)
def test_promises_hold(fault):
    failures, _ = run_fault(fault, range(fault.short), SEED)
    assert not failures, "\n\n".join(f"{f.again}\n{f.error}" for f in failures)


def test_a_broken_promise_is_counted_and_can_be_repeated():
    drawn = []

    def run(trial):
        drawn.append((trial.number, trial.random.random()))
        assert trial.number != 2, "broken"

    fault = Fault("F0", "nothing", "nothing", 4, 1, run)
    failures, _ = run_fault(fault, range(4), 5)
    assert [f.again for f in failures] == ["python -m tests.faults F0:2 --seed 5"]
    assert "broken" in failures[0].error
    everything = dict(drawn)
    run_fault(fault, [3], 5)
    assert drawn[-1] == (3, everything[3]) and len(set(everything.values())) == 4
