"""`mixer export`: a model as a file for other runtimes, which need no PyTorch."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.text import pairs, percent, table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.spec.mixer import Size

if TYPE_CHECKING:
    import numpy as np

    from mixerkit.inference.export import Written
    from mixerkit.model.mixer import MlpMixer
    from mixerkit.spec.preprocess import Preprocess

EXAMPLES = """\
  mixer export zoo:fashion-demo                                # fashion-demo.onnx
  mixer predict boot.png --model fashion-demo.onnx             # needs no PyTorch
  mixer export runs/photos-64@best --to openvino --out photos.xml
  mixer export zoo:b16-imagenet1k-google --precision float16   # half the bytes
  mixer export runs/photos-64 --pixels --probabilities         # 8-bit images in, shares out
"""

NOISE = 64
"""Images that are compared."""


@dataclass(frozen=True)
class Export:
    """Write MODEL for another runtime: `onnx` (one file, for ONNX Runtime and most others) or
    `openvino` (an .xml file and a .bin beside it).

    The batch may have any size; preprocessing and class names are in the file's metadata. Before
    anything is written, every installed runtime that can read it is compared with PyTorch.
    """

    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder, file of weights, zoo:NAME, hf://ORG/NAME, or a run's checkpoint
    (RUN@newest, RUN@best, RUN@STEP)."""
    to: Literal["onnx", "openvino"] = "onnx"
    """What to write."""
    out: Annotated[str, shown_as("FILE")] = ""
    """The file; the model's name with .onnx or .xml if not given. Nothing is overwritten."""
    precision: Literal["float32", "float16"] = "float32"
    """float16 stores matrices in half the bytes; all is computed in float32."""
    pixels: Flag = False
    """Take 8-bit images [batch, height, width, channels], which the graph normalises, instead of
    normalised ones [batch, channels, height, width]. Both have the model's size."""
    probabilities: Flag = False
    """Give probabilities instead of logits."""
    image_size: Size | None = None
    """Another image size than the model's own, one side or height and width (`mixer convert`)."""
    force: Flag = False
    """Write it though its outputs differ; the file then says so."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer export` with `words`."""
    given = parse(Export, words, command="export", examples=EXAMPLES)
    from mixerkit.inference.export import SUFFIX, check_free

    out = Path(given.out or f"{name_of(given.model)}{SUFFIX[given.to]}")
    check_free(out, given.to)
    from mixerkit.checkpoint.load import load
    from mixerkit.inference.export import export
    from mixerkit.inference.mixer_graph import Form

    model = load(given.model, image_size=given.image_size)
    if given.probabilities and not model.config.num_classes:
        raise UserError(f"{given.model} has no head and so no probabilities: leave them out.")
    model.preprocess = model.preprocess or _assumed(model)
    for note in model.notes:
        print(f"assumed: {note}", file=sys.stderr)
    form = Form(given.pixels, given.probabilities, half=given.precision == "float16")
    found = export(model, out, noise(model), to=given.to, form=form, force=given.force)
    print(json.dumps(_report(given, found), indent=2) if given.json else _text(given, model, found))
    return EXIT_DONE


def name_of(source: str) -> str:
    """A name for a file of the model `source`: "zoo:fashion-demo" gives "fashion-demo"."""
    last = Path(source.rpartition(":")[2]).name
    known = (".npz", ".safetensors", ".pth", ".pt", ".bin")
    stem = last.removesuffix(next((end for end in known if last.endswith(end)), ""))
    return stem.replace("@", "-") or "mixer"


def noise(model: "MlpMixer") -> "np.ndarray":
    """8-bit images without meaning, uint8 [N, I, H, W]; the same every time."""
    import numpy as np

    shape = (NOISE, model.config.in_channels, *model.config.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def _assumed(model: "MlpMixer") -> "Preprocess":
    from mixerkit.spec.preprocess import Preprocess

    return Preprocess(image_size=model.config.image_size, channels=model.config.in_channels)


def _report(given: Export, found: "Written") -> dict[str, Any]:
    return {
        "model": given.model,
        "to": given.to,
        "precision": given.precision,
        "files": [str(path) for path in found.files],
        "bytes": found.size,
        "compared": [asdict(one) for one in found.comparisons],
    }


def _text(given: Export, model: "MlpMixer", found: "Written") -> str:
    height, width = model.config.image_hw
    channels = model.config.in_channels
    takes = (
        f"8-bit images [batch, {height}, {width}, {channels}]"
        if given.pixels
        else f"normalised images [batch, {channels}, {height}, {width}]"
    )
    facts = pairs(
        [
            ("written", ", ".join(map(str, found.files))),
            ("size", f"{found.size / 1e6:,.1f} MB"),
            ("takes", takes),
        ]
    )
    rows = [("compared with PyTorch", "largest difference", "same likeliest class")]
    rows += [
        (one.runtime, f"{one.largest_difference:.1e}", percent(one.top1_agreement))
        for one in found.comparisons
    ]
    return f"{facts}\n\n{table(rows)}"
