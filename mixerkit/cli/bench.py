"""`mixer bench`: measurements of this machine, each into one results file."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from mixerkit.cli.arguments import Flag, parse, shown_as
from mixerkit.errors import EXIT_DONE

EXAMPLES = """\
  mixer bench speed --quick
  mixer bench speed --out results/speed.json
  mixer bench time-to-accuracy
"""

Study = Literal["speed", "token-mixing", "optimizers", "time-to-accuracy"]


@dataclass(frozen=True)
class Bench:
    """Measure on this machine: the `speed` of our models against timm's, ways to compute
    `token-mixing`, the `optimizers`, or the training `time-to-accuracy` against timm's Mixer.

    Close other programs first: the figures are only as quiet as the machine.
    """

    study: tyro.conf.Positional[Study]
    """What to measure."""
    quick: Flag = False
    """A short look instead of the full measurement."""
    out: Annotated[str, shown_as("PATH")] = ""
    """Results file; results/STUDY.json if not given, results/STUDY-quick.json with --quick."""
    json: Flag = False
    """Print the rows as JSON, and everything else on stderr."""


def main(words: list[str]) -> int:
    """Run `mixer bench` with `words`."""
    given = parse(Bench, words, command="bench", examples=EXAMPLES)
    out = Path(given.out or f"results/{given.study}{'-quick' if given.quick else ''}.json")
    console = sys.stderr if given.json else sys.stdout

    def say(line: str) -> None:
        print(line, file=console, flush=True)

    rows = _measure(given.study, out, say, given.quick)
    say(f"written: {out}")
    if given.json:
        print(json.dumps(rows, indent=2))
    return EXIT_DONE


def _measure(study: Study, out: Path, say: Any, quick: bool) -> list[dict[str, Any]]:
    if study == "speed":
        from mixerkit.benchmark.throughput import study as speed

        return speed(out, say, quick)
    if study == "token-mixing":
        from mixerkit.benchmark.token_mixing import study as token_mixing

        return token_mixing(out, say, quick)
    if study == "optimizers":
        from mixerkit.study.optimizers import study as optimizers

        return optimizers(out, say, quick)
    from mixerkit.study.time_to_accuracy import study as time_to_accuracy

    return time_to_accuracy(out, say, quick)
