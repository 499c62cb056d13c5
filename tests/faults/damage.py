"""Damage to checkpoints on disk: single bits (F4), files cut, swapped, gone or odd (F5)."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from mixerkit.checkpoint.run import RunFolder
from tests.faults.fault import Fault, Trial
from tests.faults.runs import make_run, newest, save

FILES = ("tensors.safetensors", "state.json", "manifest.json")


def checkpoint(run: Path, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run / "checkpoints" / f"step-{step:08d}"


# -- F4 -----------------------------------------------------------------------------------


def two_checkpoints(folder: Path) -> Path:
    return make_run(folder / "run", (1, 2))


def flip_one_bit(trial: Trial) -> None:
    """Every bit of the newest checkpoint's files is as likely as any other.

    It is flipped in what all trials share, and flipped back: copies would take most of the time.
    """
    files = [checkpoint(trial.shared, 2) / name for name in FILES]
    path = trial.random.choices(files, [path.stat().st_size for path in files])[0]
    whole = path.read_bytes()
    bit = trial.random.randrange(8 * len(whole))
    try:
        path.write_bytes(flipped(whole, bit))
        step, said = newest(trial.shared)
        assert step == 1, "a flipped bit was not seen"
        assert f"step-00000002/{path.name}" in said, said
    finally:
        path.write_bytes(whole)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# -- F5 -----------------------------------------------------------------------------------


def three_checkpoints(folder: Path) -> Path:
    return make_run(folder / "run", (1, 2, 3), keep=3)


def cut(path: Path, random: random.Random) -> None:
    os.truncate(path, random.randrange(path.stat().st_size))


def zero(path: Path, random: random.Random) -> None:
    """Zeros over a part that is not zero already."""
    content = path.read_bytes()
    start = random.choice([i for i, byte in enumerate(content) if byte])
    count = min(random.choice((1, 16, 512, len(content))), len(content) - start)
    path.write_bytes(content[:start] + bytes(count) + content[start + count :])


def extend(path: Path, random: random.Random) -> None:
    path.write_bytes(path.read_bytes() + random.choice((b"\0", b"\n", b" ", random.randbytes(40))))


def remove(path: Path, _: random.Random) -> None:
    path.unlink()


def make_folder(path: Path, random: random.Random) -> None:
    path.unlink()
    path.mkdir()
    if random.random() < 0.5:
        (path / path.name).write_bytes(b"inside")


def make_pipe(path: Path, _: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def make_link(path: Path, random: random.Random) -> None:
    """To the very bytes in another place, to a file of the checkpoint before, or to nothing."""
    away = path.parents[3] / f"away-{random.getrandbits(32)}"
    path.rename(away)
    before = checkpoint(path.parents[2], 1) / path.name
    path.symlink_to(random.choice((away, before, Path("nowhere"), path)))


def swap_inside(path: Path, random: random.Random) -> None:
    other = path.with_name(random.choice([name for name in FILES if name != path.name]))
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def take_from_before(path: Path, _: random.Random) -> None:
    shutil.copy(checkpoint(path.parents[2], 1) / path.name, path)


TO_FILES: tuple[Callable[[Path, random.Random], None], ...] = (
    cut, zero, extend, remove, make_folder, make_pipe, make_link, swap_inside, take_from_before,
)  # fmt: skip


def put_a_file(folder: Path, _: random.Random) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"a file")


def put_a_link(folder: Path, random: random.Random) -> None:
    away = folder.parents[2] / f"away-{random.getrandbits(32)}"
    folder.rename(away)
    folder.symlink_to(random.choice((away, checkpoint(folder.parents[1], 1), Path("nowhere"))))


def put_another(folder: Path, _: random.Random) -> None:
    """The checkpoint of step 1, whole, under another step's name."""
    shutil.rmtree(folder)
    shutil.copytree(checkpoint(folder.parents[1], 1), folder)


def empty(folder: Path, _: random.Random) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


TO_FOLDERS = (put_a_file, put_a_link, put_another, empty)


def break_files(trial: Trial) -> None:
    """The newest checkpoint, or the two newest, are damaged in a way of many."""
    run = Path(shutil.copytree(trial.shared, trial.folder / "run"))
    broken = trial.random.choice(((3,), (3,), (3, 2)))
    for step in broken:
        if trial.random.random() < 0.8:
            name = trial.random.choice(FILES)
            trial.random.choice(TO_FILES)(checkpoint(run, step) / name, trial.random)
        else:
            trial.random.choice(TO_FOLDERS)(checkpoint(run, step), trial.random)
    last = 3 - len(broken)
    step, said = newest(run)
    assert step == last, f"step {step} was used"
    assert all(f"step-{step:08d}" in said for step in broken), said
    go_on(run, last)


def go_on(run: Path, last: int) -> None:
    """Without any cleaning up, the run goes on, and never counts a damaged checkpoint as kept."""
    before = checkpoint(run, last).stat().st_ino
    with RunFolder.open(run, writing=True) as opened:
        save(opened, 4)
    assert newest(run)[0] == 4
    assert checkpoint(run, last).stat().st_ino == before, "the last sound one was not kept"


FAULTS = (
    Fault(
        "F4",
        "one bit of a checkpoint flipped, in any of its files",
        "named, and the checkpoint before is used, bit for bit",
        trials=10_000,
        short=100,
        run=flip_one_bit,
        prepare=two_checkpoints,
        counts="flips",
    ),
    Fault(
        "F5",
        "files of a checkpoint cut, zeroed, extended, swapped, missing, made links or folders",
        "named, the newest sound checkpoint is used, and the run goes on",
        trials=2_000,
        short=100,
        run=break_files,
        prepare=three_checkpoints,
        counts="damages",
    ),
)
