"""Numbers in a text that come from `results/`, and the ones that should.

A measured number carries a marker, an HTML comment that readers do not see, right before it:

    <!-- results: demo.json rows[0].test_accuracy .1% -->91.6 %
    <!-- results: speed.json rows[model=B/16,batch=8].images_per_second ,.0f -->1,234 images/s

The marker names a file in `results/`, a value in it and a Python format; formatting the value
must give the text that follows (spaces, also a space before the %, are not compared). Rows are
chosen by position or by the fields that single one out. A number measured by somebody else
carries its source instead:

    <!-- source: paper, table 3 -->76.44 %

Where `unmarked` looks (the README, in both languages), a number that reads like a measurement,
that is with a unit or a percent or times sign behind it, must carry one of the two; code does not
count. No marker begins a line: CommonMark takes such a line for HTML, and splits the paragraph.
"""

import json
import re
from pathlib import Path
from typing import Any

RESULT = re.compile(r"<!-- results: (\S+) (.+) (\S+) -->([^\n]*)")
MARKER = re.compile(r"<!-- (?:results|source): .*? -->[\s*]*[\d.,\u202f ]*\d")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`|\]\([^)\n]*\)", re.DOTALL | re.MULTILINE)
UNIT = r"%|×(?! ?\d)|percent|points?|[mµ]?s|sec|seconds?|minutes?|hours?|images/s|img/s|[GMk]i?B"
JAPANESE_UNIT = r"[%％倍秒]|ポイント|分(?!の)|時間|枚/秒"
MEASURED = re.compile(
    rf"(?<![A-Za-z0-9_.,])\d[\d.,]*[ \u202f\u00a0]?(?:(?:{UNIT})(?![A-Za-z0-9_/])|{JAPANESE_UNIT})"
)


class MisquotedError(AssertionError):
    """A quoted number is not what its results file holds."""


def value_at(content: Any, path: str) -> Any:
    """The value at `rows[0].name`, `rows[model=B/16,batch=8].name` or `settings.name`."""
    steps = re.findall(r"\[([^\]]+)\]|([^.\[\]]+)", path)
    for index, name in steps:
        if name:
            content = content[name]
        elif index.isdigit():
            content = content[int(index)]
        else:
            content = only_row(content, dict(part.split("=", 1) for part in index.split(",")))
    return content


def only_row(rows: list[dict[str, Any]], wanted: dict[str, str]) -> dict[str, Any]:
    """The one row whose fields, as text, are `wanted`."""
    fits = [row for row in rows if all(str(row.get(key)) == text for key, text in wanted.items())]
    if len(fits) != 1:
        raise MisquotedError(f"{len(fits)} rows have {wanted}; a quoted number needs exactly one.")
    return fits[0]


def at_the_start(text: str) -> list[str]:
    """Markers that begin a line."""
    return re.findall(r"^[ >]*(<!-- (?:results|source): .*? -->)", text, re.MULTILINE)


def without_spaces(text: str) -> str:
    return re.sub(r"\s", "", text)


def check(text: str, folder: Path) -> int:
    """Compare every marked number in `text` with `folder`; how many there were."""
    # A marker sits before its number, so the text between two markers belongs to the first.
    marked = RESULT.findall(text.replace("<!--", "\n<!--"))
    for file, path, form, after in marked:
        try:
            value = value_at(json.loads((folder / file).read_text(encoding="utf-8")), path)
            expected = format(value, form)
        except (OSError, KeyError, IndexError, TypeError, ValueError) as error:
            raise MisquotedError(f"{file} {path} {form}: {error!r}") from error
        found = without_spaces(after).replace("*", "")
        rest = found.removeprefix(without_spaces(expected))
        if not found.startswith(without_spaces(expected)) or re.match(r"[.,]?\d", rest):
            raise MisquotedError(
                f"{file} {path} is {expected}, the text says {after.strip()[:40]!r}."
            )
    if len(marked) != text.count("<!-- results:"):
        raise MisquotedError("A marker reads <!-- results: FILE PATH FORMAT -->.")
    return len(marked)


def unmarked(text: str) -> list[str]:
    """Numbers that read like measurements and say neither where they stand nor who says so."""
    prose = MARKER.sub("", CODE.sub("", text))
    return [found.group().strip() for found in MEASURED.finditer(prose)]
