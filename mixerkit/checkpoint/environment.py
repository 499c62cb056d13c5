"""What a computation depends on besides its recipe, as every checkpoint notes it."""

from typing import Any

import torch


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """What the last bits of a computation on `device` depend on besides the recipe.

    Without a device: on a GPU if there is one, as training does.
    """
    on_gpu = torch.cuda.is_available() if device is None else device.type == "cuda"
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "processor",
    }


PARTS = {
    "torch": "PyTorch",
    "threads": "threads",
    "instruction_set": "instruction set",
    "device": "device",
}
"""Keys of `environment()` → what they are called."""


def differences(then: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """A line for each part of the `environment()` that is not `now` as it was `then`.

    Where there is one, the last bits of what is computed may differ.
    """
    return [
        f"{name}: {then.get(key, 'unknown')} then, {now.get(key, 'unknown')} now"
        for key, name in PARTS.items()
        if then.get(key) != now.get(key)
    ]
