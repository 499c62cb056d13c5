"""`mixer zoo`: the models behind zoo:NAME, what they were really trained on, and fetching them."""

import json
from collections.abc import Iterable
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
LEGEND = """\
  top-1, ReaL: accuracy on ImageNet in per cent, as published (packaged models: on their own test)
  here: in the package or fetched already, so that no network is needed (hf:// is not looked up)"""


@dataclass(frozen=True)
class Zoo:
    """List packaged and published models (`list`), `show` one, or `fetch` one into the cache.

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
    name, known = given.name.removeprefix("zoo:"), _known()
    if given.action == "list":
        if name:
            raise UserError(f"`list` takes no name, found '{name}': say `show` instead.")
        rows = [_facts(model) for model in known.values()]
        print(json.dumps(rows, indent=2) if given.json else _listed(known.values()))
        return EXIT_DONE
    if not name:
        raise UserError(f"Which model? `mixer zoo {given.action} NAME`: {', '.join(known)}.")
    if name not in known:
        raise unknown("published model", name, known)
    if given.action == "fetch":
        from mixerkit.checkpoint.zoo import fetch_published

        path = fetch_published(known[name])
        print(json.dumps({"name": name, "path": str(path)}) if given.json else path)
        return EXIT_DONE
    facts = _facts(known[name])
    print(json.dumps(facts, indent=2) if given.json else pairs(_sentences(known[name])))
    return EXIT_DONE


def _known() -> dict[str, Published]:
    """Every model that `zoo:NAME` can name, the packaged ones first."""
    from mixerkit.checkpoint.zoo import described, packaged

    return {name: described(name) for name in packaged()} | PUBLISHED


def _facts(model: Published) -> dict[str, Any]:
    aliases = [alias for alias, name in SAME_AS.items() if name == model.name]
    return asdict(model) | {"address": model.address, "cached": _is_here(model), "timm": aliases}


def _is_here(model: Published) -> bool:
    """Whether the file is in the package or the cache; the hub's library keeps its own."""
    from mixerkit.checkpoint.zoo import cached, packaged

    return model.name in packaged() or cached(model).is_file()


def _listed(models: Iterable[Published]) -> str:
    rows = [("name", "model", "trained on", "classes", "MiB", "top-1", "ReaL", "here")]
    for model in models:
        rows.append(
            (
                model.name,
                model.variant,
                model.trained_on,
                str(model.num_classes),
                f"{model.mebibytes:.2f}" if model.mebibytes else "",
                "" if model.top1 is None else f"{model.top1:.2f}",
                "" if model.real is None else f"{model.real:.2f}",
                "yes" if _is_here(model) else "",
            )
        )
    return f"{table(rows, left=3)}\n\n{LEGEND}"


def _sentences(model: Published) -> list[tuple[str, str]]:
    height, width = model.preprocess.image_hw
    low, high = ((v - model.preprocess.mean[0]) / model.preprocess.std[0] for v in (0, 1))
    rows = [
        ("name", f"zoo:{model.name}"),
        ("model", model.variant),
        ("trained on", model.trained_on),
        ("classes", f"{model.num_classes:,}"),
        ("images", f"{height} × {width} px, values in [{low:.3g}, {high:.3g}], short side to "
                   f"{model.preprocess.resize_to or min(height, width)} px, "
                   f"{model.preprocess.interpolation}"),
        ("GELU", model.gelu),
        ("file", model.address),
    ]  # fmt: skip
    if model.mebibytes:
        rows.append(("size", f"{model.mebibytes:.2f} MiB"))
    if model.top1 is not None:
        real = f", ReaL {model.real:.2f} %" if model.real is not None else ""
        where = "accuracy" if model.file.startswith("file:") else "ImageNet"
        rows.append((where, f"top-1 {model.top1:.2f} %{real} ({model.source})"))
    if model.note:
        rows.append(("note", model.note))
    rows += [("same as", f"hf://{alias}") for alias, name in SAME_AS.items() if name == model.name]
    return rows
