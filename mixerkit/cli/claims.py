"""`mixer study claims`: the paper's claims beside what was measured, with a verdict each."""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from mixerkit.cli.arguments import Flag, parse, shown_as
from mixerkit.errors import EXIT_DONE, UserError

EXAMPLES = """\
  mixer study claims
  mixer study claims --json
  mixer study claims --out docs/claims.md
"""


@dataclass(frozen=True)
class Claims:
    """Show what the paper claims with the experiment that tests it here, the published value,
    ours, and a verdict: reproduced, not reproduced, or not testable at this scale and what it would
    take. The figures come from the files of results/; each claim names the command that writes
    its own."""

    results: Annotated[str, shown_as("FOLDER")] = ""
    """Folder of results files; results here, or that of the checkout, if not given."""
    out: Annotated[str, shown_as("PATH")] = ""
    """Also write them as a page (Markdown)."""
    json: Flag = False
    """Print the rows as JSON."""


def main(words: list[str]) -> int:
    """Run `mixer study claims` with `words`."""
    given = parse(Claims, words, command="study claims", examples=EXAMPLES)
    from mixerkit.checkpoint.files import write_atomic
    from mixerkit.study.claims import rows
    from mixerkit.study.claims_page import as_text, page

    found = rows(folder_of(given.results))
    if given.out:
        write_atomic(Path(given.out), page(found).encode())
    if given.json:
        print(json.dumps([asdict(row) for row in found], indent=2, ensure_ascii=False))
    else:
        print(as_text(found))
    if given.out:
        print(f"written: {given.out}", file=sys.stderr if given.json else sys.stdout)
    return EXIT_DONE


def folder_of(given: str) -> Path:
    """The folder of results files."""
    if given:
        if Path(given).is_dir():
            return Path(given)
        raise UserError(f"There is no folder {given}.")
    for path in (Path("results"), Path(__file__).parents[2] / "results"):
        if path.is_dir():
            return path
    raise UserError(
        "There is no folder results here: name one with --results, or run this in a checkout."
    )
