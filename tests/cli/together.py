"""One of several processes of a test: python -m tests.cli.together FOLDER

Runs each command line of FOLDER/cases.json in turn, with the processes that were started with it.
FOLDER/NAME-RANK.json: its exit code, and what this process said.
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from mixerkit import launch
from mixerkit.cli.main import main
from mixerkit.training.distributed import joined


def run_all(folder: Path) -> None:
    """Every case, one after the other."""
    for name, words in json.loads((folder / "cases.json").read_text()).items():
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        said = {"code": code, "out": out.getvalue(), "err": err.getvalue()}
        (folder / f"{name}-{launch.rank()}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    with joined():
        run_all(Path(sys.argv[1]))
