"""python -m tests.miniature FOLDER [--classes N] [--train N] [--test N] [--side N] [--seed N]

Writes the five sets of the paper's "Avg 5" and ReaL's labels into FOLDER, small and made of
stripes, for data.root or MIXERKIT_DATA.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from tests.miniature.amount import Amount
from tests.miniature.sets import WRITERS, write_sets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.miniature", description=__doc__)
    parser.add_argument("folder", type=Path)
    for field in fields(Amount):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    write_sets(folder, Amount(**given))
    print(f"{folder}: {', '.join(WRITERS)}")


if __name__ == "__main__":
    main()
