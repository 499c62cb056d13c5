"""The blocks of README and docs, and how they are run: in their order, in a folder of the page's
own.

Python runs in one namespace; a ```text block right behind it is what it prints. In ```sh blocks
`mixer` runs in this process, everything else in bash. Comments above a block say what is different
here from what readers do:

    <!-- run: no, needs eight GPUs -->                  not run; that its options exist is checked
    <!-- run: not mixer predict, fetches weights -->    the same of the lines that begin so
    <!-- run: mixer train with --shrink -->             words that are added to such lines
    <!-- run: RUN is runs/photos-64 -->                 what stands for a word
    <!-- run: given my-photos runs/photos-64 -->        what is there before (GIVEN)
    <!-- run: file study.yaml -->                       the block is the content of this file

`python -m tests.pages` lists what is not run and what is changed.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import Image

from mixerkit.cli.main import COMMANDS, main as mixer
from mixerkit.data.sources import open_source
from tests import tables

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "tests" / "samples" / "fashion-mnist"
NAMES = [path.relative_to(ROOT).as_posix() for path in tables.pages()]
BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- run: .*? -->\n)*)^```(?P<language>[a-z]+)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
MARK = re.compile(r"<!-- run: (.*?) -->")
SHELL = ("sh", "console")


@dataclass
class Block:
    """One fenced block, with what its marks say; `line` is that of the fence."""

    page: str
    line: int
    language: str
    code: str
    why_not: str = ""
    left_out: dict[str, str] = field(default_factory=dict)
    added: dict[str, list[str]] = field(default_factory=dict)
    stands_for: dict[str, str] = field(default_factory=dict)
    given: list[str] = field(default_factory=list)
    file: str = ""
    prints: str | None = None

    @property
    def place(self) -> str:
        """For people."""
        return f"{self.page}, line {self.line}"

    def commands(self) -> list[str]:
        """The command lines of a shell block, without comments, as they are on the page."""
        lines = self.code.replace("\\\n", " ").splitlines()
        bare = [re.sub(r"(^|\s)#(?!SBATCH).*", "", line).strip() for line in lines]
        return [line.removeprefix("$ ") for line in bare if line]

    def reason_against(self, command: str) -> str:
        """Why a command is not run, or ""."""
        found = [why for start, why in self.left_out.items() if command.startswith(start)]
        return self.why_not or "".join(found[:1])

    def as_run(self, command: str) -> str:
        """A command with what the marks change."""
        for word, value in self.stands_for.items():
            command = re.sub(rf"\b{re.escape(word)}\b", value, command)
        for start, words in self.added.items():
            if command.startswith(start):
                command = f"{command} {shlex.join(words)}"
        return command


def read(block: Block, mark: str) -> None:
    """Put what a mark says into its block."""
    if one := re.fullmatch(r"no, (.+)", mark):
        block.why_not = one[1]
    elif one := re.fullmatch(r"not (.+?), (.+)", mark):
        block.left_out[one[1]] = one[2]
    elif one := re.fullmatch(r"(.+?) with (.+)", mark):
        block.added[one[1]] = shlex.split(one[2])
    elif one := re.fullmatch(r"(\S+) is (\S+)", mark):
        block.stands_for[one[1]] = one[2]
    elif one := re.fullmatch(r"given (.+)", mark):
        block.given += one[1].split()
    elif one := re.fullmatch(r"file (\S+)", mark):
        block.file = one[1]
    else:
        raise ValueError(f"{block.place}: nobody knows what <!-- run: {mark} --> means.")


def blocks(text: str, page: str) -> list[Block]:
    """The blocks of a page; a text block right behind a Python block belongs to that."""
    found: list[Block] = []
    end = 0
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("language")) + 1
        block = Block(page, line, match["language"], match["code"])
        for mark in MARK.findall(match["marks"]):
            read(block, mark)
        follows = bool(found) and not text[end : match.start()].strip()
        if follows and block.language == "text" and found[-1].language == "python":
            found[-1].prints = block.code
        else:
            found.append(block)
        end = match.end()
    return found


def page(name: str) -> str:
    """A page's text."""
    return (ROOT / name).read_text(encoding="utf-8")


# -- running ----------------------------------------------------------------------------------


