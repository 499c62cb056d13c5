"""timm's Mixer in PyTorch, as it is or compiled, with the threads that a setting says.

Letters: B batch, I image channels, H W image height and width.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from mixerkit.benchmark.peer_settings import Kind, Setting
from mixerkit.benchmark.peers import timm_mixer
from mixerkit.inference.eager import compiled_run, on_threads
from mixerkit.inference.runtimes import Run
from mixerkit.spec.mixer import MixerConfig


def open_in_pytorch(
    weights: Path, config: MixerConfig, setting: Setting, kind: Kind, compiled: bool
) -> Run:
    """The model with the weights in a file. For `kind` bfloat16 they are stored so, or cast on the
    way if the setting says autocast."""
    model = timm_mixer(replace(config, head_bias=0.0)).eval()  # the bias itself is in the file
    model.load_state_dict(load_file(weights))
    if kind == "bfloat16" and not setting.autocast:
        model.to(torch.bfloat16)
    return compiled_run(model, setting.threads) if compiled else _eager(model, setting)


@contextmanager
def nothing_compiled_yet() -> Iterator[None]:
    """PyTorch keeps what it compiled by the code of a model's layers, a few versions of each, and
    would run later ones uncompiled: forget all, so that what was opened before must not be called
    again, and fail rather than run uncompiled."""
    from torch._dynamo import config

    torch.compiler.reset()
    gc.collect()  # what was compiled refers to itself
    with config.patch(fail_on_recompile_limit_hit=True):
        yield


def _eager(model: nn.Module, setting: Setting) -> Run:
    dtype = next(model.parameters()).dtype

    def run(x_BIHW: np.ndarray) -> np.ndarray:
        cast = torch.autocast("cpu", torch.bfloat16, enabled=setting.autocast)
        with on_threads(setting.threads), torch.inference_mode(), cast:
            result = model(torch.from_numpy(x_BIHW).to(dtype))
        found: np.ndarray = result.float().numpy()
        return found

    return run
