"""One of several processes of a test: python -m tests.training.member FOLDER

Trains every FOLDER/*.yaml into the folder of the same name, with the processes that were started
with it; goes on where there is a run. FOLDER/NAME-seen-RANK.jsonl: the images that this one saw.
"""

import sys
from pathlib import Path

import torch

from mixerkit import launch
from mixerkit.checkpoint.opening import is_run
from mixerkit.spec.recipes import recipe
from mixerkit.training.distributed import joined
from mixerkit.training.loop import train
from tests.training.seen import log_into


def main() -> None:
    folder = Path(sys.argv[1])
    torch.set_num_threads(1)
    with joined() as world:
        for path in sorted(folder.glob("*.yaml")):
            out = path.with_suffix("")
            resume = world.after_first(lambda out=out: is_run(out))
            log_into(folder / f"{path.stem}-seen-{launch.rank()}.jsonl")
            train(recipe(str(path)), out, resume=resume)


if __name__ == "__main__":
    main()
