import json
from pathlib import Path
from typing import get_args

import pytest

from mixerkit import results
from mixerkit.benchmark import inference
from mixerkit.cli.bench import OF_A_MODEL, STUDIES, Study
from mixerkit.study import int8, time_to_accuracy


@pytest.fixture
def studied(monkeypatch):
    """Studies that measure nothing; which were called, with what."""
    calls = []

    def study(path, say, quick, **options):
        say("measuring")
        calls.append((str(path), options))
        return [{"path": str(path), "quick": quick}]

    for module in (time_to_accuracy, inference, int8):
        monkeypatch.setattr(module, "study", study)
    return calls


@pytest.mark.parametrize(
    ("words", "out"),
    [
        ([], "results/time-to-accuracy.json"),
        (["--quick"], "results/time-to-accuracy-quick.json"),
        (["--quick", "--out", "a.json"], "a.json"),
    ],
)
def test_a_study_gets_its_file_and_its_rows_are_printed(mixer, studied, words, out):
    code, printed, err = mixer("bench", "time-to-accuracy", "--json", *words)
    assert code == 0 and printed.count("\n") == 1
    assert json.loads(printed) == [{"path": out, "quick": "--quick" in words}]
    assert err == f"measuring\nwritten: {Path(out)}\n"


@pytest.mark.parametrize(
    ("words", "out", "model"),
    [
        ("inference", "inference", "B/16"),
        ("inference --model B/16", "inference", "B/16"),
        ("inference --model S/16", "inference-S-16", "S/16"),
        ("inference --quick", "inference-quick", "zoo:fashion-demo"),
        ("inference --quick --model B/16", "inference-B-16-quick", "B/16"),
        ("inference --model zoo:fashion-demo", "inference-zoo-fashion-demo", "zoo:fashion-demo"),
        ("int8", "int8", "zoo:fashion-best"),
        ("int8 --model ../runs/mine@best", "int8-runs-mine-best", "../runs/mine@best"),
    ],
)
def test_another_model_has_a_file_of_its_own(mixer, studied, words, out, model):
    assert mixer("bench", *words.split())[0] == 0
    assert studied == [(f"results/{out}.json", {"model": model})]


def test_the_models_of_the_studies_are_theirs():
    assert OF_A_MODEL["int8"] == (int8.MODEL, int8.MODEL)


def test_a_model_for_a_study_of_none_is_refused(mixer, studied):
    code, _, err = mixer("bench", "time-to-accuracy", "--model", "S/16")
    assert code == 2 and "--model is for inference and int8" in err and not studied


@pytest.mark.parametrize(
    ("out", "said"),
    [
        (".", "is a folder"),
        ("folder", "is a folder: give a file in it, such as folder/bench.json"),
        ("nowhere/a.json", "The folder nowhere to write a.json into does not exist"),
        ("file/a.json", "The folder file to write a.json into is a file"),
        ("/dev/null", "is no file that can be replaced"),
        ("/proc/a.json", "cannot be written"),
        (f"{300 * 'a'}.json", "cannot be written"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    mixer, studied, here, out, said
):
    (here / "folder").mkdir()
    (here / "file").touch()
    code, _, err = mixer("bench", "inference", "--out", out)
    assert code == 2 and said in err and err.count("\n") == 1 and not studied
    assert sorted(path.name for path in here.iterdir()) == ["file", "folder"]


def test_a_folder_without_permission_is_refused(mixer, studied, here, monkeypatch):
    def refuse(**_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("mixerkit.checkpoint.files.tempfile.TemporaryFile", refuse)
    code, _, err = mixer("bench", "inference", "--out", "a.json")
    assert code == 2 and "a.json cannot be written: Permission denied" in err and not studied


def test_a_file_that_is_there_is_said_to_be_replaced(mixer, studied, here):
    (here / "a.json").write_text("{}")
    code, printed, _ = mixer("bench", "inference", "--out", "a.json")
    first, second, *_ = printed.splitlines()
    assert code == 0 and second == "measuring"
    assert first == "a.json is there already: what is measured now takes its place."


def test_a_file_names_the_commit_at_which_measuring_began(mixer, here, monkeypatch):
    commits = iter(["before", "after"])
    monkeypatch.setattr(results, "describe_commit", lambda: next(commits))

    def study(path, say, quick):
        results.write_results(path, name="a", command="b", settings={}, rows=[{"seconds": 1}])
        return []

    monkeypatch.setattr(time_to_accuracy, "study", study)
    assert mixer("bench", "time-to-accuracy")[0] == 0
    (file,) = (here / "results").iterdir()
    assert results.read_results(file)["commit"] == "before"


def test_the_help_has_a_line_for_every_study(mixer):
    code, printed, _ = mixer("bench", "--help")
    _, _, listed = printed.partition("Studies:\n")
    assert code == 0 and [line.split()[0] for line in listed.splitlines()] == list(STUDIES)
    assert get_args(Study) == tuple(STUDIES)
