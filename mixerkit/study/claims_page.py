"""The paper's claims as text for a terminal, and as docs/claims.md."""

import textwrap
from collections import Counter

from mixerkit.study.claims import NOT_MEASURED, NOT_TESTABLE, VERDICTS, Row
from mixerkit.study.experiments import NOT_REPRODUCED, REPRODUCED, UNDECIDED

WIDTH = 100
SIGNS = {
    REPRODUCED: "+", NOT_REPRODUCED: "-", UNDECIDED: "~", NOT_TESTABLE: "?", NOT_MEASURED: " ",
}  # fmt: skip

HEAD = """\
# The paper's claims, measured

<!-- written by `mixer study claims --out docs/claims.md`: change that, not this page -->

What Tolstikhin et al. (2021) say of MLP-Mixer, beside what was measured here: on Fashion-MNIST with
models of some hundred thousand parameters, and, for speed, with the paper's own models (random
weights) on two processor cores. A rule says when a claim counts as reproduced; it was written
before the measurement, but for overfitting and the weights (section 3.5), whose files are older.
± is half of a 95 % interval over three seeds; a rule that neither holds nor fails within it leaves
the claim undecided. A small experiment can fail to show what is true of large models: "not
reproduced" means here, not in general.
"""


def counted(rows: list[Row]) -> str:
    """How many claims came to each verdict."""
    count = Counter(row.verdict for row in rows)
    return ", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS if count[verdict])


def as_text(rows: list[Row]) -> str:
    """For a terminal: a block for each claim."""
    blocks = []
    for row in rows:
        lines = [f"{SIGNS[row.verdict]} {row.claim}: {row.says} ({row.source}): {row.published}"]
        found = f"{row.verdict}: {row.measured}" if row.measured else row.verdict
        needs = "needs " if row.verdict == NOT_TESTABLE else ""
        run = "run " if row.verdict == NOT_MEASURED else ""
        for line in (found, f"{needs}{run}{row.evidence}"):
            lines += textwrap.wrap(line, WIDTH, initial_indent="    ", subsequent_indent="    ")
        blocks.append("\n".join(lines))
    legend = ", ".join(f"{sign} {verdict}" for verdict, sign in SIGNS.items() if sign.strip())
    return "\n".join([*blocks, "", f"{len(rows)} claims ({legend}): {counted(rows)}"])


def page(rows: list[Row]) -> str:
    """docs/claims.md: a table of what was tested, a table of what could not be."""
    tested = [row for row in rows if row.verdict in (REPRODUCED, NOT_REPRODUCED, UNDECIDED)]
    waiting = [row for row in rows if row.verdict == NOT_MEASURED]
    others = [row for row in rows if row.verdict == NOT_TESTABLE]
    parts = [HEAD, f"{len(rows)} claims: {counted(rows)}.\n"]
    parts += ["## Tested\n", _tested(tested)] if tested else []
    if waiting:
        parts += ["## Not measured yet\n", _plain(waiting, "Run", code=True)]
    parts += ["## Not testable at this scale\n", _plain(others, "What it would take")]
    return "\n".join(parts)


def _tested(rows: list[Row]) -> str:
    lines = [
        "| The paper | Published | Measured | Verdict | Counts as reproduced when | Evidence |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        verdict = f"**{row.verdict}**" if row.verdict == REPRODUCED else row.verdict
        name = row.evidence.partition("results/")[2]
        link = f"[{name}](../results/{name})"
        lines.append(
            f"| {row.says} ({row.source}) | {row.published} | {row.measured} | {verdict} | "
            f"{row.rule} | {link} |"
        )
    return "\n".join(lines) + "\n"


def _plain(rows: list[Row], head: str, code: bool = False) -> str:
    lines = [f"| The paper | Published | {head} |", "|---|---|---|"]
    for row in rows:
        evidence = f"`{row.evidence}`" if code else row.evidence
        lines.append(f"| {row.says} ({row.source}) | {row.published} | {evidence} |")
    return "\n".join(lines) + "\n"
