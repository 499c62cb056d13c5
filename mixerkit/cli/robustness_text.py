"""What `mixer evaluate --protocol robustness` found, as text for a terminal."""

from collections.abc import Callable, Sequence
from typing import Any

from mixerkit.cli.evaluation_text import heading, left_out, with_interval
from mixerkit.cli.text import model_title, pairs, percent, plural, table

Row = dict[str, Any]

CORRUPTIONS: dict[str, tuple[str, str]] = {
    "blur": ("gaussian blur, σ in px", "{:.2f}"),
    "noise": ("gaussian noise, σ", "{:.2f}"),
    "jpeg": ("JPEG, quality", "{:.0f}"),
}
"""Kind → what its strength is, and how that is written."""
WAYS = {"resample": "resampled", "shared": "in tiles"}


def as_text(content: dict[str, Any]) -> str:
    """A table for each of the three that was measured, of top-1 and the points lost."""
    rows: list[Row] = content["rows"]
    model = model_title(content["model"], content["step"])
    figures = [
        ("images", f"{content['images']:,} of {content['split_images']:,}"),
        ("top-1, clean", with_interval(rows[0])),
    ]
    parts = [heading(model, content), pairs(figures)]
    parts += _corruptions(rows) + _shuffled(content) + _sizes(rows)
    widest = max(row["drop_half_width"] or 0 for row in rows)
    parts.append(
        f"lost: points of top-1 below the clean images; half of its 95 % interval is at most "
        f"{100 * widest:.2f}."
    )
    if content["unreadable"]:
        looked_at = content["images"] + len(content["unreadable"])
        parts.append(left_out(content["unreadable"], plural(looked_at, "image")))
    return "\n\n".join(parts)


def _corruptions(rows: Sequence[Row]) -> list[str]:
    """Kinds down, severities across, and their mean."""
    lines: list[tuple[str, ...]] = []
    for kind, (title, form) in CORRUPTIONS.items():
        own = [row for row in rows if row["kind"] == kind]
        if own:
            lines.append((title, *(form.format(row["strength"]) for row in own), ""))
            lines += [_across("  top-1 %", own, "top1"), _across("  lost", own, "drop")]
    head = ("severity", "1", "2", "3", "4", "5", "mean")
    return [table([head, *lines])] if lines else []


def _across(title: str, rows: Sequence[Row], name: str) -> tuple[str, ...]:
    """A figure of every row in points, and the mean."""
    values = [100 * row[name] for row in rows]
    return (title, *map(points, [*values, sum(values) / len(values)]))


def points(value: float) -> str:
    """Two digits, without a minus before 0."""
    return f"{value:.2f}".replace("-0.00", "0.00").replace("-", "−")


def _shuffled(content: dict[str, Any]) -> list[str]:
    own = [row for row in content["rows"] if row["kind"] == "shuffle"]
    if not own:
        return []
    height, width = content["patch_size"]
    title = f"patches of {height} × {width} px moved, of {content['patches']:,}"

    def what(row: Row) -> tuple[str, ...]:
        return (f"{row['moved']:,}",)

    return [_down((title,), own, what)]


def _sizes(rows: Sequence[Row]) -> list[str]:
    own = [row for row in rows if row["kind"] == "size"]
    if not own:
        return []

    def what(row: Row) -> tuple[str, ...]:
        height, width = row["image_size"]
        return (f"{height} × {width}", WAYS[row["enlargement"]], percent(row["enlarged"], 0))

    height, width = rows[0]["image_size"]
    note = f"  The model's own size is {height} × {width}, "
    note += f"to which {percent(rows[0]['enlarged'], 0)} of the images are enlarged."
    return [_down(("image size, px", "token mixing", "images enlarged"), own, what) + "\n" + note]


def _down(
    head: tuple[str, ...], rows: Sequence[Row], what: Callable[[Row], tuple[str, ...]]
) -> str:
    """A line for each row: `what` it is, top-1, and the points lost."""
    lines = [(*what(row), points(100 * row["top1"]), points(100 * row["drop"])) for row in rows]
    return table([(*head, "top-1 %", "lost"), *lines])
