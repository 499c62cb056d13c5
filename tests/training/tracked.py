"""What PyTorch's own tracker says of a divided step: python -m tests.training.tracked

As the first of many processes that are only pretended, with tensors that hold nothing. Prints JSON:
for each case the peak in bytes without the optimiser's state, and for H/14 on 64 devices the bytes
of the first one's rows.
"""

import json

import torch
import torch.distributed as dist
import torch.distributed.fsdp as fsdp
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import variant
from mixerkit.training import sharding

CASES = {
    "float32": (8, "S/32", False, "float32", 16),
    "float32, blocks twice": (8, "S/32", True, "float32", 16),
    "bfloat16": (8, "B/32", False, "bfloat16", 8),
    "bfloat16, blocks twice": (8, "B/32", True, "bfloat16", 8),
}
"""Name → devices, model, activation checkpointing, precision, images on each device."""
LARGE = ("H/14", 64, 21_843)
"""Model, devices, classes."""


def pretended(devices: int) -> DeviceMesh:
    """As many processes, of which only this one exists."""
    if dist.is_initialized():
        dist.destroy_process_group()
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=devices)
    return init_device_mesh("cpu", (devices,))


def divided(model: nn.Module, mesh: DeviceMesh) -> None:
    """`shard` over this mesh."""
    plain = fsdp.fully_shard
    fsdp.fully_shard = lambda unit: plain(unit, mesh=mesh)  # type: ignore[assignment]
    try:
        sharding.shard(model)
    finally:
        fsdp.fully_shard = plain


def peak(name: str) -> int:
    """The most bytes at any moment of two steps."""
    devices, label, twice, precision, images = CASES[name]
    mesh, config = pretended(devices), variant(label)
    with FakeTensorMode():
        model = MlpMixer(config)
        model.activation_checkpointing = twice
        divided(model, mesh)
        batch = torch.randn(images, config.in_channels, *config.image_hw)
        targets = torch.rand(images, config.num_classes)
        tracker = FSDPMemTracker(model)
        tracker.track_inputs((batch, targets))
        with tracker:
            for _ in range(2):
                half = precision == "bfloat16"
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    logits = model(batch)
                (-targets * logits.float().log_softmax(1)).sum().backward()
                model.zero_grad(set_to_none=True)
                tracker.reset_mod_stats()
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    return int(snapshot["Total"])


def rows_of_large() -> int:
    """Bytes of the rows that the first device keeps of a large model, which is never made."""
    label, devices, classes = LARGE
    mesh = pretended(devices)
    with torch.device("meta"):
        model = MlpMixer(variant(label, num_classes=classes))
    divided(model, mesh)
    return sum(sharding.own(parameter).nbytes for parameter in model.parameters())


if __name__ == "__main__":
    nn.init.trunc_normal_ = lambda tensor, **_: tensor  # type: ignore[assignment]
    print(json.dumps({"peaks": {name: peak(name) for name in CASES}, "rows": rows_of_large()}))