def run(text: str, name: str, whole: bool = False) -> int:
    """Run the blocks of a page in the working folder; how many were. `whole` adds no words, so that
    nothing is shortened."""
    namespace: dict[str, object] = {"__name__": name}
    count = 0
    for block in blocks(text, name):
        if whole:
            block.added.clear()
        for thing in block.given:
            GIVEN[thing](Path(thing))
        if block.file:
            Path(block.file).write_text(block.code, encoding="utf-8")
        elif block.language == "python" and not block.why_not:
            run_python(block, namespace)
            count += 1
        elif block.language in SHELL:
            count += run_shell(block)
    return count


def run_python(block: Block, namespace: dict[str, object]) -> None:
    """Execute a block, and compare what it prints, but for spaces."""
    code = compile("\n" * block.line + block.code, block.page, "exec")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    if block.prints is not None:
        assert printed.getvalue().split() == block.prints.split(), block.place


def run_shell(block: Block) -> bool:
    """Execute a block's commands; whether there were any. Each must succeed."""
    commands = [one for one in block.commands() if not block.reason_against(one)]
    for command in commands:
        line = block.as_run(command)
        plain = line.startswith("mixer ") and not re.search(r"[|<>;&]", line)
        code = mixer(shlex.split(line)[1:]) if plain else in_bash(line)
        assert code == 0, f"{block.place}: {command} ended with {code}"
    return bool(commands)


def in_bash(command: str) -> int:
    """The exit code of a command; `mixer` and `python` are ours."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-ec", command], env=os.environ | {"PATH": path}, check=False
    ).returncode


# -- what a page takes as given ---------------------------------------------------------------

CLASSES = ("Bag", "Sandal", "Trouser")


def photographs(folder: Path, split: str, count: int) -> None:
    """Photographs of Fashion-MNIST, a folder for each class."""
    images = getattr(open_source("fashion-mnist", str(SAMPLES)), split)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        chosen = (images.labels == images.class_names.index(name)).nonzero()[0][:count]
        for i in chosen:
            Image.fromarray(images.images[i, ..., 0]).save(folder / name / f"{i}.png")


def trained(folder: Path) -> None:
    """A run of the recipe photos-64 on my-photos, with one block and six steps."""
    if not Path("my-photos").exists():
        photographs(Path("my-photos"), "train", 50)
    words = ["train", "photos-64", "--data.source", "my-photos", "--out", str(folder)]
    small = ["--duration", "6 steps", "--batch-size", "16", "--model.depth", "1"]
    assert mixer([*words, *small]) == 0


GIVEN: dict[str, Callable[[Path], None]] = {
    "examples": lambda path: shutil.copytree(ROOT / "examples", path),
    "my-photos": lambda path: photographs(path, "train", 50),
    "more-photos": lambda path: photographs(path, "test", 5),
    "runs/photos-64": trained,
}


# -- what is not run --------------------------------------------------------------------------


def unrun() -> Iterator[tuple[Block, str, str]]:
    """Every command and Python block of all pages that is not run, and why."""
    for name in NAMES:
        for block in blocks(page(name), name):
            if block.language == "python" and block.why_not:
                yield block, "", block.why_not
            for command in block.commands() if block.language in SHELL else ():
                if why := block.reason_against(command):
                    yield block, command, why


@cache
def help_of(*words: str) -> str:
    """What `mixer WORDS --help` prints."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert mixer([*words, "--help"]) == 0, words
    return printed.getvalue()


def unknown_options(command: str) -> list[str]:
    """The options of a command line of ours that its `--help` does not have, or the command where
    there is none of that name. Capitals and $ stand for any command."""
    words = re.split(r"(?:^|[\s;])(?:mixer|-m mixerkit)\s+", command, maxsplit=1)[1:]
    if not words:
        return []
    name, *rest = re.split(r"[|;>]", words[0])[0].split() or [""]
    if name not in COMMANDS:
        return [] if name.isupper() or name[0] in "$-" else [name]
    asked = [name]
    if "--protocol" in rest:
        asked += ["--protocol", rest[rest.index("--protocol") + 1]]
    if name == "study" and rest[:1] == ["claims"]:
        asked += ["claims"]
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w.-]*", help_of(*asked)))
    given = [word.partition("=")[0].strip("[]") for word in rest if word.startswith("--")]
    return [option for option in given if option not in known]


def main() -> None:
    """Print what is not run, and what is changed of what is."""
    for block, command, why in unrun():
        print(f"{block.place}: {command or 'Python'}\n    not run: {why}")
    for name in NAMES:
        for block in blocks(page(name), name):
            for start, words in block.added.items():
                print(f"{block.place}: {start} … {shlex.join(words)}")


if __name__ == "__main__":
    main()
