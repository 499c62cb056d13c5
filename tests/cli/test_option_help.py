"""Every `--help` at 80 columns: paragraphs are wrapped once, and values are what can be typed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated, Literal, get_args, get_type_hints

import pytest

from mixerkit.cli.arguments import WITHOUT_PREFIX, Flag, parse, shown_as
from mixerkit.cli.evaluate import Evaluate
from mixerkit.cli.main import COMMANDS

WIDTH = 80
PROTOCOLS = get_args(get_type_hints(Evaluate)["protocol"])
HELPS = [*COMMANDS, *(f"evaluate --protocol {one}" for one in PROTOCOLS), "study claims"]


@dataclass(frozen=True)
class Inner:
    """First line of the group, which the source breaks
    "here", before a mark.

    Second paragraph."""

    method: Literal["area", "pinv"] | None = None


@dataclass(frozen=True)
class Silent:
    size: int | tuple[int, int] = 8


@dataclass(frozen=True)
class Outer:
    """What is done."""

    inner: Inner = field(default_factory=Inner)
    silent: Silent = field(default_factory=Silent)
    settings: Annotated[Silent, WITHOUT_PREFIX] = field(default_factory=Silent)
    count: int | None = None
    """One line that the source
    breaks.

    Another paragraph, which the source
    breaks too."""
    one_or_two: int | tuple[int, int] | None = None
    several: Annotated[tuple[int, ...] | None, shown_as("INT [INT ...]")] = None
    """With a mark of its own."""
    preset: int | None = 3
    quick: Flag = False


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of the help of `Outer`."""
    with pytest.raises(SystemExit):
        parse(Outer, ["--help"], command="do", examples="")
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_lines_of_the_source_are_joined_and_paragraphs_kept(shown):
    text = "\n".join(shown)
    assert "One line that the source breaks.\n\nAnother paragraph, which the source breaks" in text
    assert (
        'First line of the group, which the source breaks "here", before a mark.\n\nSecond' in text
    )
    assert not any(line.startswith("Silent(") for line in shown)  # Python's words for no docstring


def test_values_are_shown_as_typed(shown):
    options = {line.split()[0]: line for line in shown if line.startswith("--")}
    assert options["--count"].startswith("--count INT ")
    assert options["--inner.method"].startswith("--inner.method {area,pinv}")
    assert options["--several"].split("  ")[0] == "--several INT [INT ...]"
    for size in ("--one-or-two", "--silent.size", "--size"):
        assert options[size].split("  ")[0] == f"{size} INT | INT INT"
    text = "\n".join(shown)
    assert text.count("(default: 8)") == 2 and text.count("(default: 3)") == 1
    assert "None" not in text and "(required)" not in text


def test_what_is_parsed_is_the_same():
    given = parse(Outer, ["--count", "None", "--one-or-two", "3", "4"], command="do", examples="")
    assert given == Outer(one_or_two=(3, 4))


@pytest.mark.parametrize("words", HELPS)
def test_no_help_offers_none(mixer, words):
    code, out, _ = mixer(*words.split(), "--help")
    assert code == 0 and "{None" not in out and "(default: None)" not in out


@pytest.mark.parametrize("words", HELPS)
def test_no_line_of_any_help_ends_early(mixer, words):
    _, out, _ = mixer(*words.split(), "--help")
    found = [*of_lead(out), *of_boxes(out)]
    assert any(len(paragraph) > 1 for _, paragraph in found)
    for width, paragraph in found:
        for line, following in pairwise(paragraph):
            assert len(f"{line} {following.split()[0]}") > width, f"{line}\n{following}"


def test_what_is_looked_at():
    text = """\
 options
 ------------------
  About these two
  options.
  ------------------
  --a INT  Some text
           of it.
  --long INT
           More.
"""
    assert list(of_boxes(text)) == [
        (WIDTH - 2, ["About these two", "options."]),
        (WIDTH - 2 - len("--a INT  "), ["Some text", "of it."]),
        (WIDTH - 2 - len("--a INT  "), ["More."]),
    ]


Paragraph = tuple[int, list[str]]
"""The width that it has, and its lines."""


def of_lead(text: str) -> Iterator[Paragraph]:
    """What is above the line of usage."""
    for part in text.partition("\nusage: ")[0].strip().split("\n\n"):
        yield WIDTH, part.splitlines()


def of_boxes(text: str) -> Iterator[Paragraph]:
    """What is said of a group of options, above a rule where anything is, and of each option, in a
    column that all groups share."""
    boxes = re.findall(r"^ \S.*\n -+ *\n((?:  .*\n)*)", text, re.MULTILINE)
    inside = [[line[2:].rstrip() for line in box.splitlines()] for box in boxes]
    hanging = [line for lines in inside for line in lines if line.startswith(" ")]
    column = min((len(line) - len(line.lstrip()) for line in hanging), default=WIDTH)
    for lines in inside:
        rule = next((i for i, line in enumerate(lines) if line and set(line) == {"-"}), 0)
        yield from _paragraphs(lines[:rule], 0)
        yield from _paragraphs(lines[rule:], column)


def _paragraphs(lines: list[str], column: int) -> Iterator[Paragraph]:
    """Texts that start at `column`: another one where something stands left of it."""
    found: list[list[str]] = [[]]
    for line in lines:
        left, text = line[:column], line[column:]
        if left.strip() or not text:
            found.append([])
        if text and (not left.strip() or left.endswith("  ")):  # else an option fills the line
            found[-1].append(text)
    yield from ((WIDTH - 2 - column, one) for one in found if one)
