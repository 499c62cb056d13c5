import os
import signal
import subprocess
import sys

import pytest

from mixerkit.cli import main as main_module
from mixerkit.cli.main import COMMANDS, main
from mixerkit.cli.program import program
from mixerkit.errors import Refused, RunFailed, UserError

SCRIPT = """
import contextlib, io, sys
from mixerkit.cli.main import main
with contextlib.redirect_stdout(io.StringIO()) as out:
    codes = [main(words) for words in {lines}]
print(codes, [len(out.getvalue()) > 500], [m for m in {heavy} if m in sys.modules])
"""


def outcome(lines, heavy, repository):
    script = SCRIPT.format(lines=lines, heavy=heavy)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=repository, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or done.stderr


def test_help_imports_nothing_heavy(repository):
    heavy = ["torch", "numpy", "tyro", "rich", "yaml", "PIL"]
    assert outcome([["--help"], []], heavy, repository) == "[0, 0] [True] []"


def test_help_of_every_command_imports_no_torch(repository):
    lines = [[name, "--help"] for name in COMMANDS]
    found = outcome(lines, ["torch", "numpy"], repository)
    assert found == f"{[0] * len(COMMANDS)} [True] []"


def test_info_of_a_variant_imports_no_torch(repository):
    assert outcome([["info", "B/16"]], ["torch", "numpy"], repository) == "[0] [True] []"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_ends_with_examples(mixer, command):
    code, out, err = mixer(command, "--help")
    assert code == 0 and err == ""
    assert f"usage: mixer {command}" in out and f"\nExamples:\n  mixer {command}" in out
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_command(mixer, words):
    code, out, _ = mixer(*words)
    assert code == 0 and all(f"\n  {name}" in out for name in COMMANDS)


def test_ctrl_c_while_python_ends_says_nothing(repository):
    script = (
        "import atexit, os, signal\nfrom mixerkit.cli.main import run_program\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\nrun_program()"
    )
    words = [sys.executable, "-c", script, "--version"]
    done = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, "")
    assert done.stdout.startswith("mixerkit ")


def test_version(mixer):
    code, out, _ = mixer("--version")
    assert code == 0 and out.startswith("mixerkit ")


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UserError("expected a, found b"), 2, "mixer: error: expected a, found b\n"),
        (RunFailed("the loss became nan"), 1, "mixer: error: the loss became nan\n"),
        (Refused("0.71 is below 0.9"), 3, "mixer: refused: 0.71 is below 0.9\n"),
        (
            OSError(28, "No space left on device", "a/b"),
            1,
            "error: a/b: No space left on device.\n",
        ),
        (KeyboardInterrupt(), 130, "mixer: interrupted.\n"),
    ],
)
def test_errors_become_one_message_and_an_exit_code(monkeypatch, capsys, error, code, text):
    def fail(words):
        raise error

    monkeypatch.setattr(main_module, "_dispatch", fail)
    assert main(["info"]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.endswith(text) and err.count("\n") == 1

    monkeypatch.setenv("MIXERKIT_DEBUG", "1")
    assert main(["info"]) == code
    err = capsys.readouterr().err
    assert err.startswith("Traceback") and err.endswith(text)


def test_suggested_commands_work_from_here(monkeypatch, capsys):
    def fail(words):
        raise UserError("Type `mixer runs` or `mixer info B/16`. mixer alone is a word.")

    monkeypatch.setattr(main_module, "_dispatch", fail)
    main(["info"])
    ours = program()
    expected = f"mixer: error: Type `{ours} runs` or `{ours} info B/16`. mixer alone is a word.\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (3, 3), ("words", 1)])
def test_an_exit_keeps_its_code(monkeypatch, given, code):
    def leave(words):
        raise SystemExit(given)

    monkeypatch.setattr(main_module, "_dispatch", leave)
    assert main(["info"]) == code


def test_a_bug_is_not_disguised(monkeypatch):
    def fail(words):
        raise ZeroDivisionError

    monkeypatch.setattr(main_module, "_dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main(["info"])


def test_a_reader_that_leaves_early_gets_no_complaint(repository):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "mixerkit", "info", "B/16"],
        cwd=repository,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (128 + 13, b"")
