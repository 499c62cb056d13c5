"""What `mixer COMMAND --help` prints, taken apart: so that a page can set it as its own."""

import contextlib
import io
import os
import re
from dataclasses import dataclass, field

from mixerkit.cli.main import main

COLUMNS = "129"  # from 130 on, groups of options stand beside one another


@dataclass
class Group:
    """Options under one title: each as it is typed, and what it does."""

    title: str
    about: str = ""
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Help:
    """A command's help: paragraphs, the line of usage, options, command lines to try."""

    lead: list[str]
    usage: str
    groups: list[Group]
    examples: str


def printed(words: str) -> str:
    """What `mixer WORDS --help` prints."""
    stream = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(stream):
            code = main([*words.split(), "--help"])
    finally:
        os.environ.pop("COLUMNS")
        os.environ.update({} if before is None else {"COLUMNS": before})
    if code:
        raise ValueError(f"mixer {words} --help ends with {code}.")
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def taken_apart(text: str) -> Help:
    """The parts of a help. What every command has, --help, is left out."""
    lead, _, rest = text.partition("\nusage: ")
    usage, _, rest = rest.partition("\n\n")
    options, _, examples = rest.partition("\nExamples:\n")
    groups: list[Group] = []
    for title, body in re.findall(r"^ (\S.*)\n -+\n((?:  .*\n|\n)*)", f"{options}\n", re.MULTILINE):
        groups.append(_group(title, body))
    paragraphs = [" ".join(part.split()) for part in lead.split("\n\n")]
    shown = "\n".join(line.removeprefix("  ") for line in examples.splitlines())
    return Help(paragraphs, " ".join(usage.split()), groups, shown)


def _group(title: str, body: str) -> Group:
    about, line, rest = body.partition("\n  -----")
    found = Group(title, " ".join(about.split()) if line else "")
    lines = rest.partition("\n")[2] if line else body
    option = ""
    for one in filter(str.strip, lines.splitlines()):
        if re.match(r"  \S", one) and not _open(option):
            option, _, does = one.strip().partition("  ")
        elif re.match(r"  \S", one):  # choices that filled the line
            before = found.options.pop(option)
            option, _, does = f"{option}{one.strip()}".partition("  ")
            does = f"{before} {does}"
        else:
            does = one
        if option != "-h, --help":
            found.options[option] = " ".join(f"{found.options.get(option, '')} {does}".split())
    return found


def _open(option: str) -> bool:
    """Whether a list of choices has not ended."""
    return option.count("{") > option.count("}")
