"""`mixer visualize`: the paper's pictures of a model's weights, and what they say in numbers."""

import json
import shlex
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
  mixer visualize runs/mine --beside resnet50.pth --results mine.json
"""

Drawn = dict[str, bytes]
"""File name → picture."""


@dataclass(frozen=True)
class Visualize:
    """Draw what SOURCE has learned, into a folder, and put numbers to it.

    figure-5.png, figure-6.png, figure-7.png: as in the paper, the token-mixing units of the first
    three blocks, all units of the first two, and the patch embedding's filters. mixing-N.png: which
    token adds to which in block N. structure.png: the numbers over depth; numbers.json: all.

    The table: units that act on a few patches nearby (local) or on the whole image (wide), units
    that have one of opposite phase, how alike neighbouring weights are (smoothness, 1 at most), and
    the median spatial frequency in cycles per patch (of filters, per pixel).
    """

    source: Annotated[Word, shown_as("SOURCE")]
    """Run folder, checkpoint, model folder, file of weights, hf://ORG/NAME or zoo:NAME."""
    out: Annotated[str, shown_as("FOLDER")] = "pictures"
    """Folder for the pictures; files of the same names are replaced."""
    blocks: tuple[int, ...] = ()
    """Blocks that are drawn, from 1 (if not given, as in the paper); the numbers are of all."""
    beside: Annotated[str, shown_as("CNN")] = ""
    """A trained CNN, or another Mixer: its first filters are drawn beside SOURCE's, into
    filters-beside.png. A file of weights (safetensors, .pth), a folder of timm's,
    hf://ORG/NAME, zoo:NAME, or a run of `mixer study` that trained one of timm's models."""
    image: Annotated[str, shown_as("FILE")] = ""
    """An image: also draw how much each of its patches matters for what the model says of it, into
    influence.png."""
    results: Annotated[str, shown_as("PATH")] = ""
    """Also write the numbers as a results file, a row for the filters and each block."""
    svg: Flag = False
    """Charts as SVG besides (pictures of weights are exact squares of pixels, as PNG)."""
    json: Flag = False
    """Print the numbers as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer visualize` with `words`."""
    given = parse(Visualize, words, command="visualize", examples=EXAMPLES)
    from mixerkit.checkpoint.load import load
    from mixerkit.insight.canvas import HOW_TO_DRAW, can_draw

    if not can_draw():
        raise UserError(f"There can be no pictures: {HOW_TO_DRAW}")
    model = load(given.source)
    _check_blocks(model, given.blocks)
    parts, pictures = _filters(model, given)
    found, drawn = _token_mixing(model, given)
    parts, pictures = parts | found, pictures | drawn
    told = _influence(model, given, pictures) if given.image else {}
    of = {"beside": given.beside}
    rows = [
        {"source": of.get(part, given.source), "part": part} | asdict(one)
        for part, one in parts.items()
    ]
    numbers = {"source": given.source, "rows": rows, **told}
    _write(Path(given.out), pictures, numbers)
    if given.results:
        _publish(model, given, words, rows)
    _tell(given, parts, numbers, len(pictures))
    return EXIT_DONE


def _check_blocks(model: "MlpMixer", blocks: tuple[int, ...]) -> None:
    for block in blocks:
        if not 1 <= block <= model.config.depth:
            raise UserError(f"The model has blocks 1 to {model.config.depth}, found {block}.")


def _filters(model: "MlpMixer", given: Visualize) -> "tuple[dict[str, Structure], Drawn]":
    """What sees the pixels: numbers by part, and pictures; also of a CNN."""
    from mixerkit.checkpoint.first_convolution import first_convolution
    from mixerkit.insight.paper_figures import figure_7, filters_beside
    from mixerkit.insight.units import structure_of
    from mixerkit.insight.weights import stem_weight

    parts = {"filters": structure_of(stem_weight(model))}
    drawn = {"figure-7.png": figure_7(model)}
    if given.beside:
        found = first_convolution(given.beside)
        print(f"beside: {found.name} of {given.beside}. {found.note}".rstrip(), file=sys.stderr)
        parts["beside"] = structure_of(found.weight)
        drawn["filters-beside.png"] = filters_beside(
            model, given.source, found.weight, given.beside, found.name
        )
    return parts, drawn


