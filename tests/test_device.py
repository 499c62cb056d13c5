"""Where things are computed, and what is said when memory is short."""

import pytest
import torch

from mixerkit.device import device_here, memory_here, memory_told
from mixerkit.errors import RunFailed


def test_without_a_gpu_the_processor_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_here() == torch.device("cpu")
    assert memory_here() is None


def too_much_on_the_processor() -> None:
    torch.empty(2**60)


def too_much_on_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


@pytest.mark.parametrize("demand", [too_much_on_the_processor, too_much_on_a_gpu])
def test_full_memory_is_one_clear_error(demand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with (
        pytest.raises(RunFailed, match=r"memory is full\. Take less\.$"),
        memory_told(lambda: "Take less."),
    ):
        demand()


def test_a_gpu_is_named_with_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (3 * 2**30, 8 * 2**30))
    monkeypatch.setattr("torch.cuda.memory_reserved", lambda: 2**30)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda: "A card")
    with (
        pytest.raises(RunFailed, match=r"^A card has 4\.0 GiB for this process"),
        memory_told(lambda: "Take less."),
    ):
        too_much_on_a_gpu()


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_told(lambda: "Take less."):
        raise RuntimeError("shapes do not fit")
