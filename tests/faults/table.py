"""The fault programme's results as a table, and its place in a page."""

import re
from typing import Any

BEGIN, END = "<!-- table of results/faults.json -->\n", "\n<!-- end of the table -->"
PLACE = re.compile(re.escape(BEGIN) + ".*" + re.escape(END), re.DOTALL)


def table(rows: list[dict[str, Any]]) -> str:
    """One line for each fault."""
    lines = ["| | what is done to it | times | what held | failures |", "|---|---|---|---|---|"]
    for found in rows:
        not_tried = f"; not tried here: {found['left_out']}" if found["left_out"] else ""
        lines.append(
            f"| {found['id']} | {found['injection']} | {found['trials']:,} {found['counts']}"
            f"{not_tried} | {found['holds']} | {found['failures']} |"
        )
    return "\n".join(lines)


def with_table(page: str, rows: list[dict[str, Any]]) -> str:
    """The page with the table between its two marks."""
    assert PLACE.search(page), f"The page lacks the marks {BEGIN.strip()} and {END.strip()}."
    return PLACE.sub(lambda _: BEGIN + table(rows) + END, page)


def without_table(page: str) -> str:
    """The page without what stands between the marks, and without them."""
    return PLACE.sub("", page)