def _token_mixing(model: "MlpMixer", given: Visualize) -> "tuple[dict[str, Structure], Drawn]":
    """Numbers of every block, and pictures of those that are drawn, and of all in one chart."""
    from mixerkit.insight.paper_figures import figure_5, figure_6
    from mixerkit.insight.unit_figures import mixing_matrix, structure_chart
    from mixerkit.insight.units import effective_mixing, structure
    from mixerkit.insight.weights import has_token_weights

    if not has_token_weights(model):
        print(f"note: the units of {model.config.token_mixer} cannot be drawn", file=sys.stderr)
        return {}, {}
    every = range(model.config.depth)
    shown = [block - 1 for block in given.blocks]
    found = [structure(model, block) for block in every]
    drawn = {
        "figure-5.png": figure_5(model, shown or every[:3]),
        "figure-6.png": figure_6(model, shown or every[:2]),
    }
    for kind in ("png", "svg") if given.svg else ("png",):
        for block in shown or every[:3]:
            title = f"Which token adds to which, block {block + 1}"
            matrix = effective_mixing(model, block)
            drawn[f"mixing-{block + 1}.{kind}"] = mixing_matrix(matrix, title, kind)
        drawn[f"structure.{kind}"] = structure_chart(found, kind)
    return {f"block {block + 1}": found[block] for block in every}, drawn


def _influence(model: "MlpMixer", given: Visualize, pictures: Drawn) -> dict[str, Any]:
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


def _write(out: Path, pictures: Drawn, numbers: dict[str, Any]) -> None:
    """Everything into its folder, at the end: a failure before leaves no half of it."""
    out.mkdir(parents=True, exist_ok=True)
    for name, content in pictures.items():
        (out / name).write_bytes(content)
    (out / "numbers.json").write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def _publish(
    model: "MlpMixer", given: Visualize, words: list[str], rows: list[dict[str, Any]]
) -> None:
    """The results file."""
    from mixerkit.insight.units import LOCAL, OPPOSITE, WIDE
    from mixerkit.results import write_results
    from mixerkit.spec.strict import to_dict

    write_results(
        given.results,
        name="visualize",
        command=shlex.join(["mixer", "visualize", *words]),
        settings={
            "source": given.source,
            "beside": given.beside,
            "model": to_dict(model.config),
            "local_below": LOCAL,
            "wide_above": WIDE,
            "opposite_below": OPPOSITE,
        },
        rows=rows,
    )


def _tell(
    given: Visualize, parts: "dict[str, Structure]", numbers: dict[str, Any], pictures: int
) -> None:
    console: Any = sys.stderr if given.json else sys.stdout
    if given.json:
        print(json.dumps(numbers, indent=2))
    else:
        print(as_text(parts) + "\n")
    if given.image:
        says = f"{numbers['class']}, {percent(numbers['probability'], 1)}"
        print(f"{given.image}: {says}", file=console)
    print(f"{plural(pictures, 'picture')} and numbers.json in {given.out}", file=console)
    if given.results:
        print(f"written: {given.results}", file=console)


def as_text(parts: "dict[str, Structure]") -> str:
    """The figures of the filters and of every block; in brackets those of what has no structure."""
    head = ("", "", "local %", "wide %", "opposite %", "smoothness", "frequency")
    rows = [head]
    for part, one in parts.items():
        rows.append(
            (
                part,
                f"{one.count:,} of {one.height}×{one.width}",
                _against(100 * one.local, 100 * one.local_shuffled, 0),
                _against(100 * one.wide, 100 * one.wide_shuffled, 0),
                _against(100 * one.partners, 100 * one.partners_shuffled, 0),
                _against(one.smoothness, one.smoothness_shuffled, 2),
                _against(one.frequency, one.frequency_of_noise, 2),
            )
        )
    about = "In brackets: the same weights shuffled, or for the frequency white noise."
    return f"{table(rows, left=2)}\n  {about}"


def _against(found: float, by_chance: float, digits: int) -> str:
    return f"{found:.{digits}f} ({by_chance:.{digits}f})"
