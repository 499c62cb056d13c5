"""`mixer bench parity`: what exported models give beside PyTorch, for every target, precision and
token mixer.

The shipped model is a trained one; all others have random weights, every one of them moved from
where it starts, so that no tensor could be left out without being noticed. Images are training
images of Fashion-MNIST, scaled to the model's size; what 8 bits do to answers is only told of the
trained model.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mixerkit.checkpoint.load import load
from mixerkit.data.sources import open_source
from mixerkit.inference.eight_bits import Calibration, Setting
from mixerkit.inference.export import Parity, Written, export, weights_of
from mixerkit.inference.gate import Verdict, unjudged
from mixerkit.inference.mixer_graph import EightBits, Form
from mixerkit.inference.readers import SUFFIX, Target
from mixerkit.inference.web_export import web_export
from mixerkit.inference.web_runtime import TAKEN
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import plain_preprocess
from mixerkit.spec.token_mixers import TOKEN_MIXERS

Say = Callable[[str], None]

TARGETS: tuple[Target | Literal["web"], ...] = ("onnx", "openvino", "web")
PRECISIONS = ("float32", "float16", "int8")
IMAGES, QUICK_IMAGES = 64, 4
GROUPS = {"attention": 4, "grouped": 8}
SHIPPED = "zoo:fashion-demo"
SETTING = Setting(smooth=0.5)


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """A row for each model, target, precision and runtime, written to `out`."""
    rows: list[dict[str, Any]] = []
    count = QUICK_IMAGES if quick else IMAGES
    with tempfile.TemporaryDirectory() as temporary:
        for name, model in models(quick):
            pixels = images_for(model, count)
            rounded = _rounded(model, pixels)
            for to in TARGETS:
                for precision in PRECISIONS:
                    own = Path(temporary) / f"{len(rows)}"
                    found = rounded if precision == "int8" else None
                    written = _written(model, own, pixels, to, precision == "float16", found)
                    rows += [
                        _row(name, to, precision, written.size, one) for one in written.comparisons
                    ]
                    for path in written.files:
                        path.unlink()
            say(f"{name}: {_told(rows, name)}")
    write_results(
        out,
        name="parity",
        command="mixer bench parity" + (" --quick" if quick else ""),
        settings={"images": count, "percentile": SETTING.percentile, "smooth": SETTING.smooth},
        rows=rows,
    )
    return rows


def _written(
    model: MlpMixer,
    out: Path,
    pixels: np.ndarray,
    to: Target | Literal["web"],
    half: bool,
    rounded: tuple[EightBits, Verdict] | None,
) -> Written:
    """Exported by force: differences are told, not judged. A page's model is read by the same
    runtimes; that it gives the same in a browser, the tests show."""
    if to == "web":
        files = dict.fromkeys(TAKEN, b"")
        return web_export(
            model, out, pixels, files, title="parity", half=half, rounded=rounded, force=True
        )
    own = out.with_suffix(SUFFIX[to])
    form = Form(half=half)
    return export(model, own, pixels, to=to, form=form, rounded=rounded, force=True)


def models(quick: bool) -> Iterator[tuple[str, MlpMixer]]:
    """The shipped model, two of the paper's and the article's, a rectangle, every token mixer."""
    yield SHIPPED, load(SHIPPED).eval()
    small = replace(variant("N/4", in_channels=1, num_classes=10), depth=2)
    if not quick:
        yield "S/16", moved(variant("S/16"))
        yield "article", moved(variant("article"))
        yield (
            "rectangle, padded",
            moved(replace(small, image_size=(30, 45), patch_size=(4, 7), in_channels=3, pad=True)),
        )
        yield "tiles", moved(replace(small, image_size=56, tiles=2))
    names: list[Any] = list(TOKEN_MIXERS)
    for name in names[: 1 if quick else None]:
        groups = GROUPS.get(name, 1)
        yield name, moved(replace(small, token_mixer=name, token_groups=groups))


def moved(config: MixerConfig) -> MlpMixer:
    """Random weights, none of them as it starts."""
    torch.manual_seed(0)
    model = MlpMixer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.preprocess = plain_preprocess(config)
    return model


def images_for(model: MlpMixer, count: int) -> np.ndarray:
    """Photographs of the model's size, uint8 [N, I, H, W]."""
    found = open_source("fashion-mnist").train.images
    assert found is not None
    x_NIHW = torch.tensor(found[:count, ..., 0]).unsqueeze(1).float()
    height, width = model.config.image_hw
    x_NIHW = torch.nn.functional.interpolate(x_NIHW, (height, width), mode="bilinear")
    grey: np.ndarray = x_NIHW.round().to(torch.uint8).numpy()
    return grey.repeat(model.config.in_channels, axis=1)


def _rounded(model: MlpMixer, pixels: np.ndarray) -> tuple[EightBits, Verdict]:
    assert model.preprocess
    calibration = Calibration(
        model.config, weights_of(model), model.preprocess, pixels, "onnxruntime"
    )
    return unjudged(calibration, SETTING)


def _row(name: str, to: str, precision: str, size: int, one: Parity) -> dict[str, Any]:
    return {
        "model": name,
        "target": to,
        "precision": precision,
        "runtime": one.runtime,
        "bytes": size,
        "largest_difference": one.largest_difference,
        "relative": one.relative,
        "top1_agreement": one.top1_agreement,
    }


def _told(rows: list[dict[str, Any]], name: str) -> str:
    """The largest relative difference in each precision."""
    own = [row for row in rows if row["model"] == name]
    return ", ".join(
        f"{precision} {max(row['relative'] for row in own if row['precision'] == precision):.1e}"
        for precision in PRECISIONS
    )
