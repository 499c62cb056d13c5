"""`mixer convert`: a model in another layout, or for another resolution, as a file or folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.text import pairs
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.mixer import Size, is_variant

EXAMPLES = """\
  mixer convert Mixer-B_16.npz b16                    # our folder: weights, settings, preprocessing
  mixer convert zoo:b16-imagenet1k-google b16-448 --image-size 448
  mixer convert runs/fashion-demo demo.npz            # the authors' names and order of axes
  mixer convert runs/fashion-demo small --half
  mixer convert timm.safetensors wide --native-size 96 160 --gelu tanh
"""


@dataclass(frozen=True)
class Convert:
    """Write the model SOURCE to OUT, in another layout or for another resolution.

    SOURCE is a file of weights (.npz, .safetensors, .pth), a run folder, a checkpoint (RUN@newest,
    RUN@best, RUN@STEP), a model folder, hf://ORG/NAME or zoo:NAME. What the file does not say is
    assumed, and printed. OUT is a new folder (ours), a .npz file (the authors' layout) or a
    .safetensors file (timm's names), unless --to says other.
    """

    source: Annotated[Word, shown_as("SOURCE")]
    """What to convert."""
    out: Annotated[Word, shown_as("OUT")]
    """A new folder or file; nothing is overwritten."""
    to: Literal["auto", "mixerkit", "google", "google-older", "timm"] = "auto"
    """Layout to write; "auto" goes by OUT."""
    image_size: Size | None = None
    """Pixels, one side or height and width: a whole multiple of the native size becomes tiles that
    share the token mixing, every other size is resampled."""
    patch_size: Size | None = None
    """Pixels; the stem is resized, the image size stays."""
    num_classes: int | None = None
    """A fresh head for so many classes; 0 takes the head away."""
    in_channels: int | None = None
    """Image channels: 1 sums the stem's kernels, more repeat them."""
    enlargement: Literal["shared", "dense", "resample"] = "shared"
    """What a whole multiple of the native size becomes (paper, appendix C)."""
    method: Literal["bilinear", "bicubic", "area", "pinv"] | None = None
    """How token mixing is resampled for other sizes (docs/surgery.md)."""
    gelu: Literal["tanh", "erf"] | None = None
    """What the weights were trained with, where the file does not say it."""
    native_size: Size | None = None
    """Image size of a file whose tokens form no square."""
    half: Flag = False
    """Store float16 in our folder: half the bytes, each weight rounded to three digits or so. It is
    computed in float32 all the same; measure what it costs with `mixer evaluate`."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer convert` with `words`."""
    given = parse(Convert, words, command="convert", examples=EXAMPLES)
    from mixerkit.checkpoint.files import check_new, check_place

    out, layout = Path(given.out), _layout(given)
    check_new(out)
    if is_variant(given.source) and not Path(given.source).exists():
        raise UserError(
            f"{given.source} is a variant without weights: there is nothing to convert."
        )
    if layout == "mixerkit" and out.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise UserError(f"{out.suffix} files can run code and are not written: give a folder.")
    if given.half and layout != "mixerkit":
        raise UserError("--half is for our own folder: leave it out, or give a folder.")
    check_place(out)
    from mixerkit.checkpoint.convert import write_layout
    from mixerkit.checkpoint.load import ORIGIN, load, save_model
    from mixerkit.model.surgery import DEFAULT_METHOD
    from mixerkit.spec.preprocess import plain_preprocess

    model = load(
        given.source,
        image_size=given.image_size,
        patch_size=given.patch_size,
        num_classes=given.num_classes,
        in_channels=given.in_channels,
        enlargement=given.enlargement,
        method=given.method or DEFAULT_METHOD,
        gelu=given.gelu,
        native_size=given.native_size,
    )
    if layout == "mixerkit":
        config = model.config
        fresh = plain_preprocess(config)
        about = model.about
        if given.half:  # what was measured, was measured with other numbers
            about = {name: about[name] for name in ORIGIN if name in about} | {"stored": "float16"}
        save_model(out, model, model.preprocess or fresh, about, half=given.half)
        lost: list[str] = []
    else:
        lost = write_layout(out, model, layout)
    report = {
        "source": given.source,
        "out": str(out),
        "layout": layout,
        "assumed": list(model.notes),
        "lost": lost,
    }
    print(json.dumps(report | _facts(model), indent=2) if given.json else _text(report, model))
    return EXIT_DONE


def _layout(given: Convert) -> str:
    if given.to != "auto":
        return given.to
    by_suffix = {".npz": "google", ".safetensors": "timm"}
    return by_suffix.get(Path(given.out).suffix, "mixerkit")


def _facts(model: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from mixerkit.model.cost import cost

    priced = cost(model.config)
    return {
        "config": asdict(model.config),
        "parameters": priced.parameters,
        "macs": priced.macs,
    }


def _text(report: dict[str, Any], model: Any) -> str:
    from mixerkit.cli.text import short
    from mixerkit.model.cost import cost

    config, priced = model.config, cost(model.config)
    height, width = config.image_hw
    tiles = config.tiles_hw[0] * config.tiles_hw[1]
    shared = f", {tiles} tiles that share the token mixing" if tiles > 1 else ""
    rows = [
        ("written", report["out"]),
        ("layout", report["layout"]),
        ("images", f"{config.in_channels} × {height} × {width} px{shared}"),
        ("patches", " × ".join(map(str, config.patch_hw)) + " px"),
        ("classes", str(config.num_classes)),
        ("parameters", f"{priced.parameters:,}"),
        ("MACs", short(priced.macs)),
    ]
    lines = [pairs(rows)]
    for title, sentences in (("Assumed:", report["assumed"]), ("Lost:", report["lost"])):
        if sentences:
            lines += ["", title, *(f"  {sentence}" for sentence in sentences)]
    return "\n".join(lines)
