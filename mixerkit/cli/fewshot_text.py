"""What `mixer evaluate --protocol fewshot` found, as text for a terminal."""

from typing import TYPE_CHECKING, Any

from mixerkit.cli.evaluation_text import heading, left_out
from mixerkit.cli.text import model_title, pairs, percent, plural, table

if TYPE_CHECKING:
    from mixerkit.evaluation.fewshot import FewShot


def as_text(about: dict[str, Any], found: "FewShot", kept: int, computed: int) -> str:
    """All figures; `kept` and `computed` count the images whose features came from where."""
    model = model_title(about["model"], about["step"])
    sources = [("from the cache", kept), ("computed now", computed)]
    figures = [
        ("images measured", f"{found.samples:,}"),
        ("shots from", about["shots_from"]),
        ("classes", f"{found.classes:,}"),
        ("chance", percent(found.chance)),
        ("features", ", ".join(f"{count:,} {how}" for how, count in sources if count)),
    ]
    parts = [
        heading(f"{model}: few-shot", about),
        pairs(figures),
        table(_rows(found)),
        "95 % interval: of the mean over the draws of the shots, by Student's t, cut off at 0 and "
        "100 %. The paper's headline is 5 shots.",
        *_without_interval(found),
    ]
    if about["unreadable"]:
        parts.append(left_out(about["unreadable"], plural(about["looked_at"], "image")))
    return "\n\n".join(parts)


def _rows(found: "FewShot") -> list[tuple[str, ...]]:
    """For each number of shots the mean, its interval, and what each seed gave."""
    seeds = sorted({probe.seed for probe in found.probes})
    head = ("shots", "mean", "95 % interval", *(f"seed {seed}" for seed in seeds))
    rows: list[tuple[str, ...]] = [head]
    for one in found.averages:
        ends = [] if one.interval is None else [f"{100 * end:.2f}" for end in one.interval]
        each = [percent(p.accuracy) for p in found.probes if p.shots == one.shots]
        rows.append((str(one.shots), percent(one.mean), " to ".join(ends) or "–", *each))
    return rows


def _without_interval(found: "FewShot") -> list[str]:
    """Why there is a – in the place of an interval, where there is one."""
    return [
        f"– for {plural(one.shots, 'shot')}: {one.no_interval}."
        for one in found.averages
        if one.no_interval
    ]
