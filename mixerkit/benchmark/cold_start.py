"""`mixer bench cold-start`: seconds and memory from starting Python to the first answer.

Each contender is a fresh process that names one image by the shipped model and ends: exported files
and the model itself by `mixer predict`, and timm's model with the same weights as its users load
it. They take turns.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from mixerkit.benchmark.peers import copy_to_timm
from mixerkit.checkpoint.load import load
from mixerkit.device import GIB
from mixerkit.inference.export import export
from mixerkit.inference.readers import READERS, SUFFIX, Target
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results

Say = Callable[[str], None]

SHIPPED = "zoo:fashion-demo"
ROUNDS, QUICK_ROUNDS = 9, 1
TARGETS: tuple[Target, ...] = ("onnx", "openvino")
PREDICT = (sys.executable, "-m", "mixerkit", "predict")
TIMM = """
import sys, numpy as np, torch
from PIL import Image
from safetensors.torch import load_file
from timm.models.mlp_mixer import MlpMixer
model = MlpMixer(num_classes=10, img_size=28, in_chans=1, patch_size={patch}, num_blocks={depth},
                 embed_dim={width}, mlp_ratio={ratios})
model.load_state_dict(load_file(sys.argv[2]))
model.eval()
pixels = np.asarray(Image.open(sys.argv[1]).convert("L"), np.float32)
with torch.inference_mode():
    print(model((torch.from_numpy(pixels)[None, None] / 255 - 0.5) / 0.5).argmax().item())
"""

STARTER = """
import json, os, sys, time
start = time.perf_counter()
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(process, 0)
print(json.dumps([time.perf_counter() - start, usage.ru_maxrss]))
sys.exit(os.waitstatus_to_exitcode(status))
"""


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """A row for each contender, written to `out`."""
    rounds = QUICK_ROUNDS if quick else ROUNDS
    with tempfile.TemporaryDirectory() as temporary:
        commands = contenders(Path(temporary))
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for number in range(rounds + 1):
            for name, command in commands.items():
                one = timed(command)
                if number:  # the first round reads files from the disk
                    found[name].append(one)
    rows = [
        {
            "contender": name,
            "seconds": median(seconds for seconds, _ in trials),
            "slowest_seconds": max(seconds for seconds, _ in trials),
            "peak_gib": median(peak for _, peak in trials),
        }
        for name, trials in found.items()
    ]
    for row in rows:
        say(f"{row['contender']:32} {row['seconds']:.2f} s, {row['peak_gib']:.2f} GiB")
    write_results(
        out,
        name="cold-start",
        command="mixer bench cold-start" + (" --quick" if quick else ""),
        settings={"model": SHIPPED, "rounds": rounds},
        rows=rows,
    )
    return rows


def contenders(folder: Path) -> dict[str, list[str]]:
    """Command lines by name; what they need is written into `folder`."""
    from safetensors.torch import save_file

    model = load(SHIPPED).eval()
    image = folder / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    Image.fromarray(pixels).save(image)
    noise = pixels[None, None].repeat(4, axis=0)
    noise[1:] //= np.array([2, 3, 4], np.uint8)[:, None, None, None]
    commands = {}
    for to in TARGETS:
        path = export(model, folder / f"model{SUFFIX[to]}", noise, to=to).files[-1]
        commands[f"exported, {READERS[to][0]}"] = [*PREDICT, str(image), "--model", str(path)]
    commands["PyTorch"] = [*PREDICT, str(image), "--model", SHIPPED]
    weights = folder / "timm.safetensors"
    save_file(copy_to_timm(model).state_dict(), weights)
    commands["timm"] = [sys.executable, "-c", _script(model), str(image), str(weights)]
    return commands


def _script(model: MlpMixer) -> str:
    """timm's model of this shape; half a unit more, because timm takes the whole part."""
    config = model.config
    ratios = tuple((w + 0.5) / config.width for w in (config.token_width, config.channel_width))
    return TIMM.format(
        patch=config.patch_hw[0], depth=config.depth, width=config.width, ratios=ratios
    )


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a process and GiB of its memory at its worst moment. A small process starts it: a
    child's figure for memory is never below what its parent had when it started it."""
    done = subprocess.run(
        [sys.executable, "-S", "-c", STARTER, *command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"A contender failed: {done.stderr.strip()}")
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak * 1024 / GIB
