"""Tables in pages that are made from results: `python -m tests.tables` puts them in.

<!-- table of results/FILE -->
…
<!-- end of the table -->
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixerkit.benchmark.peer_settings import KINDS
from mixerkit.cli.text import short
from mixerkit.results import read_results
from mixerkit.study.arms import ranked_by

ROOT = Path(__file__).parent.parent
PLACE = re.compile(
    r"(<!-- table of results/(\S+) -->\n).*?^(<!-- end of the table -->)", re.DOTALL | re.MULTILINE
)
Results = dict[str, Any]


def pages() -> list[Path]:
    """What readers read."""
    readme = [ROOT / "README.md", ROOT / "README.ja.md"]
    return [*readme, *sorted((ROOT / "docs").rglob("*.md"))]


def filled(page: str, folder: Path = ROOT / "results") -> str:
    """The page with every table as the results in `folder` have it."""

    def one(place: re.Match[str]) -> str:
        results = read_results(folder / place[2])
        return f"{place[1]}{TABLES.get(results['name'], of_study)(results)}\n{place[3]}"

    return PLACE.sub(one, page)


def without_tables(page: str) -> str:
    """The page without what stands between the marks, and without them."""
    return PLACE.sub("", page)


def lines_of(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines).replace("|  |", "| |")


def of_faults(results: Results) -> str:
    """One line for each fault."""
    rows = []
    for found in results["rows"]:
        left_out = f"; not tried here: {found['left_out']}" if found["left_out"] else ""
        times = f"{found['trials']:,} {found['counts']}{left_out}"
        what = (found["id"], found["injection"], times, found["holds"], str(found["failures"]))
        rows.append(what)
    return lines_of(("", "what is done to it", "times", "what held", "failures"), rows)


def of_study(results: Results) -> str:
    """One line for each arm, the most accurate first."""
    arms = results["rows"]
    figure = ranked_by(arms)
    rows = []
    for arm in sorted(arms, key=lambda arm: -arm[figure]):
        half = arm[f"{figure}_half_width"]
        accuracy = f"{100 * arm[figure]:.2f}" + (f" ± {100 * half:.2f}" if half else "")
        costs = (f"{arm['parameters']:,}", short(arm["macs"]), f"{1e3 * arm['step_seconds']:.0f}")
        rows.append((*arm["levels"].values(), accuracy, *costs))
    factors = [name.rpartition(".")[2].replace("_", " ") for name in arms[0]["levels"]]
    accuracy = f"{figure.replace('_', ' ').replace('held out', 'held-out')}, %"
    return lines_of((*factors, accuracy, "parameters", "MACs", "ms forward and backward"), rows)


def of_parity(results: Results) -> str:
    """One line for each model: the largest difference in each target and precision, over the
    runtimes that read it, relative to the largest output."""
    most: dict[str, dict[str, float]] = {}
    for row in results["rows"]:
        own, kind = most.setdefault(row["model"], {}), f"{row['target']} {row['precision']}"
        own[kind] = max(row["relative"], own.get(kind, 0.0))
    kinds = list(next(iter(most.values())))
    rows = [(name, *(f"{own[kind]:.0e}" for kind in kinds)) for name, own in most.items()]
    return lines_of(("model", *kinds), rows)


def of_transfer(results: Results) -> str:
    """One line for what is probed or fine-tuned, with a column for each number of images."""
    measured = [row for row in results["rows"] if row["shots"]]
    shots = list(dict.fromkeys(row["shots"] for row in measured))
    rows = []
    for what in dict.fromkeys((row["part"], row["what"]) for row in measured):
        own = {row["shots"]: row for row in measured if (row["part"], row["what"]) == what}
        cells = [_interval(own[count]) if count in own else "" for count in shots]
        rows.append((f"{what[0]}: {what[1]}", *cells))
    return lines_of(("held-out accuracy on three new classes, %", *map(str, shots)), rows)


def _interval(row: Results) -> str:
    half = f" ± {100 * row['half_width']:.1f}" if row["half_width"] is not None else ""
    return f"{100 * row['accuracy']:.1f}{half}"


def of_int8(results: Results) -> str:
    """One line for each precision and runtime, on the test images."""
    measured = [row for row in results["rows"] if row["kind"] == "accuracy"]
    rows = [
        (
            row["precision"],
            row["runtime"],
            f"{100 * row['top1']:.2f}",
            "" if row["runtime"] == "pytorch" else f"{100 * row['agreement']:.2f}",
        )
        for row in measured
    ]
    head = ("products in", "runtime", "test accuracy, %", "same class as in PyTorch, % of images")
    return lines_of(head, rows)


def of_inference(results: Results) -> str:
    """One line for each contender and input, by precision: images a second for each batch size,
    times as fast as the best peer in the same precision with its quartiles, and the share of that
    precision's ceiling."""
    measured = sorted(results["rows"], key=lambda row: KINDS.index(row["kind"]))
    batches = list(dict.fromkeys(row["batch"] for row in measured))
    rows = []
    for name, timed in dict.fromkeys((row["contender"], row["input"]) for row in measured):
        own = {
            row["batch"]: row
            for row in measured
            if (row["contender"], row["input"]) == (name, timed)
        }
        about = name if timed == "model alone" else f"{name}, {timed}"
        (kind,) = {row["kind"] for row in own.values()}
        rows.append((about, kind, *(_speed(own.get(batch)) for batch in batches)))
    for name, why in results["settings"]["left_out"].items():
        rows.append((name, why, *[""] * len(batches)))
    head = ("images a second", "products in", *(f"batch {batch}" for batch in batches))
    return lines_of(head, rows)


def _speed(row: Results | None) -> str:
    if row is None:  # it gave wrong outputs there
        return ""
    ratio, share = row["over_best_peer"], f"{100 * row['share_of_ceiling']:.0f} % of ceiling"
    if ratio is not None:
        low, high = row["over_best_peer_quartiles"]
        share = f"{ratio:.2f}×, {low:.2f}–{high:.2f}, {share}"
    return f"{row['images_per_second']:,.1f} ({share})"


TABLES: dict[str, Callable[[Results], str]] = {
    "faults": of_faults,
    "parity": of_parity,
    "inference": of_inference,
    "int8": of_int8,
    "transfer": of_transfer,
}


def main() -> None:
    """Rewrite the pages whose tables are not what the results say."""
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"written: {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
