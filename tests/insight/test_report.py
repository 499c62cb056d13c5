"""The report: one file that needs nothing else, true to the run, safe whatever it contains."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from mixerkit.checkpoint.run import RunFolder
from mixerkit.errors import UserError
from mixerkit.insight.report import write_report
from mixerkit.insight.story import in_minutes, in_thousands
from mixerkit.model.cost import cost
from tests.insight.runs import make_run

CLASSES = ["coat", "<script>alert(1)</script>", '"><img src=x onerror=y>', "bag", "boot", "$hat"]
WEIGHTS = {"filters", "token-units-1", "token-units-2", "token-units-3"}
CURVES = {"loss", "accuracy", "learning-rate"}


class Page(HTMLParser):
    """Every tag with its attributes, every address, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.attributes: set[str] = set()
        self.words = ""
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += f" {data}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("runs") / "first <run>", CLASSES)


@pytest.fixture(scope="module")
def html(finished: RunFolder) -> str:
    path = write_report(finished)
    assert path == finished.path / "report.html"
    return path.read_text(encoding="utf-8")


def test_figures_are_files_too(finished: RunFolder, html: str) -> None:
    names = {path.stem for path in (finished.path / "figures").iterdir()}
    assert names == CURVES | WEIGHTS | {"confusion", "recall", "mistakes"}
    for path in (finished.path / "figures").iterdir():
        assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_one_self_contained_file(html: str) -> None:
    page = Page(html)
    assert page.open == []
    assert len(page.addresses) == 3 + 2 + 4 + 8  # curves, classes, weights, mistakes
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    assert "http" not in re.sub(r"http-equiv|data:image/png;base64,[\w+/=]+", "", html)
    assert "default-src 'none'" in html


def test_names_from_the_run_are_escaped(html: str) -> None:
    page = Page(html)
    assert "<script" not in html
    assert not any(name.startswith("on") for name in page.attributes)
    assert all(name in page.words for name in CLASSES)
    assert "first <run>" in page.words


def test_headline_figures_are_those_of_the_run(finished: RunFolder, html: str) -> None:
    words = Page(html).words.replace("\N{NO-BREAK SPACE}", " ")
    found = finished.evaluation()
    assert found is not None
    figures = found["figures"]
    for text in (
        f"{100 * figures['top1']:.1f} %",
        f"{100 * figures['top5']:.1f} %",
        f"{figures['nll']:.3f}",
        f"{100 * figures['ece']:.1f} %",
        f"{cost(finished.recipe().model).parameters:,}",
        "2 min 41 s",
        "3,120",
        "240 images",
        "torch",
        "label_smoothing: 0.05",
        "mixer train recipe.yaml --out '../first <run>-again'",
    ):
        assert text in words, text
    assert "no evaluation yet" not in words
    assert "Finished." in words


def test_its_own_writer_may_still_hold_the_lock(tmp_path: Path) -> None:
    """Training writes the report at its end: the run is finished, not running."""
    make_run(tmp_path / "run", CLASSES).close()
    with RunFolder.open(tmp_path / "run", writing=True) as run:
        words = Page(write_report(run).read_text(encoding="utf-8")).words
    assert "Finished." in words


def test_a_run_without_evaluation_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CLASSES, finished=False)
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "no evaluation yet" in page.words
    assert "40 steps" in page.words
    assert "Validation accuracy" in page.words
    assert "Stopped before its end." in page.words
    assert len(page.addresses) == len(CURVES)
    assert {path.stem for path in (run.path / "figures").iterdir()} == CURVES


def test_a_run_that_has_only_begun(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CLASSES, finished=False)
    (run.path / "metrics.jsonl").write_text("")
    (run.path / "timing.jsonl").write_text("")
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "nothing logged yet" in page.words
    assert page.addresses == []


def test_linear_token_mixers_have_their_own_words(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CLASSES[:2], token_mixer="linear", depth=1)
    words = Page(write_report(run).read_text(encoding="utf-8")).words
    assert "one patch of the output" in words
    assert "followed by the one most opposite" not in words


def test_writing_again_replaces(finished: RunFolder, html: str) -> None:
    before = sorted(finished.path.rglob("*"))
    assert write_report(finished).read_text(encoding="utf-8") == html
    assert sorted(finished.path.rglob("*")) == before  # nothing temporary is left


def test_a_damaged_model_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", CLASSES)
    weights = run.path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(UserError, match=r"model\.safetensors"):
        write_report(run)
    assert not (run.path / "report.html").exists()


def test_amounts() -> None:
    space = "\N{NO-BREAK SPACE}"
    assert in_thousands(12_602_000_000) == f"12.6{space}G"
    assert in_thousands(8_080_000) == f"8.08{space}M"
    assert in_thousands(640) == "640"
    assert in_minutes(161.4) == f"2{space}min 41{space}s"
    assert in_minutes(4.25) == f"4.25{space}s"
    assert in_minutes(59.9) == f"1{space}min 0{space}s"
    assert in_minutes(7384) == f"2{space}h 3{space}min"


@pytest.mark.parametrize(
    ("file", "key"),
    [("evaluation.json", "per_class"), ("metrics.jsonl", "ece"), ("timing.jsonl", "waiting")],
)
def test_a_figure_that_is_missing_is_named(tmp_path: Path, file: str, key: str) -> None:
    with make_run(tmp_path / "run", CLASSES) as run:
        path = run.path / file
        path.write_text(path.read_text().replace(f'"{key}"', '"other"'))
        (run.path / "model" / "manifest.json").unlink()  # which knows evaluation.json
        with pytest.raises(UserError, match=rf"{file}.*the report needs {key} there"):
            write_report(run)


def test_figures_of_a_finished_run_are_held_against_their_checksum(tmp_path: Path) -> None:
    with make_run(tmp_path / "run", CLASSES) as run:
        path = run.path / "evaluation.json"
        path.write_text(path.read_text().replace('"top1": 0', '"top1": 1', 1))
        with pytest.raises(UserError, match=r"evaluation\.json was changed .* makes it again"):
            write_report(run)
