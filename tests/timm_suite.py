"""timm's own tests and scripts on our variants: `python -m tests.timm_suite CHECKOUT`.

CHECKOUT is a clone of timm's repository, whose `tests/test_models.py`, `train.py`, `validate.py`
and `benchmark.py` run unchanged against the installed timm, after `import mixerkit.timm`. A
variant of ours takes part wherever timm's own `mixer_b16_224` does. Where a test wants pretrained
weights, it gets files in the authors' layout with random numbers. Each variant has a process of
its own; what happened goes to results/timm-tests.json, and docs/timm.md shows it.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mixerkit.checkpoint.zoo import cached
from mixerkit.results import write_results
from mixerkit.spec.mixer import PUBLISHED
from mixerkit.spec.zoo import PUBLISHED as ZOO
from tests.checkpoint import published

NAMES = {label: f"mixerkit_{label.replace('/', '').lower()}_224" for label in PUBLISHED}
LIKE = "mixer_b16_224"
"""The model of timm's own that decides which tests a variant takes part in."""
SCRIPTED = "S/32"
"""The variant that the scripts train, validate and time."""
ROOT = Path(__file__).parent.parent
OUT = ROOT / "results" / "timm-tests.json"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="a clone of timm's repository")
    parser.add_argument("--variants", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    rows = []
    for label in given.variants:
        rows += apart(model_tests, given.checkout, label)
    rows += apart(scripts, given.checkout)
    write_results(
        given.out,
        name="timm-tests",
        command="python -m tests.timm_suite CHECKOUT",
        settings={"variants": given.variants, "timm_checkout": version_of(given.checkout)},
        rows=rows,
    )
    print(table(rows))


def table(rows: list[Row]) -> str:
    """How each test ended for each variant, as docs/timm.md has it; "passed × 4": once for
    each of the variant's four tags."""
    variants = [label for label in NAMES if any(row["variant"] == label for row in rows)]
    lines = [["test", *variants], ["---"] * (len(variants) + 1)]
    for test in dict.fromkeys(row["test"] for row in rows):
        found = [[r for r in rows if (r["test"], r["variant"]) == (test, v)] for v in variants]
        lines.append([f"`{test}`", *map(ending, found)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ending(rows: list[Row]) -> str:
    """ "passed", "2 passed, 1 failed" …; a dash where there was nothing to do."""
    counts = Counter(row["outcome"] for row in rows)
    if len(counts) == 1:
        (outcome,) = counts
        return f"{outcome} × {len(rows)}" if len(rows) > 1 else outcome
    return ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "–"


def apart(function: Any, *arguments: Any) -> list[Row]:
    """Call `function` in a fresh process, whose memory and imports go with it; print the rows."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        rows: list[Row] = process.submit(function, *arguments).result()
    for row in rows:
        print(f"{row['model']:40} {row['test']:45} {row['outcome']:8} {row['reason']}", flush=True)
    return rows


def version_of(checkout: Path) -> str:
    """timm's version as its source states it."""
    text = (checkout / "timm" / "version.py").read_text(encoding="utf-8")
    return text.partition("=")[2].strip().strip("'\"")


# -- tests/test_models.py ---------------------------------------------------------------------


def model_tests(checkout: Path, label: str) -> list[Row]:
    """What timm's tests of models say of one variant, and the process's greatest memory."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ |= {"XDG_CACHE_HOME": cache, "MIXERKIT_OFFLINE": "1"}
        write_weights(label)
        list_ours_where_timm_lists_its_own()
        observed = Observer(label)
        options = ["-q", "-p", "no:cacheprovider", "--import-mode=importlib", "--tb=no"]
        os.chdir(checkout)
        pytest.main(["tests/test_models.py", *options], plugins=[observed])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [row | {"peak_gib": round(peak, 2)} for row in observed.rows]


def write_weights(label: str) -> None:
    """Random numbers in the place of every file of the authors for this variant."""
    for model in ZOO.values():
        if model.variant == label and not model.file.startswith("hf://"):
            cached(model).parent.mkdir(parents=True, exist_ok=True)
            shape = published.named(label, model.num_classes)
            published.write(cached(model), published.linen(shape))


def list_ours_where_timm_lists_its_own() -> None:
    """Let `timm.list_models` answer with our names in place of `LIKE`, and with none otherwise."""
    import timm

    import mixerkit.timm  # noqa: F401

    list_models = timm.list_models
    kept = ("pretrained", "name_matches_cfg", "include_tags")

    def ours(*words: Any, **options: Any) -> list[str]:
        chosen = [name.partition(".")[0] for name in list_models(*words, **options)]
        how = {name: value for name, value in options.items() if name in kept}
        return list_models("mixerkit_*", **how) if LIKE in chosen else []

    timm.list_models = ours


class Observer:
    """Keeps the tests of one variant, and notes how each ends."""

    def __init__(self, label: str) -> None:
        self.label, self.rows = label, []

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if self.model_of(item.nodeid)]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        self.rows.append(
            {
                "test": report.nodeid.rpartition("::")[2].partition("[")[0],
                "variant": self.label,
                "model": self.model_of(report.nodeid),
                "outcome": report.outcome,
                "reason": reason(report.longrepr),
                "seconds": round(report.duration, 2),
            }
        )

    def model_of(self, test: str) -> str:
        """The name behind the batch size in `…[1-NAME]`, if it is this variant's."""
        name = test.rpartition("[")[2].partition("-")[2].removesuffix("]")
        return name if name.partition(".")[0] == NAMES[self.label] else ""


def reason(found: Any) -> str:
    """How it begins, why a test failed or was skipped; nothing where it passed."""
    if found is None:
        return ""
    text = found[2] if isinstance(found, tuple) else found.reprcrash.message
    return brief(str(text).removeprefix("Skipped: "))


def brief(text: str) -> str:
    """The beginning of a message on one line, without this machine's folders and addresses."""
    known = text.replace(f"{ROOT}/", "").replace(f"{Path.cwd()}/", "")
    return " ".join(re.sub(r"0x[0-9a-f]+", "0x…", known).split())[:160]


# -- scripts ----------------------------------------------------------------------------------


def scripts(checkout: Path) -> list[Row]:
    """timm's scripts on a folder of generated images: each must end well and leave its output."""
    name, rows = NAMES[SCRIPTED], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_images(folder)
        for script, words, left in script_calls(folder, name):
            start = time.monotonic()
            problem = failure(checkout, script, words, folder / left)
            rows.append(
                {
                    "test": script,
                    "variant": SCRIPTED,
                    "model": name,
                    "outcome": "failed" if problem else "passed",
                    "reason": problem,
                    "seconds": round(time.monotonic() - start, 2),
                }
            )
    return rows


def script_calls(folder: Path, name: str) -> Iterator[tuple[str, list[str], str]]:
    """(script, arguments, the file that it must leave)."""
    common = ["--model", name, "--device", "cpu", "--workers", "0", "-b", "4"]
    images = ["--data-dir", str(folder / "images"), "--num-classes", "2"]
    training = ["--epochs", "1", "--warmup-epochs", "0", "--lr", "1e-3", "--model-ema"]
    where = ["--output", str(folder), "--experiment", "trained"]
    yield "train.py", [*common, *images, *training, *where], "trained/last.pth.tar"
    trained = ["--checkpoint", str(folder / "trained" / "last.pth.tar"), "--use-ema"]
    as_json = ["--results-format", "json", "--results-file"]
    judged = [*trained, *as_json, str(folder / "validated.json")]
    yield "validate.py", [*common, *images, *judged], "validated.json"
    few = ["--num-bench-iter", "10", "--num-warm-iter", "1"]
    timed = ["--model", name, "--device", "cpu", "-b", "2", "--bench", "both", *few]
    yield "benchmark.py", [*timed, *as_json, str(folder / "timed.json")], "timed.json"


def failure(checkout: Path, script: str, words: list[str], left: Path) -> str:
    """Run a script of timm's; the last line of what went wrong, or nothing."""
    code = "import runpy, sys, mixerkit.timm; runpy.run_path(sys.argv[0], run_name='__main__')"
    start = f"import sys; sys.argv = sys.argv[1:]; {code}"
    done = subprocess.run(
        [sys.executable, "-c", start, str(checkout.resolve() / script), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=left.parents[0] if left.parents[0].exists() else left.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return brief((done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1])
    if not left.is_file():
        return f"{left.name} is missing"
    return unreadable(left)


def unreadable(left: Path) -> str:
    """Why what a script left cannot be used, or nothing: weights load, figures are JSON."""
    from mixerkit.checkpoint.load import load
    from mixerkit.errors import UserError

    try:
        if left.suffix == ".tar":
            load(left, gelu="tanh")
        else:
            json.loads(left.read_text(encoding="utf-8"))
    except (UserError, ValueError) as error:
        return brief(str(error))
    return ""


def write_images(folder: Path) -> None:
    """Two classes, dark and light noise, 8 images each to train on and 4 to validate with."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 4)):
        for name, least in (("dark", 0), ("light", 128)):
            target = folder / "images" / split / name
            target.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(least, least + 128, (48, 64, 3), np.uint8)
                Image.fromarray(pixels).save(target / f"{index}.png")


if __name__ == "__main__":
    main()
