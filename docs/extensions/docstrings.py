"""Docstrings as pages: code that stands further in, and dataclasses by their fields."""

from dataclasses import is_dataclass

from sphinx.application import Sphinx


def mark_code(lines: list[str]) -> list[str]:
    """The lines with "::" before a block that stands four spaces further in: for Markdown it is
    code as it is."""
    found: list[str] = []
    inside = False
    for line in lines:
        indented = line.startswith("    ")
        if indented and not inside and (not found or not found[-1].strip()):
            found += ["::", ""]
        inside = indented or (inside and not line.strip())
        found.append(line)
    return found


def on_docstring(
    _app: Sphinx, _what: str, _name: str, _thing: object, _options: object, lines: list[str]
) -> None:
    """What autodoc makes of a docstring."""
    lines[:] = mark_code(lines)


def on_signature(
    _app: Sphinx, what: str, _name: str, thing: object, *_: object
) -> tuple[str, str] | None:
    """A dataclass is shown without its call: its fields are listed below."""
    return ("", "") if what == "class" and is_dataclass(thing) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", on_docstring)
    app.connect("autodoc-process-signature", on_signature)
    return {"parallel_read_safe": True}
