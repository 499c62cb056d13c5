"""Training by several processes: how they meet, and how gradients become those of all."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from mixerkit import launch
from mixerkit.errors import UserError
from mixerkit.training.sharding import is_sharded
from mixerkit.training.world import World

PR_SET_PDEATHSIG = 1
"""Linux's number for: send me this signal when my parent ends."""


def replicated(model: nn.Module, world: World) -> nn.Module:
    """`model` so that a backward pass gives every process the gradients of all (DDP); alone, or
    where it is divided, the model itself."""
    if world.size == 1 or is_sharded(model):
        return model
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


@contextmanager
def summing(model: nn.Module, now: bool) -> Iterator[int]:
    """Around a forward and a backward pass of several that add up: `now`, at the last, DDP sums
    their gradients over the processes; FSDP does so every time, or all would have to be kept whole.
    Gives what to multiply the loss by: DDP takes means."""
    if not isinstance(model, DistributedDataParallel):
        yield 1
        return
    with nullcontext() if now else model.no_sync():
        yield dist.get_world_size()


@contextmanager
def joined() -> Iterator[World]:
    """Inside, this process is one of those that `torchrun` started with it; alone, by itself."""
    if launch.processes() == 1 or dist.is_initialized():
        yield World.here()
        return
    _end_with_parent()
    backend = "gloo"
    if torch.cuda.is_available():
        if launch.device_number() >= torch.cuda.device_count():
            raise UserError(
                f"There are {launch.processes_here()} processes for the "
                f"{torch.cuda.device_count()} devices of this machine: start one for each."
            )
        torch.cuda.set_device(launch.device_number())
        backend = "cpu:gloo,cuda:nccl"
    store, rank, size = next(rendezvous("env://"))
    # The launcher's store outlives processes that failed, and with it the addresses that they left
    # there: those that are started again would talk to them, or wait for ever.
    store = PrefixStore(f"start {launch.restarts()} of {size}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    world = World(rank, size)
    try:
        with world.noticing_loss():
            yield world
            dist.barrier()  # all leave together: none is missed by one that is still at work
    finally:
        dist.destroy_process_group()


def _end_with_parent() -> None:
    """Where the launcher is killed, stop as on SIGTERM, rather than train on unseen with the lock
    of the run. Linux only."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
