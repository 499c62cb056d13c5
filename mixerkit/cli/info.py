"""`mixer info`: the walk of shapes through a model, with parameters and cost at every step.

A variant label needs no PyTorch: everything here is the closed form of `model/cost.py`.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from mixerkit.cli.arguments import (
    WITHOUT_PREFIX,
    Flag,
    Word,
    leading_word,
    parse,
    shown_as,
    wants_help,
)
from mixerkit.cli.text import short, size, table
from mixerkit.errors import EXIT_DONE, UserError
from mixerkit.model.cost import Cost, Part, cost
from mixerkit.spec.mixer import MixerConfig, is_variant, variant, variant_of
from mixerkit.spec.zoo import published

EXAMPLES = """\
  mixer info B/16
  mixer info B/16 --image-size 448 --num-classes 10
  mixer info article --json
  mixer info runs/fashion-demo
"""

SWITCHES = ("--json",)


@dataclass(frozen=True)
class Info:
    """The walk of shapes through MODEL, with parameters and multiply-adds (MACs) of every step.

    MODEL is a run folder or one of its checkpoints (RUN@newest, RUN@best, RUN@STEP), a model
    folder, file of weights, zoo:NAME, or a variant (S/32, S/16, B/32,
    B/16, L/32, L/16, H/14, article, or any patch side that divides the image), whose settings can
    be changed.
    """

    config: Annotated[MixerConfig, WITHOUT_PREFIX]
    model: Annotated[Word, shown_as("MODEL")]
    """Run folder, model folder, zoo:NAME or variant."""
    batch_size: int = 1
    """Images at once, for the memory that training needs."""
    json: Flag = False
    """Print JSON; `macs` are those of one image."""


def main(words: list[str]) -> int:
    """Run `mixer info` with `words`."""
    name = leading_word(words, SWITCHES)
    if not name and not wants_help(words):
        raise UserError(
            "Which model? It comes first: `mixer info MODEL [options]`, such as `mixer info B/16`."
        )
    stored, about = _stored(name) if name and not wants_help(words) else (None, {})
    default = Info(stored or variant(name or "B/16"), name)
    given = parse(Info, words, command="info", examples=EXAMPLES, default=default)
    if stored and given.config != stored:
        raise UserError(
            f"{name} has stored weights, so its settings cannot be changed here; give a variant "
            f"such as {variant_of(stored)} to try others."
        )
    if given.batch_size < 1:
        raise UserError(f"--batch-size must be at least 1, found {given.batch_size}.")
    print(_as_json(given, about) if given.json else _as_text(given, about))
    return EXIT_DONE


def _stored(source: str) -> tuple[MixerConfig | None, dict[str, Any]]:
    """Configuration and origin of saved weights; (None, {}) for a variant label."""
    if is_variant(source) and not Path(source).exists():
        return None, {}
    known = published(source)
    if known:  # nothing is fetched to say what a published model is
        config = variant(known.variant, num_classes=known.num_classes, gelu=known.gelu)
        return config, {"trained_on": known.trained_on, "top1_imagenet": known.top1}
    from mixerkit.checkpoint.find import find

    found = find(source)
    return (found.config, found.about | {"notes": list(found.notes)}) if found else (None, {})


def _as_json(given: Info, about: dict[str, Any]) -> str:
    priced = cost(given.config)
    content = {
        "model": given.model,
        "variant": variant_of(given.config),
        "parameters": priced.parameters,
        "macs": priced.macs,
        "activation_bytes": priced.activation_bytes(given.batch_size),
        "batch_size": given.batch_size,
        "config": asdict(given.config),
        "parts": [asdict(part) for part in priced.parts],
    }
    return json.dumps(content | ({"about": about} if about else {}), indent=2, ensure_ascii=False)


def _as_text(given: Info, about: dict[str, Any]) -> str:
    config, priced = given.config, cost(given.config)
    label = variant_of(config)
    title = given.model if label in (given.model, "custom") else f"{given.model}: {label}"
    memory = size(priced.activation_bytes(given.batch_size))
    images = "1 image" if given.batch_size == 1 else f"{given.batch_size} images"
    lines = [title, "", table(walk(config, priced), left=2), ""]
    lines += [
        f"  {priced.parameters:,} parameters ({size(4 * priced.parameters)} as float32)",
        f"  {short(priced.macs)} MACs for one image",
        f"  {memory} of activations kept to train on {images} (float32)",
    ]
    if about:
        lines += ["", *(f"  {line}" for line in _origin(about))]
    return "\n".join(lines)


def _origin(about: dict[str, Any]) -> list[str]:
    """Where stored weights come from, and how good they are."""
    lines = []
    if "recipe" in about:
        source = about.get("data", {}).get("source", "its data")
        lines.append(f"trained by {about['recipe']} on {source}, {about.get('step', 0):,} steps")
    elif "trained_on" in about:
        lines.append(f"trained on {about['trained_on']}")
    if about.get("top1_imagenet"):
        lines.append(f"ImageNet top-1 {about['top1_imagenet']:.2f} %, as published")
    for split in ("validation", "test"):
        if split in about:
            lines.append(f"{split} accuracy {100 * about[split]['top1']:.2f} %")
    return lines + [f"assumed: {note}" for note in about.get("notes", ())]


def walk(config: MixerConfig, priced: Cost) -> list[tuple[str, str, str, str]]:
    """(step, shape, parameters, MACs): what happens to an image, equal blocks folded into one."""
    height, width = config.image_hw
    (down, across), (patch_h, patch_w) = config.grid, config.patch_hw
    values = config.in_channels * patch_h * patch_w
    rows = [
        ("", "shape", "parameters", "MACs"),
        ("image", _shape(config.in_channels, height, width), "", ""),
        (
            f"cut into {down} × {across} patches of {patch_h} × {patch_w} px{_tiles(config)}",
            _shape(config.num_patches, values),
            "",
            "",
        ),
    ]
    first, last = _index(priced, "block 1 "), _index(priced, "last norm")
    each = (last - first) // config.depth
    rows += [_row(part, _says(config, part)) for part in priced.parts[:first]]
    block = priced.parts[first : first + each]
    rows.append(_sum_row(f"{config.depth} × block, together", priced.parts[first:last]))
    rows += [_row(part, "  " + _says(config, part)) for part in block if _present(config, part)]
    rows += [
        _row(part, _says(config, part)) for part in priced.parts[last:] if _present(config, part)
    ]
    return rows


def _tiles(config: MixerConfig) -> str:
    """What is said of shared tiles, where there are any."""
    (down, across), each = config.tiles_hw, config.tile_patches
    return "" if down * across == 1 else f", {down} × {across} tiles of {each} mixed apart"


def _index(priced: Cost, start: str) -> int:
    return next(i for i, part in enumerate(priced.parts) if part.name.startswith(start))


def _present(config: MixerConfig, part: Part) -> bool:
    return config.norm or "norm" not in part.name


def _shape(*sides: int) -> str:
    return f"[B, {', '.join(map(str, sides))}]"


def _row(part: Part, name: str) -> tuple[str, str, str, str]:
    parameters = f"{part.parameters:,}" if part.parameters else ""
    return name, _shape(*part.output), parameters, short(part.macs) if part.macs else ""


def _sum_row(name: str, parts: tuple[Part, ...]) -> tuple[str, str, str, str]:
    parameters, macs = sum(p.parameters for p in parts), sum(p.macs for p in parts)
    return name, _shape(*parts[-1].output), f"{parameters:,}", short(macs)


def _says(config: MixerConfig, part: Part) -> str:
    """The part's name without its block, and what its matrices do."""
    S, C, K = config.tile_patches, config.width, config.num_classes
    name = part.name.removeprefix("block 1 ")
    tokens = f"{S} → {config.token_width} → {S}"
    channels = f"{C} → {config.channel_width} → {C}"
    maps_of_tokens = {"mlp": tokens, "linear": f"{S} → {S}"}
    maps = {
        "patch embedding": "one linear map for all patches",
        "token mixing": maps_of_tokens.get(config.token_mixer, config.token_mixer),
        "channel mixing": f"{C} → {C}" if config.channel_mixer == "linear" else channels,
        "head": f"{C} → {K}",
    }
    skip = ", added to its input" if name.endswith("mixing") else ""
    return f"{name} {maps[name]}{skip}" if name in maps else name
