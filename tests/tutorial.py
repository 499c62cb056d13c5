"""`python -m tests.tutorial`: docs/tutorial.md as it is written, with nothing shortened, and the
figures that it quotes, into results/tutorial.json."""

import contextlib
import io
import json
import tempfile
from typing import Any

from mixerkit.cli.main import main as mixer
from mixerkit.results import write_results
from tests import pages

PAGE = "docs/tutorial.md"
RESULTS = pages.ROOT / "results" / "tutorial.json"
MODELS = ("runs/photos-64", "clothes.onnx")


def evaluated(model: str) -> dict[str, Any]:
    """What `mixer evaluate` finds on the pictures that were put aside."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert mixer(["evaluate", model, "--on", "new-clothes", "--json"]) == 0
    found = json.loads(printed.getvalue())
    low, high = found["top1_interval"]
    return {
        "model": model, "images": found["samples"], "accuracy": found["top1"],
        "low": low, "high": high,
    }  # fmt: skip


def main() -> None:
    """Run the page in a temporary folder and write the results."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        pages.run(pages.page(PAGE), PAGE, whole=True)
        rows = [evaluated(model) for model in MODELS]
    command = "python -m tests.tutorial"
    write_results(RESULTS, name="tutorial", command=command, settings={"page": PAGE}, rows=rows)


if __name__ == "__main__":
    main()
