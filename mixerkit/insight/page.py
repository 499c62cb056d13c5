"""The pieces of a report page: one self-contained HTML file, for phones and dark rooms too.

Arguments are plain text and are escaped here; what these functions return is HTML, and only
arguments named `html` or `blocks` take HTML. The page's policy forbids scripts and every
outside address, so that even a mistake in escaping could not load or run anything.
"""

import base64
import html as markup
from collections.abc import Sequence
from dataclasses import dataclass
from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$body
</main>
</body>
</html>
""")

STYLE = """
:root { --ink: #1f2328; --quiet: #5b6470; --rule: #dfe3e8; --page: #f6f7f9; --card: #fff;
  --accent: #2563c9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --quiet: #9aa4b2; --rule: #2e3642; --page: #12161c; --card: #1a2029;
    --accent: #7fabf5; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 20px 64px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 52px 0 4px; }
p { margin: 8px 0 16px; max-width: 72ch; color: var(--quiet); }
.lead { font-size: 17px; margin: 6px 0 24px; }
.notice { border-left: 4px solid var(--accent); padding: 10px 14px; background: var(--card);
  color: var(--ink); border-radius: 4px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(46%, 220px), 1fr));
  gap: 12px; margin: 0; }
.tiles div { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 14px 16px; }
.tiles dt { color: var(--quiet); font-size: 13px; }
.tiles dd { margin: 0; font-variant-numeric: tabular-nums; }
.tiles .value { font-size: 25px; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.tiles div:first-child .value { color: var(--accent); }
.tiles .note { color: var(--quiet); font-size: 12.5px; line-height: 1.35; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; margin: 0;
  padding: 12px 16px; overflow-x: auto; font: 13.5px/1.5 ui-monospace, Menlo, Consolas, monospace; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 310px), 1fr));
  gap: 14px; align-items: start; }
figure { margin: 0 0 14px; background: #fff; color: #1f2328; border: 1px solid var(--rule);
  border-radius: 10px; padding: 12px; overflow-x: auto; }
.figures figure { margin: 0; min-width: 0; height: 100%; }
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; }
figure.large img { width: 100%; min-width: 480px; max-width: 1000px; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(118px, 1fr)); gap: 10px; }
.gallery figure { margin: 0; padding: 8px; overflow: hidden; }
.gallery img { width: 100%; aspect-ratio: 1; object-fit: contain; image-rendering: pixelated; }
.gallery figcaption { font-size: 12.5px; line-height: 1.35; margin-top: 6px;
  overflow-wrap: anywhere; }
.gallery b { display: block; }
.gallery span { color: #5b6470; }
.figures + .scroll { margin-top: 14px; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--rule);
  border-radius: 10px; padding: 4px 16px; }
table { border-collapse: collapse; width: 100%; font-size: 14.5px;
  font-variant-numeric: tabular-nums; }
th { color: var(--quiet); font-weight: 500; font-size: 13px; }
th, td { text-align: right; padding: 7px 0 7px 18px; border-top: 1px solid var(--rule); }
tr:first-child th { border-top: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; overflow-wrap: anywhere; }
.words td, .words th { text-align: left; }
.words td:first-child { color: var(--quiet); white-space: nowrap; width: 1%; }
details { margin: 12px 0; }
summary { cursor: pointer; margin-bottom: 8px; font-weight: 600; }
@media (max-width: 600px) {
  main { padding: 24px 14px 48px; }
  h1 { font-size: 25px; }
  .tiles .value { font-size: 20px; }
  .tiles div { padding: 11px 12px; }
  .gallery { grid-template-columns: repeat(3, 1fr); gap: 8px; }
}
footer { margin-top: 56px; color: var(--quiet); font-size: 13px; }
"""


@dataclass(frozen=True)
class Tile:
    """One headline figure: `note` says in a few words what it means."""

    label: str
    value: str
    note: str = ""


def escape(value: object) -> str:
    """Text as HTML, safe in an attribute too."""
    return markup.escape(str(value))


def page(title: str, *blocks: str) -> str:
    """The whole file."""
    return PAGE.substitute(title=escape(title), style=STYLE, body="\n".join(blocks))


def heading(title: str, lead: str) -> str:
    """The page's title and the line below it."""
    return f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>'


def notice(words: str) -> str:
    """A sentence that the reader must not miss."""
    return f'<p class="notice">{escape(words)}</p>'


def section(title: str, words: str, *blocks: str) -> str:
    """A titled part of the page with a paragraph below the title."""
    paragraph = f"<p>{escape(words)}</p>" if words else ""
    return "\n".join(["<section>", f"<h2>{escape(title)}</h2>", paragraph, *blocks, "</section>"])


def tiles(items: Sequence[Tile]) -> str:
    """Headline figures side by side."""
    cells = (
        f'<div><dt>{escape(tile.label)}</dt><dd class="value">{escape(tile.value)}</dd>'
        f'<dd class="note">{escape(tile.note)}</dd></div>'
        for tile in items
    )
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def command(line: str) -> str:
    """Something to type."""
    return f"<pre><code>{escape(line)}</code></pre>"


def picture(png: bytes, alt: str, large: bool = False) -> str:
    """A figure on a white card, embedded; `large` ones take the page's width."""
    width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # of its IHDR
    kind = ' class="large"' if large else ""
    return (
        f'<figure{kind}><img src="{png_uri(png)}" alt="{escape(alt)}" '
        f'width="{width // 2}" height="{height // 2}"></figure>'
    )


def png_uri(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def side_by_side(*blocks: str) -> str:
    """Figures in columns where the screen is wide enough."""
    return f'<div class="figures">{"".join(blocks)}</div>'


def gallery(items: Sequence[tuple[bytes, str, str, str]]) -> str:
    """Small images with three lines each: (png, first line, second line, third line)."""
    cells = (
        f'<figure><img src="{png_uri(png)}" alt="{escape(first)} {escape(second)}">'
        f"<figcaption><b>{escape(first)}</b>{escape(second)}<br><span>{escape(third)}</span>"
        f"</figcaption></figure>"
        for png, first, second, third in items
    )
    return f'<div class="gallery">{"".join(cells)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of names and figures."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def word_table(rows: Sequence[tuple[str, str]]) -> str:
    """A table of names and texts."""
    body = "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows)
    return f'<div class="scroll words"><table>{body}</table></div>'


def details(summary: str, html: str, is_open: bool = False) -> str:
    """A part that the reader unfolds."""
    flag = " open" if is_open else ""
    return f"<details{flag}><summary>{escape(summary)}</summary>{html}</details>"


def footer(words: str) -> str:
    """The last line."""
    return f"<footer>{escape(words)}</footer>"
