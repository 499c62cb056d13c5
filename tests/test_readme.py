"""README and docs hold: their blocks run (`pages.py`), and their numbers stand in `results/`
(`quoted.py`)."""

import json
import re
from pathlib import Path

import pytest

from mixerkit.results import read_results
from tests import pages, quoted
from tests.faults.program import all_faults
from tests.pages import NAMES as PAGES, page
from tests.tables import filled, without_tables

ROOT = Path(__file__).parent.parent
SLOW = ("README.md", "docs/tutorial.md", "docs/reliability.md")  # each trains a model
UNRUN = list(pages.unrun())


@pytest.fixture
def as_a_reader(tmp_path, monkeypatch):
    """An empty folder, without a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    monkeypatch.setenv("MIXERKIT_DATA", str(pages.SAMPLES))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.slow] * (one in SLOW)) for one in PAGES]
)
def test_blocks_run_and_print_what_the_page_says(name, as_a_reader):
    Path("examples").symlink_to(ROOT / "examples")
    pages.run(page(name), name)


@pytest.mark.parametrize(
    "block, command", [(block, command) for block, command, _ in UNRUN if command],
    ids=[f"{block.place}: {why}" for block, command, why in UNRUN if command],
)  # fmt: skip
def test_options_of_commands_that_are_not_run_exist(block, command):
    assert pages.unknown_options(block.as_run(command)) == [], f"{block.place}: {command}"


@pytest.mark.parametrize("name", PAGES)
def test_options_of_commands_in_sentences_exist(name):
    commands = re.findall(r"`(mixer [^`\n]+)`", page(name).replace("\\|", "|"))
    assert [(one, bad) for one in commands if (bad := pages.unknown_options(one))] == []


@pytest.mark.parametrize("name", PAGES)
def test_quoted_numbers_stand_in_results(name):
    quoted.check(page(name), ROOT / "results")


@pytest.mark.parametrize("name", ["README.md", "README.ja.md"])
def test_the_readme_measures_nothing_by_itself(name):
    assert quoted.unmarked(without_tables(page(name))) == []


@pytest.mark.parametrize("name", PAGES)
def test_no_marker_begins_a_line(name):
    assert quoted.at_the_start(page(name)) == []


def test_the_japanese_readme_has_the_commands_of_the_other():
    english, japanese = (
        {
            one
            for block in pages.blocks(page(name), name)
            if block.language in pages.SHELL
            for one in block.commands()
        }
        for name in ("README.md", "README.ja.md")
    )
    assert japanese - english == set()


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
        ("正解率は91.5 %で、158秒、2.1 倍、10分の1", ["91.5 %", "158秒", "2.1 倍"]),
    ],
)
def test_unmarked_measurements_are_found(text, found):
    assert quoted.unmarked(text) == found


def test_a_marker_that_begins_a_line_is_found():
    marker = "<!-- results: speed.json rows[0].ratio .2f -->"
    assert quoted.at_the_start(f"takes {marker}1.05\n| {marker}1.05 |\n") == []
    assert quoted.at_the_start(f"takes\n  {marker}1.05\n") == [marker]


# How blocks are run, on pages made for it.


def test_a_block_that_prints_something_else_fails():
    page_of_one = "```python\nprint(1 + 1)\n```\n```text\n{}\n```\n"
    assert pages.run(page_of_one.format(2), "page") == 1
    with pytest.raises(AssertionError, match="page, line 1"):
        pages.run(page_of_one.format(3), "page")
    with pytest.raises(ZeroDivisionError):
        pages.run("```python\n1 / 0\n```\n", "page")


def test_a_command_that_fails_fails(as_a_reader):
    assert pages.run("```sh\nmixer info B/16  # a comment\n```\n", "page") == 1
    with pytest.raises(AssertionError, match=r"page, line 1: mixer info B/15 ended with 2"):
        pages.run("```sh\nmixer info B/15\n```\n", "page")
    with pytest.raises(AssertionError, match=r"page, line 3: exit 3 ended with 3"):
        pages.run("\n\n```sh\ntrue\nexit 3\n```\n", "page")


MARKED = """\
<!-- run: file note.txt -->
```text
hello
```

Words.

<!-- run: NOTE is note.txt -->
<!-- run: cat with there.txt -->
<!-- run: not launch, needs a rocket -->
```sh
cp NOTE there.txt && \\
    true
cat NOTE > both.txt
launch --now
```

<!-- run: no, takes years -->
```python
1 / 0
```
"""


def test_marks_change_what_is_run(as_a_reader):
    assert pages.run(MARKED, "page") == 1
    assert Path("there.txt").read_text() == "hello\n"
    _, shell, python = pages.blocks(MARKED, "page")
    assert shell.reason_against("launch --now") == "needs a rocket"
    assert (python.why_not, python.line) == ("takes years", 19)
    with pytest.raises(ValueError, match="page, line 2: nobody knows"):
        pages.blocks("<!-- run: slowly -->\n```sh\ntrue\n```\n", "page")


@pytest.mark.parametrize(
    "command, unknown",
    [
        ("mixer train x --data.source my-photos --dry-run", []),
        ("mixer train x --data.sauce my-photos --dryrun", ["--data.sauce", "--dryrun"]),
        ("torchrun --nproc-per-node 2 -m mixerkit train x --foo=1", ["--foo"]),
        ("mixer evaluate m --protocol fewshot --shots 5", []),
        ("mixer evaluate m --shots 5", ["--shots"]),
        ("mixer fly", ["fly"]),
        ("ls --all", []),
    ],
)
def test_unknown_options_are_found(command, unknown):
    assert pages.unknown_options(command) == unknown
