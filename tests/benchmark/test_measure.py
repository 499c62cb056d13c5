"""The timer with a clock of its own, and the memory of calls whose memory is known."""

import sys

import pytest
from torch.utils.flop_counter import FlopCounterMode

from mixerkit.benchmark.measure import in_fresh_process, matrix_products, peak_memory
from mixerkit.spec.mixer import MixerConfig
from mixerkit.timer import compare, interleave


class Clock:
    """Time that passes only when a function says so."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def function(self, name: str, *seconds: float):
        """Takes the given times in turn, then the last of them for ever."""
        times = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += times.pop(0) if len(times) > 1 else times[0]

        return call


def test_functions_take_turns_after_a_warmup_that_is_thrown_away():
    clock = Clock()
    functions = {"A": clock.function("A", 9, 7, 1, 2, 3), "B": clock.function("B", 9, 8, 4, 5, 6)}
    seconds = interleave(functions, rounds=3, warmup=2, least_turn=0, clock=clock)
    assert clock.calls == [*"AABB", *"ABABAB"]
    assert seconds == {"A": [1, 2, 3], "B": [4, 5, 6]}


def test_a_fast_function_is_repeated_within_its_turn():
    clock = Clock()
    functions = {"A": clock.function("A", 0.25), "B": clock.function("B", 2.0)}
    seconds = interleave(functions, rounds=2, warmup=1, least_turn=1.0, clock=clock)
    assert clock.calls == [*"AB", *"AAAAB", *"AAAAB"]
    assert seconds == {"A": [0.25, 0.25], "B": [2.0, 2.0]}


def test_without_warmup_every_call_counts():
    clock = Clock()
    seconds = interleave({"A": clock.function("A", 5, 1)}, rounds=2, warmup=0, clock=clock)
    assert seconds == {"A": [5, 1]} and clock.calls == ["A", "A"]


def test_speedup_is_the_median_of_the_rounds_own_ratios():
    found = compare({"ours": [1, 2, 100], "timm": [2, 5, 200]}, "timm")
    assert (found["ours"].seconds, found["ours"].speedup) == (2, 2.0)  # of 2, 2.5, 2
    assert (found["ours"].low, found["ours"].high) == (2.0, 2.25)
    assert (found["timm"].speedup, found["timm"].low, found["timm"].high) == (1, 1, 1)
    assert compare({"a": [2.0], "b": [3.0]}, "b")["a"].low == 1.5


def test_a_slow_round_that_meets_both_changes_no_ratio():
    quiet = compare({"a": [1, 1, 1, 1], "b": [3, 3, 3, 3]}, "b")["a"]
    noisy = compare({"a": [1, 50, 1, 7], "b": [3, 150, 3, 21]}, "b")["a"]
    assert (quiet.speedup, quiet.low, quiet.high) == (noisy.speedup, noisy.low, noisy.high)


def test_matrix_products_do_the_operations_of_one_block():
    config = MixerConfig(8, 4, 3, 10, 1, 6, 14, 5)
    multiply, operations = matrix_products(config, batch=2)
    tokens, channels = 2 * 4 * 10 * 6, 2 * 4 * 10 * 14  # a product's multiply-adds, batch 2
    assert operations == 2 * (2 * tokens + 2 * channels)
    with FlopCounterMode(display=False) as counter:
        multiply()
    assert counter.get_total_flops() == operations


PEAKS = """
import json
import torch
from mixerkit.benchmark.measure import peak_memory

def hold(megabytes):
    torch.ones(megabytes * 2**20 // 4)

def hold_one_after_the_other():
    hold(90)
    hold(60)  # the allocator may keep what is freed, so the smaller one comes second

peak_memory(lambda: hold(1))  # the first read has buffers of its own
calls = hold_one_after_the_other, lambda: hold(50), lambda: None
print(json.dumps([peak_memory(call) for call in calls]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="read from the Linux kernel")
def test_peak_memory_is_the_worst_moment_of_the_call():
    """In a process of its own: what an allocator keeps depends on all that it gave before."""
    mib = 2**20
    one_after_the_other, one, nothing = in_fresh_process(PEAKS)
    assert one_after_the_other == pytest.approx(90 * mib, abs=4 * mib)
    assert one == pytest.approx(50 * mib, abs=4 * mib)
    assert nothing <= mib


def test_peak_memory_is_unknown_elsewhere(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert peak_memory(lambda: None) is None
