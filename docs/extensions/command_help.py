"""`{command-help}`: a section for each command, made of what its `--help` prints when the page is
built."""

import re
from typing import get_args, get_type_hints

from docutils import nodes
from help_text import Group, printed, taken_apart
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from mixerkit.cli import evaluate
from mixerkit.cli.main import COMMANDS


def with_helps() -> dict[str, str]:
    """Every command line that has a help of its own, and what it does."""
    found = {}
    for name, what in COMMANDS.items():
        found[name] = what
        if name == "evaluate":
            protocols = get_args(get_type_hints(evaluate.Evaluate)["protocol"])
            found |= {f"evaluate --protocol {one}": "" for one in protocols if one != "top1"}
        if name == "study":
            found["study claims"] = ""
    return found


class CommandHelp(SphinxDirective):
    """The directive."""

    def run(self) -> list[nodes.Node]:
        """All sections."""
        return [section(words, what) for words, what in with_helps().items()]


def section(words: str, what: str) -> nodes.section:
    """One command."""
    title = f"mixer {words}"
    made = nodes.section(ids=[nodes.make_id(title)], names=[title])
    made += nodes.title(title, "", nodes.literal(title, title))
    if what:
        made += nodes.paragraph("", "", nodes.strong("", f"{what[0].upper()}{what[1:]}."))
    found = taken_apart(printed(words))
    made += [paragraph(text) for text in found.lead]
    made += block(found.usage, "none")
    for group in found.groups:
        made += options(group)
    if found.examples:
        made += [nodes.rubric("", "Examples"), block(found.examples, "sh")]
    return made


def options(group: Group) -> list[nodes.Node]:
    """A title and a list."""
    listed = nodes.definition_list(classes=["options"])
    for option, does in group.options.items():
        item = nodes.definition_list_item()
        item += nodes.term("", "", nodes.literal(option, option))
        item += nodes.definition("", paragraph(does))
        listed += item
    about = [paragraph(group.about)] if group.about else []
    return [nodes.rubric("", group.title.capitalize()), *about, listed]


def paragraph(text: str) -> nodes.paragraph:
    """A paragraph in which `names` are code."""
    made = nodes.paragraph()
    for i, part in enumerate(re.split(r"`([^`]+)`", text)):
        made += nodes.literal(part, part) if i % 2 else nodes.Text(part)
    return made


def block(text: str, language: str) -> nodes.literal_block:
    """Lines as they are."""
    return nodes.literal_block(text, text, language=language)


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True}
