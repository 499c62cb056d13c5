"""On the site, the page `ja` is README.ja.md, with its links as they are seen from docs/."""

import re
from pathlib import Path

from sphinx.application import Sphinx

NAME = "ja"
FILE = Path(__file__).resolve().parent.parent.parent / "README.ja.md"
LINK = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")


def seen_from_docs(page: str) -> str:
    """A page of the root, with links that lead to the same from docs/; README.md is the index."""

    def moved(link: re.Match[str]) -> str:
        target = link[1].replace("README.md", "docs/index.md")
        away = target.removeprefix("docs/") if target.startswith("docs/") else f"../{target}"
        return f"]({away})"

    return LINK.sub(moved, page)


def put(app: Sphinx, name: str, source: list[str]) -> None:
    """What Sphinx reads of a page."""
    if name == NAME:
        app.env.note_dependency(FILE)
        source[0] = seen_from_docs(FILE.read_text(encoding="utf-8"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.connect("source-read", put)
    return {"parallel_read_safe": True}
