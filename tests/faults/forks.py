"""python -m tests.faults.forks: forks processes that have imported everything already.

Reads requests from standard input, one JSON object a line, and forks for each: hooks, then the
command line. Answers {"pid"} once it runs and {"code"} once it has ended (minus the signal's number
when one killed it). Never computes itself: threads do not survive a fork.
"""

import contextlib
import json
import os
import sys
import traceback
from typing import Any

import matplotlib.backends.backend_agg  # noqa: F401 (drawing takes it)
import torch
import torch._dynamo

import mixerkit.cli.train
import mixerkit.insight.report
import mixerkit.training.loop  # noqa: F401
from mixerkit.cli.main import main
from tests.faults import hooks

BROKEN_HOOK = 70
"""Exit code of a child whose hooks failed, or that raised what the command line lets through."""


def serve() -> None:
    """Answer requests until the input ends."""
    torch.set_num_threads(1)
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            answers.close()
            _become(json.loads(line))
        print(json.dumps({"pid": child}), file=answers, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps({"code": code}), file=answers, flush=True)


def _become(request: dict[str, Any]) -> None:
    """Do what is asked, then end this process without cleaning up after the server."""
    code = BROKEN_HOOK
    try:
        _connect(request["said"])
        os.chdir(request["folder"])
        os.environ.update(request["environment"])
        for name, arguments in request["hooks"]:
            getattr(hooks, name)(*arguments)
        code = main(request["words"])
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError):  # a terminal that is closed
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _connect(said: str) -> None:
    """Read nothing, and write into the files `said`.out and `said`.err."""
    for descriptor, path in ((0, os.devnull), (1, f"{said}.out"), (2, f"{said}.err")):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(handle, descriptor)
        os.close(handle)


if __name__ == "__main__":
    serve()
