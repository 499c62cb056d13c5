"""`mixer visualize`: the paper's pictures of a model's weights, and what they say in numbers."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.text import percent, plural, table
from mixerkit.errors import EXIT_DONE, UserError

if TYPE_CHECKING:
    from mixerkit.insight.units import Structure
    from mixerkit.model.mixer import MlpMixer

EXAMPLES = """\
  mixer visualize runs/fashion-demo
  mixer visualize zoo:b16-imagenet21k-google --blocks 1 2 12 --out b16-pictures
  mixer visualize zoo:fashion-demo --image examples/fashion/ankle-boot.png --svg
"""


@dataclass(frozen=True)
class Visualize:
    """Draw what SOURCE has learned, into a folder: the patch embedding's filters (figure 7 of the
    paper), the token-mixing units (figures 5 and 6), which token adds to which; and put numbers to
    it: units that are local, that have one of opposite phase, smoothness, energy by frequency."""

    source: Annotated[Word, shown_as("SOURCE")]
    """Run folder, checkpoint, model folder, file of weights, hf://ORG/NAME or zoo:NAME."""
    out: Annotated[str, shown_as("FOLDER")] = "pictures"
    """Folder for the pictures; files of the same names are replaced."""
    blocks: tuple[int, ...] = ()
    """Blocks whose units and mixing are drawn, from 1 (if not given, the first three, as in the
    paper's figure 5); the numbers are of all blocks."""
    image: Annotated[str, shown_as("FILE")] = ""
    """An image: also draw how much each of its patches matters for what the model says of it."""
    svg: Flag = False
    """Charts as SVG besides (pictures of weights are exact squares of pixels, as PNG)."""
    json: Flag = False
    """Print the numbers as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer visualize` with `words`."""
    given = parse(Visualize, words, command="visualize", examples=EXAMPLES)
    from mixerkit.checkpoint.load import load
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw
    from mixerkit.insight.figures import filters_sheet
    from mixerkit.insight.weights import has_token_weights

    if not can_draw():
        raise UserError(f"There can be no pictures: {HOW_TO_DRAW}")
    model = load(given.source)
    blocks = given.blocks or tuple(range(1, min(3, model.config.depth) + 1))
    for block in blocks:
        if not 1 <= block <= model.config.depth:
            raise UserError(f"The model has blocks 1 to {model.config.depth}, found {block}.")
    pictures = {"filters.png": filters_sheet(model)}
    found: list[Structure] = []
    if has_token_weights(model):
        from mixerkit.insight.units import structure

        found = [structure(model, block) for block in range(model.config.depth)]
        pictures |= _token_mixing(model, blocks, given.svg, found)
    else:
        print(f"note: the units of {model.config.token_mixer} cannot be drawn", file=sys.stderr)
    told = _influence(model, given, pictures) if given.image else {}
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (out / name).write_bytes(content)
    numbers = {"source": given.source, "blocks": [asdict(one) for one in found], **told}
    (out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    console: Any = sys.stderr if given.json else sys.stdout
    if given.json:
        print(json.dumps(numbers, indent=2))
    elif found:
        print(as_text(found) + "\n")
    if told:
        print(f"{told['image']}: {told['class']}, {percent(told['probability'], 1)}", file=console)
    print(f"{plural(len(pictures), 'picture')} and numbers.json in {out}", file=console)
    return EXIT_DONE


def _token_mixing(
    model: "MlpMixer", blocks: tuple[int, ...], svg: bool, found: "list[Structure]"
) -> dict[str, bytes]:
    """File name → picture of `blocks`, and of all in one chart."""
    from mixerkit.insight.figures import units_sheet
    from mixerkit.insight.unit_figures import mixing_matrix, structure_chart
    from mixerkit.insight.units import effective_mixing

    drawn: dict[str, bytes] = {}
    kinds = ("png", "svg") if svg else ("png",)
    for block in blocks:
        drawn[f"units-{block}.png"] = units_sheet(model, block - 1)
        matrix = effective_mixing(model, block - 1)
        for kind in kinds:
            title = f"Which token adds to which, block {block}"
            drawn[f"mixing-{block}.{kind}"] = mixing_matrix(matrix, title, kind)
    return drawn | {f"structure.{kind}": structure_chart(found, kind) for kind in kinds}


def _influence(model: "MlpMixer", given: Visualize, pictures: dict[str, bytes]) -> dict[str, Any]:
    """Draw into `pictures` how much each patch of the image matters; what the model says of it."""
    import torch

    from mixerkit.data.augment import normalise
    from mixerkit.data.decode import fit, read
    from mixerkit.insight.unit_figures import influence_picture
    from mixerkit.insight.units import influence

    preprocess = model.preprocess
    if preprocess is None or not model.config.num_classes:
        raise UserError("This model names no classes, so that no patch matters for one.")
    pixels_IHW = read(Path(given.image), preprocess, fit)
    image_IHW = normalise(torch.from_numpy(pixels_IHW[None].copy()), preprocess)[0]
    with torch.inference_mode():
        p_K = model(image_IHW[None])[0].softmax(dim=0)
    label = int(p_K.argmax())
    name = preprocess.class_names[label] if preprocess.class_names else str(label)
    falls = influence(model, image_IHW, label)
    for kind in ("png", "svg") if given.svg else ("png",):
        title = f"what matters for {name}"
        pictures[f"influence.{kind}"] = influence_picture(pixels_IHW, falls, title, kind)
    return {
        "image": given.image,
        "class": name,
        "probability": float(p_K[label]),
        "influence": falls.tolist(),
    }


def as_text(blocks: "list[Structure]") -> str:
    """The figures of every block."""
    head = ("block", "local", "with an opposite", "shuffled", "smoothness", "lowest band", "noise")
    rows = [head]
    for one in blocks:
        rows.append(
            (
                str(one.block + 1),
                percent(one.local, 1),
                percent(one.partners, 1),
                percent(one.partners_shuffled, 1),
                f"{one.smoothness:.2f}",
                percent(one.energy[0], 1),
                percent(one.energy_of_noise[0], 1),
            )
        )
    return table(rows)
