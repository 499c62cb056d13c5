"""`mixer zoo`: the published models, what they were really trained on, and fetching them."""

import json
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import tyro

from mixerkit.cli.arguments import Flag, Word, parse, shown_as
from mixerkit.cli.text import pairs, table
from mixerkit.errors import EXIT_DONE, UserError, unknown
from mixerkit.spec.zoo import PUBLISHED, SAME_AS, Published

EXAMPLES = """\
  mixer zoo
  mixer zoo show b16-imagenet1k-google
  mixer zoo fetch b16-imagenet1k-google
  mixer predict cat.jpg --model zoo:b16-imagenet1k-google
"""


ACTIONS = ("list", "show", "fetch")


@dataclass(frozen=True)
class Zoo:
    """List the published models (`list`), `show` one, or `fetch` one into the cache.

    Every command that takes a model takes zoo:NAME, and fetches it on first use. MIXERKIT_OFFLINE=1
    forbids the network; MIXERKIT_ZOO names a mirror of the authors' files.
    """

    action: tyro.conf.Positional[Literal["list", "show", "fetch"]] = "list"
    """`list`, or `show` or `fetch` followed by a name."""
    name: Annotated[Word, shown_as("[NAME]")] = ""
    """A model of the list, with or without zoo: before it."""
    json: Flag = False
    """Print JSON."""


def main(words: list[str]) -> int:
    """Run `mixer zoo` with `words`."""
    if words and not words[0].startswith("-") and words[0] not in ACTIONS:
        words = ["show", *words]  # `mixer zoo NAME`
    given = parse(Zoo, words, command="zoo", examples=EXAMPLES)
    name = given.name.removeprefix("zoo:")
    if given.action == "list":
        if name:
            raise UserError(f"`list` takes no name, found '{name}': say `show` instead.")
        rows = [_facts(model) for model in PUBLISHED.values()]
        print(json.dumps(rows, indent=2) if given.json else _table())
        return EXIT_DONE
    if not name:
        raise UserError(f"Which model? `mixer zoo {given.action} NAME`: {', '.join(PUBLISHED)}.")
    if name not in PUBLISHED:
        raise unknown("published model", name, PUBLISHED)
    if given.action == "fetch":
        from mixerkit.checkpoint.zoo import fetch_published

        path = fetch_published(PUBLISHED[name])
        print(json.dumps({"name": name, "path": str(path)}) if given.json else path)
        return EXIT_DONE
    facts = _facts(PUBLISHED[name])
    print(json.dumps(facts, indent=2) if given.json else pairs(_sentences(PUBLISHED[name])))
    return EXIT_DONE


def _facts(model: Published) -> dict[str, Any]:
    aliases = [alias for alias, name in SAME_AS.items() if name == model.name]
    return asdict(model) | {"address": model.address, "cached": _is_cached(model), "timm": aliases}


def _is_cached(model: Published) -> bool:
    """Whether the authors' file is here already; the hub's library keeps its own."""
    from mixerkit.checkpoint.zoo import cached

    return cached(model).is_file()


def _table() -> str:
    rows = [("name", "model", "trained on", "classes", "MiB", "top-1", "ReaL", "here")]
    for model in PUBLISHED.values():
        rows.append(
            (
                model.name,
                model.variant,
                model.trained_on,
                str(model.num_classes),
                f"{model.mebibytes:.2f}" if model.mebibytes else "",
                "" if model.top1 is None else f"{model.top1:.2f}",
                "" if model.real is None else f"{model.real:.2f}",
                "yes" if _is_cached(model) else "",
            )
        )
    return table(rows, left=3)


def _sentences(model: Published) -> list[tuple[str, str]]:
    height, width = model.preprocess.image_hw
    low, high = ((v - model.preprocess.mean[0]) / model.preprocess.std[0] for v in (0, 1))
    rows = [
        ("name", f"zoo:{model.name}"),
        ("model", model.variant),
        ("trained on", model.trained_on),
        ("classes", f"{model.num_classes:,}"),
        ("images", f"{height} × {width} px, values in [{low:g}, {high:g}], short side to "
                   f"{model.preprocess.resize_to} px, {model.preprocess.interpolation}"),
        ("GELU", model.gelu),
        ("file", model.address),
    ]  # fmt: skip
    if model.mebibytes:
        rows.append(("size", f"{model.mebibytes:.2f} MiB"))
    if model.top1 is not None:
        real = f", ReaL {model.real:.2f} %" if model.real is not None else ""
        rows.append(("ImageNet", f"top-1 {model.top1:.2f} %{real} ({model.source})"))
    if model.note:
        rows.append(("note", model.note))
    rows += [("same as", f"hf://{alias}") for alias, name in SAME_AS.items() if name == model.name]
    return rows
