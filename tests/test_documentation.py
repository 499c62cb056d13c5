"""The site of docs/ builds without a warning, and what is on it leads somewhere."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import mixerkit
from mixerkit.cli.main import COMMANDS
from tests.pages import help_of

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    options = ["-W", "--keep-going", "-n", "-q", "-d", str(folder / "doctrees")]
    words = [sys.executable, "-m", "sphinx", *options, "docs", str(folder / "html")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder / "html"


class Page(HTMLParser):
    """What a page links, what can be linked in it, and the text that readers see."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {"", "top"}
        self.text: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        for name, value in attributes:
            if name in ("href", "src") and value is not None:
                self.links.append(value)
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")

    def handle_endtag(self, tag: str) -> None:
        """Called where one ends."""
        self.text.append("\n" if tag in ("dt", "dd", "p", "pre") else "")

    def handle_data(self, data: str) -> None:
        """Called for each piece of text."""
        self.text.append(data)


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    """Every page of the site."""
    return {path: Page(path) for path in sorted(site.rglob("*.html"))}


def dead(link: str, path: Path, pages: dict[Path, Page]) -> bool:
    """Whether a link on the page `path` leads nowhere. Other hosts are not asked."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return False
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    anchor = unquote(parts.fragment)
    return not target.is_file() or (target in pages and anchor not in pages[target].anchors)


def test_every_link_leads_somewhere(pages: dict[Path, Page], site: Path) -> None:
    links = {(path, link) for path, page in pages.items() for link in page.links}
    assert len(links) > 500
    assert [
        (str(path.relative_to(site)), one) for path, one in links if dead(one, path, pages)
    ] == []


def test_dead_links_are_seen(tmp_path: Path) -> None:
    here, there = tmp_path / "here.html", tmp_path / "there.html"
    here.write_text('<a href="there.html#part">x</a>')
    there.write_text('<h1 id="part">x</h1>')
    known = {here: Page(here), there: Page(there)}
    assert known[here].links == ["there.html#part"]
    for link in ("there.html", "there.html#part", "", "#", "https://example.com/gone"):
        assert not dead(link, here, known)
    for link in ("gone.html", "there.html#gone", "#part", "gone/"):
        assert dead(link, here, known)


def test_everything_public_is_described_and_nothing_else(
    pages: dict[Path, Page], site: Path
) -> None:
    anchors = pages[site / "reference" / "python.html"].anchors
    names = {one.split(".")[1] for one in anchors if one.startswith("mixerkit.")}
    described = {name for name in names if f"mixerkit.{name}" in anchors}
    assert names == described == set(mixerkit.__all__)


def test_every_option_of_every_command_is_described(pages: dict[Path, Page], site: Path) -> None:
    text = "".join(pages[site / "reference" / "commands.html"].text)
    for command in [*COMMANDS, "evaluate --protocol fewshot", "evaluate --protocol robustness"]:
        _, found, after = text.partition(f"mixer {command}¶")
        assert found, command
        section = after.partition("mixer ")[2]  # its line of usage, and on
        listed = set(re.findall(r"^  (--[a-z][\w.-]*)", help_of(*command.split()), re.MULTILINE))
        described = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*", section))
        assert listed - described == set(), command


def test_markers_are_not_to_be_seen(pages: dict[Path, Page], site: Path) -> None:
    of_docs = [path for path in pages if "files" not in path.relative_to(site).parts]
    for path in of_docs:
        assert "<!-- r" not in path.read_text(encoding="utf-8"), path.name
        assert "results: " not in "".join(pages[path].text), path.name


def test_every_page_can_be_reached(pages: dict[Path, Page], site: Path) -> None:
    linked = {(site / "index.html").resolve()} | {
        (site / unquote(urlsplit(link).path)).resolve() for link in pages[site / "index.html"].links
    }
    written = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert [
        one for one in written if (site / one.with_suffix(".html")).resolve() not in linked
    ] == []


def test_the_japanese_readme_is_a_page(pages: dict[Path, Page], site: Path) -> None:
    shown = "".join(pages[site / "ja.html"].text)
    text = (ROOT / "README.ja.md").read_text(encoding="utf-8")
    titles = re.findall(r"^##+ (.+)$", text, re.MULTILINE)
    assert titles and [one for one in titles if f"{one}¶" not in shown] == []
    assert {"index.html", "article.html"} <= set(pages[site / "ja.html"].links)
