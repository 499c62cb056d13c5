"""`make faults`: python -m tests.faults [F1 F4:17 …] [--short] [--seed N] [--out FILE]

Without names all rows are run; `F4:17` repeats one trial. `--out` keeps the rows of faults that
were not run from an earlier file.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mixerkit.results import read_results, write_results
from tests.faults.program import all_faults, row, run_fault


def main() -> int:
    given = _arguments()
    failed = 0
    for fault in all_faults():
        names = [name for name in given.faults if name.partition(":")[0] == fault.id]
        if given.faults and not names:
            continue
        wanted = [int(name.partition(":")[2]) for name in names if ":" in name]
        numbers = wanted or (range(fault.short) if given.short else None)
        done = run_fault(fault, numbers, given.seed, _say)
        print(f"\nnot tried here: {done.left_out}" if done.left_out else "", flush=True)
        failed += len(done.failures)
        if given.out and not wanted:
            _write(given.out, row(fault, done, given.seed, given.short))
    print(f"{failed} failures")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("faults", nargs="*", help="F1, or F1:17 for one trial")
    parser.add_argument("--short", action="store_true", help="the few trials that make test runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="results file")
    return parser.parse_args()


def _write(out: Path, new: dict[str, Any]) -> None:
    """Put a row into the file, in the place of the one before."""
    rows = {r["id"]: r for r in read_results(out)["rows"]} if out.exists() else {}
    rows[new["id"]] = new
    ordered = sorted(rows.values(), key=lambda row: int(row["id"][1:]))
    settings = {"file_system": _file_system(tempfile.gettempdir())}
    write_results(out, name="faults", command="make faults", settings=settings, rows=ordered)


def _file_system(folder: str) -> str:
    """The kind of file system that a folder is on, such as ext4 or tmpfs."""
    asked = subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True)
    return asked.stdout.strip() or "unknown"


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
