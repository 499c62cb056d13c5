"""A model as a folder for any web server: a page that classifies images in the visitor's browser.

Letters: N images, I image channels, H W image height and width, S patches of a tile, T
token-mixing width.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.checkpoint.files import atomic_folder
from mixerkit.data.decode import MAX_BYTES, MAX_PIXELS
from mixerkit.errors import UserError
from mixerkit.inference.export import Written, export
from mixerkit.inference.gate import Verdict
from mixerkit.inference.mixer_graph import UNITS, EightBits, Form
from mixerkit.inference.runtimes import installed, missing
from mixerkit.inference.web_runtime import VERSION, WASM, Taken
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

RUNTIME, MODEL, UNIT_WEIGHTS, ABOUT = "onnxruntime", "model.onnx", "units.bin", "model.json"
MEDIA = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
"""What every browser decodes of the formats that `data/decode.py` reads."""


def web_export(
    model: MlpMixer,
    out: Path,
    pixels_NIHW: np.ndarray,
    runtime: Mapping[Taken, bytes],
    *,
    title: str,
    half: bool = False,
    rounded: tuple[EightBits, Verdict] | None = None,
    force: bool = False,
) -> Written:
    """Write the folder `out`, with `runtime` from `runtime_files`. The rest as of `export`, by
    which the model in it is written and compared."""
    check_suits(model)
    form = Form(pixels=True, half=half, units=has_units(model.config))
    about = described(model, title) | {
        "precision": "int8" if rounded else "float16" if half else "float32"
    }
    if has_units(model.config):
        about["units"] = unit_grid(model.config, turned=bool(rounded and rounded[0].ranges))
    with atomic_folder(out) as folder:
        made = export(model, folder / MODEL, pixels_NIHW, form=form, rounded=rounded, force=force)
        about["compared"] = [asdict(one) for one in made.comparisons]
        fill(folder, model, runtime, about)
    written = sorted(path for path in out.rglob("*") if path.is_file())
    return replace(made, files=tuple(written))


def fill(
    folder: Path, model: MlpMixer, runtime: Mapping[Taken, bytes], about: dict[str, Any]
) -> None:
    """Put everything but the model into the page's folder."""
    for file in files("mixerkit.inference").joinpath("web").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / RUNTIME).mkdir()
    for one, content in runtime.items():
        (folder / RUNTIME / one.served).write_bytes(content)
    if about["units"]:
        (folder / UNIT_WEIGHTS).write_bytes(unit_weights(model).tobytes())
    about["bytes"] = sum((folder / name).stat().st_size for name in about["files"].values())
    text = json.dumps(about, indent=1, ensure_ascii=False)
    (folder / ABOUT).write_text(f"{text}\n", encoding="utf-8")


def check_suits(model: MlpMixer) -> None:
    """The page can use the model, and there is what compares it."""
    if "onnxruntime" not in installed():
        raise missing("onnxruntime", Path(MODEL))
    if not model.config.num_classes:
        raise UserError("The model has no head, so that a page could name no classes.")
    if model.config.in_channels not in (1, 3):
        raise UserError(
            f"Image files have 1 (grey) or 3 (RGB) channels, the model {model.config.in_channels}."
        )


def has_units(config: MixerConfig) -> bool:
    """Whether the first block has token-mixing units to show."""
    return config.token_mixer == "mlp"


def unit_weights(model: MlpMixer) -> np.ndarray:
    """int8 [T, S]: what each unit of the first block makes of each patch of a tile. Every unit has
    its own scale, with its largest weight at ±127."""
    weight_TS = model.state_dict()["blocks.0.token_mixing.fc1.weight"].float().cpu().numpy()
    largest_T1 = np.maximum(np.abs(weight_TS).max(axis=1, keepdims=True), 1e-12)
    return np.rint(127 * weight_TS / largest_T1).astype(np.int8)


def described(model: MlpMixer, title: str) -> dict[str, Any]:
    """What the page knows of the model: its text, names of classes, how images are prepared, where
    the patches lie."""
    config, prepared = model.config, model.preprocess
    assert prepared
    height, width = config.image_hw
    kind = "grey" if config.in_channels == 1 else "colour"
    names = prepared.class_names or [f"class {label}" for label in range(config.num_classes)]
    return {
        "title": title,
        "lead": (
            f"An MLP-Mixer of {cost(config).parameters:,} parameters. It looks at {kind} images of "
            f"{width} × {height} px and chooses among {config.num_classes:,} classes."
        ),
        "runtime": f"ONNX Runtime Web {VERSION}",
        "classes": list(names),
        "image": image_rule(prepared),
        "patches": patch_grid(config),
        "units": None,
        "files": {
            "model": MODEL,
            "wasm": f"{RUNTIME}/{WASM.served}",
        },
    }


def image_rule(prepared: Preprocess) -> dict[str, Any]:
    """How an image file becomes pixels, and what is refused (`data/decode.py`)."""
    height, width = prepared.image_hw
    return {
        "height": height,
        "width": width,
        "channels": prepared.channels,
        "resize": prepared.resize,
        "resize_to": prepared.resize_to,
        "interpolation": prepared.interpolation,
        "formats": list(MEDIA),
        "most_pixels": MAX_PIXELS,
        "most_bytes": MAX_BYTES,
    }


def patch_grid(config: MixerConfig) -> dict[str, Any]:
    """Patches down and across, their size, and how far the first one begins outside the image."""
    outside = [
        (-image % patch) // 2 for image, patch in zip(config.image_hw, config.patch_hw, strict=True)
    ]
    return {"grid": list(config.grid), "size": list(config.patch_hw), "outside": outside}


def unit_grid(config: MixerConfig, turned: bool) -> dict[str, Any]:
    """Where the units' weights are, on which grid, and which axis of which output they are: the
    last one, where the tokens were `turned` there."""
    return {
        "weights": UNIT_WEIGHTS,
        "count": config.token_width,
        "grid": list(config.tile_grid),
        "output": UNITS,
        "axis": 2 if turned else 1,
    }
