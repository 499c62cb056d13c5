"""Tables, numbers, times and sizes, as people read them."""

from collections.abc import Sequence

LONGEST_LINE = 1_000
"""Characters; what a person types or a file holds may be longer, and is repeated in messages."""


def table(rows: Sequence[Sequence[str]], left: int = 1, indent: str = "  ") -> str:
    """Rows of texts in columns: the first `left` columns flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append((indent + "  ".join(cells)).rstrip())
    return "\n".join(lines)


def pairs(rows: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Names and what they are, in two columns flush left."""
    return table(rows, left=2, indent=indent)


def short(number: float) -> str:
    """12602000000 → "12.60 G"; below 1000 as it is."""
    for unit, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number:.0f}"


def percent(share: float, digits: int = 2) -> str:
    """0.9152 → "91.52 %"."""
    return f"{100 * share:.{digits}f} %"


def clock(seconds: float) -> str:
    """75 → "1:15", 3700 → "1:01:40"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Bytes as "12.3 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def model_title(name: str, step: int | None) -> str:
    """A model's name, and the step that a name such as RUN@best stands for."""
    return f"{name} (step {step:,})" if "@" in name and step is not None else name


def plural(count: int, noun: str) -> str:
    """1 image, 2 images, 3 classes."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{'' if count == 1 else ending}"


def readable(message: str) -> str:
    """`message` as it may go to a terminal: what cannot be printed, or hides or moves what is
    around it, is written as its escape, and lines of many pages lose their middle."""
    shown = "".join(c if c.isprintable() or c in "\n\t" else _escape(c) for c in message)
    return "\n".join(map(_cut, shown.split("\n")))


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _cut(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"
