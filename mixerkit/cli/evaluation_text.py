"""What `mixer evaluate` found, as text for a terminal."""

from typing import Any

from mixerkit.cli.text import percent, plural, table

Content = dict[str, Any]
MOST_CONFUSED = 5
MOST_CLASSES, WORST = 40, 10
"""Classes of which each is shown, and how many of more are."""
LEFT_OUT_SHOWN = 5


def as_text(content: Content, title: str) -> str:
    """All figures, classes, and what was left out."""
    parts = [heading(title, content), table(_figures(content))]
    if content["published"]:
        parts.append(_published(content["published"]))
    parts.append(_classes([one for one in content["per_class"] if one["samples"]]))
    confused = _most_confused(content)
    if confused:
        parts.append("Most often confused\n" + table(confused, left=2))
    if content["unreadable"]:
        rows = content["unreadable"]
        parts.append(left_out(rows, plural(content["samples"] + len(rows), "image")))
    return "\n\n".join(parts)


def heading(title: str, content: Content) -> str:
    """What was measured on which images, and where these were found unless their name says it."""
    data, origin = content["data"], content["origin"]
    where = "" if f"{data} ".startswith(f"{origin} ") else f"\n{origin}"
    return f"{title} on {data}{where}"


def _figures(content: Content) -> list[tuple[str, str]]:
    speed = content["speed"]
    rows = [
        ("images", f"{content['samples']:,}"),
        ("top-1", with_interval(content)),
        ("top-5", percent(content["top5"])),
        ("negative log-likelihood", f"{content['nll']:.4f}"),
        ("calibration error", percent(content["ece"])),
        ("images per second", f"{speed['images_per_second']:,.0f}"),
        ("waiting for images", percent(speed["waiting"], 1)),
    ]
    if real := content.get("real"):
        without = f", {real['left_out']:,} without a label" if real["left_out"] else ""
        found = (f"ReaL top-1 ({real['samples']:,} images{without})", with_interval(real))
        rows.insert(3, found)
    with_images = sum(c["samples"] > 0 for c in content["per_class"])
    if with_images < (classes := len(content["per_class"])):
        rows.insert(1, ("classes with images", f"{with_images:,} of {classes:,} that it knows"))
    return rows


def with_interval(found: Content) -> str:
    """Top-1 and its interval."""
    low, high = found["top1_interval"]
    return f"{percent(found['top1'])} ({100 * low:.2f} to {100 * high:.2f})"


def _published(published: Content) -> str:
    """Beside what was published of the same weights."""
    verdict = {True: "agrees", False: "differs", None: ""}
    rows = [("", "here", "published", "difference", "")]
    rows += [
        (
            name, f"{row['here']:.2f} %", f"{row['published']:.2f} %", f"{row['difference']:+.2f}",
            verdict[row["agrees"]],
        )
        for name, row in published["figures"].items()
    ]  # fmt: skip
    why = f"\n  no verdict: {published['incomparable']}" if published["incomparable"] else ""
    return f"published: {published['source']}\n{table(rows)}{why}"


def _classes(per_class: list[Content]) -> str:
    """Every class; of many the worst few, which must not push the other figures away."""
    shown, note = per_class, ""
    if len(per_class) > MOST_CLASSES:
        known = [c for c in per_class if c["recall"] is not None]
        shown = sorted(known, key=lambda c: c["recall"])[:WORST]
        note = f"\n  The {len(shown)} with the lowest recall of {len(per_class):,}; --json has all."
    rows = [("class", "images", "recall", "precision")]
    rows += [
        (c["name"], f"{c['samples']:,}", _share(c["recall"]), _share(c["precision"])) for c in shown
    ]
    return table(rows) + note


def left_out(rows: list[Content], of: str, whose: str = "") -> str:
    """How many were left out, such as `of` "100 images"; the first few by name."""
    lines = [f"  {row['file']}: {row['reason']}" for row in rows[:LEFT_OUT_SHOWN]]
    more = ["  …"] if len(rows) > LEFT_OUT_SHOWN else []
    title = f"Left out: {whose}{len(rows):,} of {of} cannot be used"
    return "\n".join([title, *lines, *more])


def _share(value: float | None) -> str:
    return "–" if value is None else percent(value)


def _most_confused(content: Content) -> list[tuple[str, str, str]]:
    """(true class, "taken for …", how often), the most frequent first."""
    names = [c["name"] for c in content["per_class"]]
    counts = [
        (count, i, j)
        for i, row in enumerate(content["confusion"])
        for j, count in enumerate(row)
        if i != j and count
    ]
    counts.sort(key=lambda item: (-item[0], item[1:]))
    return [
        (names[i], f"taken for {names[j]}", f"{count:,} ×")
        for count, i, j in counts[:MOST_CONFUSED]
    ]
