"""What a payload is, and every way by which a file from elsewhere comes in."""

import contextlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from mixerkit.checkpoint.load import load, load_weights
from mixerkit.checkpoint.pretrained import from_pretrained
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.runs import summary as summary_of
from mixerkit.checkpoint.verification import verify_run
from mixerkit.cli.main import main
from mixerkit.errors import EXIT_BAD_INPUT, UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.zoo import PUBLISHED
from tests.checkpoint.conftest import TINY

Make = Callable[[Path, Path], Path]
"""Puts something into the first path, an empty folder, and returns what to open. The second is a
folder that appears when code of a payload has run."""


@dataclass(frozen=True)
class Payload:
    """`make` puts it into a folder and returns its path; `read` are the ways in."""

    name: str
    make: Make
    read: tuple[Callable[[Path], object], ...]


def into_a_model(path: Path) -> None:
    load_weights(MlpMixer(TINY), path)


def by_command(*words: str) -> None:
    """A command line; exit code 2 becomes the `UserError` that it stands for."""
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(list(words))
    assert "Traceback" not in said.getvalue(), said.getvalue()
    if code == EXIT_BAD_INPUT:
        raise UserError(said.getvalue())


def convert(path: Path) -> None:
    by_command("convert", str(path), str(path.parent / "converted"))
    assert not (path.parent / "converted").exists()


def train(path: Path) -> None:
    by_command("train", str(path), "--dry-run")


def from_the_cache(path: Path) -> None:
    """The same file as if it had been downloaded before."""
    name = "b16-imagenet1k-google"
    cache = path.parent / "cache"
    stored = cache / "mixerkit" / "zoo" / PUBLISHED[name].file
    stored.parent.mkdir(parents=True, exist_ok=True)
    os.link(path, stored)
    with mock.patch.dict(os.environ, {"XDG_CACHE_HOME": str(cache), "MIXERKIT_OFFLINE": "1"}):
        load(f"zoo:{name}")


def newest_checkpoint(path: Path) -> None:
    RunFolder.open(path).newest_checkpoint()


def summary(path: Path) -> None:
    summary_of(RunFolder.open(path))


def resumed(path: Path) -> None:
    with RunFolder.open(path, writing=True) as run:
        found = run.newest_checkpoint()
        assert found
        run.cut_metrics(found[1])


def verified(path: Path) -> None:
    assert not verify_run(path).sound
    raise UserError("found")


WEIGHTS = (load, into_a_model, from_pretrained, convert)


def file(name: str, content: Callable[[Path], bytes]) -> Make:
    """A single file, whose content may name the folder that is to appear."""

    def make(folder: Path, trap: Path) -> Path:
        (folder / name).write_bytes(content(trap))
        return folder / name

    return make
