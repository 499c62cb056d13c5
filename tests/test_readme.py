"""README and docs hold: their Python runs, and their numbers stand in `results/`.

Python blocks of a page run in order in one namespace, in a fresh folder with `examples/`
beside them; when a ```text block follows directly, it is what they print. How numbers are
quoted: see `quoted.py`.
"""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from mixerkit.results import read_results
from tests import quoted
from tests.faults.program import all_faults
from tests.tables import filled, without_tables

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n?^```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def run_blocks(text: str, name: str) -> int:
    """Execute the Python blocks of a page and compare what they print; how many there were."""
    namespace: dict[str, object] = {"__name__": name}
    blocks = list(BLOCK.finditer(text))
    for block in blocks:
        line = text.count("\n", 0, block.start()) + 1
        code = compile("\n" * line + block[1], name, "exec")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block[2] is not None:
            assert printed.getvalue().split() == block[2].split(), f"{name}, line {line}"
    return len(blocks)


@pytest.mark.parametrize("name", PAGES)
def test_python_blocks_run_and_print_what_the_page_says(name, tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    count = run_blocks(page(name), name)
    assert count or name not in ("README.md", "docs/article.md")


@pytest.mark.parametrize("name", PAGES)
def test_quoted_numbers_stand_in_results(name):
    quoted.check(page(name), ROOT / "results")


def test_the_readme_measures_nothing_by_itself():
    assert quoted.unmarked(without_tables(page("README.md"))) == []


def test_the_table_of_faults_is_what_make_faults_wrote():
    rows = read_results(ROOT / "results" / "faults.json")["rows"]
    counts = {fault.id: fault.trials for fault in all_faults()}
    assert [row["id"] for row in rows] == list(counts)
    assert not [row["id"] for row in rows if row["short"] or not row["trials"]]
    assert all(row["trials"] == counts[row["id"]] or counts[row["id"]] is None for row in rows)


@pytest.mark.parametrize("name", PAGES)
def test_tables_of_results_are_what_the_results_say(name):
    """`python -m tests.tables` puts them in."""
    assert page(name) == filled(page(name))


@pytest.mark.parametrize("name", PAGES)
def test_links_to_files_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|src=\"([^\"]+)\"", page(name))
    local = [a or b for a, b in links if "://" not in (a or b)]
    missing = [link for link in local if not ((ROOT / name).parent / link).exists()]
    assert missing == []


# The checker itself, on texts made for it.

ROWS = [
    {"model": "B/16", "batch": 1, "ratio": 1.049, "images_per_second": 12.25},
    {"model": "B/16", "batch": 8, "ratio": 1.1, "images_per_second": 1234.5},
]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    content = {"rows": ROWS, "settings": {"threads": 2}, "accuracy": 0.91557}
    (tmp_path / "speed.json").write_text(json.dumps(content))
    return tmp_path


RIGHT = [
    "<!-- results: speed.json rows[0].ratio .2f -->1.05×",
    "a <!-- results: speed.json rows[model=B/16,batch=8].images_per_second ,.0f -->1,234 img/s",
    "| <!-- results: speed.json accuracy .1% -->91.6 % | <!-- results: speed.json rows[1].ratio g"
    " -->**1.1×** |",
    "<!-- results: speed.json settings.threads d --> 2 threads",
]


@pytest.mark.parametrize("text", RIGHT)
def test_right_quotations_pass(text, results):
    assert quoted.check(text, results) == text.count("<!--")
    assert quoted.unmarked(text) == []


WRONG = {
    "<!-- results: speed.json rows[0].ratio .2f -->1.06×": "is 1.05",
    "<!-- results: speed.json rows[0].ratio .1f -->1.05×": "is 1.0,",
    "<!-- results: speed.json rows[1].ratio .1f -->1.1.2": "is 1.1,",
    "<!-- results: speed.json rows[0].ratio .2f -->about 1.05": "is 1.05",
    "<!-- results: gone.json rows[0].ratio .2f -->1.05": "gone.json",
    "<!-- results: speed.json rows[7].ratio .2f -->1.05": "IndexError",
    "<!-- results: speed.json rows[0].speed .2f -->1.05": "KeyError",
    "<!-- results: speed.json rows[model=B/16].ratio .2f -->1.05": "2 rows",
    "<!-- results: speed.json rows[0].ratio -->1.05": "A marker reads",
    "<!-- results: speed.json rows[0].ratio .2f -->\n1.05": "the text says ''",
    "<!-- results: speed.json rows[0].model .2f -->1.05": "ValueError",
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_quotations_fail(text, results):
    with pytest.raises(quoted.MisquotedError, match=re.escape(WRONG[text])):
        quoted.check(text, results)


@pytest.mark.parametrize(
    "text, found",
    [
        ("reaches 91.5 % after 2 minutes", ["91.5 %", "2 minutes"]),
        ("is 2.1× as fast, 1,234 images/s", ["2.1×", "1,234 images/s"]),
        ("(140s)", ["140s"]),
        ("28×28 px, 2 cores, Python 3.11, 59,880,472 parameters, 10 classes, B/16", []),
        ("`sleep 3 s`\n```\n91.5 %\n```\n[x](a/b%20c)", []),
        ("<!-- source: paper, table 3 -->76.44 % there", []),
        ("<!-- source: paper, table 3 -->76.44 % and 76.4 %", ["76.4 %"]),
    ],
)
def test_unmarked_measurements_are_found(text, found):
    assert quoted.unmarked(text) == found


def test_a_block_that_prints_something_else_fails():
    page_of_one = "```python\nprint(1 + 1)\n```\n```text\n{}\n```\n"
    assert run_blocks(page_of_one.format(2), "page") == 1
    with pytest.raises(AssertionError, match="page, line 1"):
        run_blocks(page_of_one.format(3), "page")
    with pytest.raises(ZeroDivisionError):
        run_blocks("```python\n1 / 0\n```\n", "page")
