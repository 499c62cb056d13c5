"""Links from a page to a file of the repository lead to a page that shows it.

On GitHub such a link opens the file; a browser would only save it.
"""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

ROOT = Path(__file__).resolve().parent.parent.parent
TOO_LONG = 200_000  # bytes; colours would make a page of some megabytes


def shown_at(path: str) -> str:
    """The page that shows a file or folder."""
    return f"files/{path}"


class LeadToFiles(SphinxTransform):
    """Replaces what MyST makes of links to files and folders that are no pages."""

    default_priority = 400

    def apply(self, **_: Any) -> None:
        """Called for each page, after it was read."""
        found = [*self.document.findall(addnodes.download_reference)]
        found += [node for node in self.document.findall(addnodes.pending_xref) if _folder(node)]
        for node in found:
            path = self._in_repository(node["reftarget"])
            if path is None:
                continue
            linked(self.app)[path.as_posix()] = None
            up = "../" * self.env.docname.count("/")
            leads = nodes.reference(refuri=f"{up}{shown_at(path.as_posix())}.html", internal=True)
            leads += node.children
            node.replace_self(leads)

    def _in_repository(self, target: str) -> Path | None:
        whole = (Path(self.env.doc2path(self.env.docname)).parent / target).resolve()
        inside = whole.exists() and whole.is_relative_to(ROOT)
        return whole.relative_to(ROOT) if inside else None


def _folder(node: addnodes.pending_xref) -> bool:
    return node.get("reftype") == "myst" and node["reftarget"].endswith("/")


def linked(app: Sphinx) -> dict[str, None]:
    """The files that pages have linked, in order; kept between builds with all that was read."""
    if not hasattr(app.env, "mixerkit_files"):
        app.env.mixerkit_files = {}  # type: ignore[attr-defined]
    return app.env.mixerkit_files  # type: ignore[attr-defined,no-any-return]


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """A page for each of them; a folder is a list, whose files have pages as well."""
    paths = [ROOT / name for name in linked(app)]
    inside = [file for folder in paths if folder.is_dir() for file in listed(folder)]
    for path in dict.fromkeys(paths + inside):
        name = path.relative_to(ROOT).as_posix()
        body = folder_as_html(path) if path.is_dir() else file_as_html(path)
        title = escape(name)
        context = {"title": title, "body": f"<h1><code>{title}</code></h1>\n{body}"}
        yield shown_at(name), context, "page.html"


def listed(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file()]


def folder_as_html(folder: Path) -> str:
    """Links to its files."""
    names = [escape(path.name) for path in listed(folder)]
    lines = [f'<li><a href="{folder.name}/{name}.html">{name}</a></li>' for name in names]
    return f"<ul>{''.join(lines)}</ul>"


def file_as_html(path: Path) -> str:
    """Its text, in colours where there is a lexer for it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return f"<p>{path.stat().st_size:,} bytes that are no text.</p>"
    if len(text) > TOO_LONG:
        return f"<div class='highlight'><pre>{escape(text)}</pre></div>"
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = get_lexer_for_filename("plain.txt")
    return str(highlight(text, lexer, HtmlFormatter()))


def setup(app: Sphinx) -> dict[str, bool]:
    """Sphinx calls this."""
    app.add_transform(LeadToFiles)
    app.connect("html-collect-pages", pages)
    return {"parallel_read_safe": False}
