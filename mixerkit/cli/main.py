"""The `mixer` command: one table of commands, and the one place where errors become messages.

Nothing heavy is imported before a command is known, so that `mixer --help` answers at once.
"""

import contextlib
import errno
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import NoReturn

from mixerkit import launch
from mixerkit.cli.program import program
from mixerkit.cli.streams import drop
from mixerkit.cli.text import readable
from mixerkit.errors import (
    EXIT_BAD_INPUT,
    EXIT_DONE,
    EXIT_FAILED,
    SAID_ELSEWHERE,
    Refused,
    RunFailed,
    UserError,
    did_you_mean,
    exit_code_for_signal,
    is_marked,
)

# Command → what it does. The module of the same name in this package has `main(words) -> int`.
COMMANDS = {
    "demo": "train a small Mixer on real photographs: under three minutes, one report",
    "train": "train by a recipe, into a run folder that you keep",
    "finetune": "a stored model, trained further on your images",
    "evaluate": "accuracy, calibration and the figures of every class",
    "predict": "the likeliest classes of image files",
    "export": "a model for ONNX Runtime or OpenVINO, compared before it is written",
    "info": "the walk of shapes through a model, its parameters and its cost",
    "visualize": "the paper's pictures of a model's weights, and numbers for what they show",
    "recipes": "the recipes that come with mixerkit",
    "runs": "your runs: how far, how good, whether every file is sound; a report again",
    "zoo": "the published models: what they are, and fetching them",
    "convert": "a model in another layout, or for another resolution",
    "doctor": "what mixerkit found on this machine",
    "bench": "measure speed on this machine",
    "study": "many runs that differ in one thing or two, and what it does to them",
}

FOR_SEVERAL = ("train", "finetune", "evaluate")
"""What `torchrun` may start."""

USAGE = """\
mixer: MLP-Mixer in PyTorch

usage: mixer COMMAND [options]

{commands}

Examples:
  mixer demo
  mixer info B/16
  mixer train photos-64 --data.source my-photos
  mixer predict my-photos --model runs/photos-64

`mixer COMMAND --help` shows a command's options and examples."""
SIGPIPE = 13  # Windows has no name for it


def run_program() -> NoReturn:
    """`main` as a whole program. Ctrl-C while Python takes itself apart ends it without a word."""
    code = main()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def main(words: list[str] | None = None) -> int:
    """Run one command line and return its exit code (see `mixerkit.errors`)."""
    warnings.formatwarning = _as_note  # type: ignore[assignment]
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # Pillow's; ours is lower
    try:
        code = _dispatch(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except (UserError, RunFailed) as error:
        if is_marked(error, SAID_ELSEWHERE):
            return error.exit_code
        return _say(f"error: {error}", error.exit_code)
    except Refused as error:
        return _say(f"refused: {error}", error.exit_code)
    except KeyboardInterrupt:
        return _say("interrupted.", exit_code_for_signal(signal.SIGINT))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        drop(sys.stdout)
        return exit_code_for_signal(SIGPIPE)
    except OSError as error:
        if is_marked(error, SAID_ELSEWHERE):
            return EXIT_FAILED
        where = f"{error.filename}: " if error.filename else ""
        # the one error of the system that is always about what somebody typed
        code = EXIT_BAD_INPUT if error.errno == errno.ENAMETOOLONG else EXIT_FAILED
        return _say(f"error: {where}{error.strerror or error}.", code)
    except SystemExit as stop:  # tyro has printed a command's help
        return stop.code if isinstance(stop.code, int) else EXIT_FAILED if stop.code else EXIT_DONE


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        width = max(map(len, COMMANDS)) + 2
        lines = [f"  {name:{width}}{text}" for name, text in COMMANDS.items()]
        print(USAGE.format(commands="\n".join(lines)))
        return EXIT_DONE
    if words[0] == "--version":
        from mixerkit.results import describe_versions

        print(f"mixerkit {describe_versions()['mixerkit']}")
        return EXIT_DONE
    if words[0] not in COMMANDS:
        raise UserError(
            f"Unknown command '{words[0]}'.{did_you_mean(words[0], COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}."
        )
    if launch.processes() > 1 and words[0] not in FOR_SEVERAL:
        raise UserError(
            f"`mixer {words[0]}` is for one process: under torchrun there are "
            f"{', '.join(f'`mixer {name}`' for name in FOR_SEVERAL)}."
        )
    command = import_module(f"mixerkit.cli.{words[0]}")
    return int(command.main(words[1:]))


def _say(message: str, code: int) -> int:
    """Print what went wrong; the traceback only when MIXERKIT_DEBUG=1.

    Commands that the message suggests (`mixer …`) are printed so that they work from here.
    """
    if os.environ.get("MIXERKIT_DEBUG", "0") not in ("", "0"):
        import traceback

        traceback.print_exc()
    shown = readable(message).replace("`mixer ", f"`{program()} ")
    with contextlib.suppress(OSError):
        sys.stdout.flush()  # what was printed before the error stays before it
    with contextlib.suppress(OSError):
        print(f"mixer: {shown}", file=sys.stderr)
    return code


def _as_note(message: Warning | str, *_: object) -> str:
    """A warning as a line for people, without file and line number."""
    return f"mixer: note: {message}\n"
