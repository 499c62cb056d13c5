"""Command lines and recipe files that make no sense, or look as if they did."""

import dataclasses
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, get_type_hints

import yaml

from mixerkit.cli.main import COMMANDS
from mixerkit.spec.recipes import RECIPES
from mixerkit.spec.strict import to_dict
from tests.faults.child import Ended, Hook, start_fork
from tests.faults.fault import Fault, Trial
from tests.faults.sample import MUON, write_recipe
from tests.training.runs import SAMPLE

PATIENCE = 30.0
"""Seconds; nothing that is tried here has more than a few steps to do."""
MEMORY = 2 * 2**30
"""Bytes that a process may take on top of what it starts with."""
LONGEST = 1_200
"""Characters that a line of a message may have."""


def nonsense(trial: Trial) -> None:
    """Exit code 2 and one readable message, or 0 when it happens to make sense; never a traceback,
    and nothing written by what was refused."""
    here = trial.folder / "here"
    here.mkdir()
    write_recipe(here, MUON.name)
    if trial.number % 3 == 0:
        (here / "odd.yaml").write_bytes(recipe_text(trial.random))
        words = trial.random.choice(
            (["train", "odd.yaml", "--dry-run"], ["recipes", "show", "odd.yaml", "--json"])
        )
    else:
        words = command_line(trial.random)
    before = _everything(here)
    limit: Hook = ("limit_memory", (MEMORY,))
    ended = start_fork(words, here, (limit,), _environment(trial)).wait(PATIENCE)
    _assert_answers(ended, words)
    if ended.code:
        assert _everything(here) == before, words


def _environment(trial: Trial) -> dict[str, str]:
    return {"HOME": str(trial.folder), "MIXERKIT_DATA": str(SAMPLE), "COLUMNS": "100"}


def _assert_answers(ended: Ended, words: list[str]) -> None:
    said = f"{words!r:.1000} → {ended!r:.3000}"
    assert ended.code in (0, 2), said
    assert "Traceback" not in ended.err, said
    if ended.code:
        assert ended.err.count("mixer: error: ") == 1, said
        assert max(map(len, ended.err.splitlines())) < LONGEST, said
    assert all(c.isprintable() or c in "\n\t" for c in ended.err), said


def _everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -- command lines ---------------------------------------------------------------------------

LEADS = {
    "train": ("recipe.yaml", "fashion-demo", "photos-64"),
    "info": ("B/16", "N/7", "zoo:fashion-demo", "article", "hf://a/b"),
    "evaluate": ("zoo:fashion-demo", "N/7"),
    "predict": (".", "recipe.yaml"),
    "recipes": ("list", "show"),
    "runs": ("list", "verify", "report"),
    "zoo": ("list", "show", "fetch"),
    "convert": ("zoo:fashion-demo", "N/7"),
    "bench": ("speed", "loading"),
}
"""Words that commands expect first."""
HARMLESS = ("info", "recipes", "runs", "zoo", "doctor", "evaluate", "predict", "convert")
"""Commands whose work takes a moment; others get an option that no command has."""
NUMBERS = (
    "0", "-0", "-1", "1", "2", "7", "300", "3.5", "0.5", "1e-3", "1e9", "1e999", "1e-400", "nan",
    "inf", "-inf", "0x10", "1_000", "٣", "½", "10 %", "3 epochs", "0 steps", "-1 steps",
    "1e9 epochs", str(2**31), str(2**63), "9" * 20, "9" * 400, "9" * 5000,
)  # fmt: skip
ODD_VALUES = (
    "", " ", "-", "--", "---", "=", "--=", "true", "None", "null", "[]", "{}", "()", "a=b", "a,b",
    "B/16", "B/0", "/", "S/99999999999", "zoo:", "zoo:nix", "hf://", "hf://a", "hf://../..",
    "file:///etc/passwd", ".", "..", "~", "~nobody/x", "recipe.yaml", "recipe.yaml/",
    "./recipe.yaml/x", "nowhere/deep/er", "/dev/null", "/dev/zero", "/proc/self/mem", "a" * 300,
    "a/" * 3000, "x" * 20_000, "é", "模型", "🦜", "\u202eabc", "\ufeff", "a\nb", "a\tb",
    "\x1b[31mred", "\x07", "\x7f", "\udcff\udcfe", "%s%n", "{0}", "$(id)", "`id`", "'", '"', "\\",
    "*", "?", "@recipe.yaml", "--help", "-h", "--json", "--dry-run", "--version",
)  # fmt: skip


def command_line(random: Random) -> list[str]:
    """A command with odd options, misspelt words and words at odd places."""
    command = random.choice(sorted(COMMANDS))
    words = [command]
    if command in LEADS and random.random() < 0.8:
        words.append(random.choice(LEADS[command]))
    for _ in range(random.choice((0, 1, 1, 1, 1, 2, 4))):
        words += _option(random, command)
    if random.random() < 0.2:
        words.insert(random.randint(0, len(words)), random.choice(ODD_VALUES))
    if random.random() < 0.2:
        place = random.randrange(len(words))
        words[place] = _misspelt(words[place], random)
    if random.random() < 0.1:
        random.shuffle(words)
    words = [word for word in words if not (word == "/" and "predict" in words)]  # all of the disk
    return words + _without_work(words)


def _without_work(words: list[str]) -> list[str]:
    """What keeps a command from starting long work."""
    if not words or words[0] in HARMLESS:
        return []
    return ["--dry-run"] if words[0] == "train" else ["--no-such-option"]


def _option(random: Random, command: str) -> list[str]:
    flag = random.choice(_flags(command))
    if random.random() < 0.1:
        flag = _misspelt(flag, random)
    value = random.choice(random.choice((NUMBERS, ODD_VALUES)))
    return random.choice(([flag, value], [flag, value], [f"{flag}={value}"], [flag]))


def _flags(command: str) -> list[str]:
    """Every option of a command, from the dataclass that it is made from."""
    kind = getattr(import_module(f"mixerkit.cli.{command}"), command.capitalize())
    return [f"--{name.replace('_', '-')}" for name in _names(kind)]


def _names(kind: Any, before: str = "") -> Iterator[str]:
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        inner = hints[field.name]
        if dataclasses.is_dataclass(inner):
            unnamed = field.name in ("settings", "config")
            yield from _names(inner, before if unnamed else f"{before}{field.name}.")
        else:
            yield before + field.name


def _misspelt(word: str, random: Random) -> str:
    """One character left out, doubled, swapped, changed or put in."""
    place = random.randrange(len(word) + 1)
    before, after = word[:place], word[place:]
    return random.choice(
        (
            before + after[1:],
            before + after[:1] + after,
            before + after[1:2] + after[:1] + after[2:],
            before + random.choice("-_.=/ xé") + after[1:],
            before + random.choice(("-", "--", " ", "\u200b", "\x1b", "é")) + after,
        )
    )


# -- recipes ---------------------------------------------------------------------------------

ODD_NODES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 3.5, 1e308, float("nan"), float("inf"), 10**30, "", " ",
    "x" * 5000, "1e-3", "nan", "3 epochs", [], [[]], [1, 2], [0.5] * 1000, {}, {"a": 1}, {1: 2},
    {None: None}, [{"a": []}], "B/16", "é🦜", "\u202e", "../..",
)  # fmt: skip
ODD_LINES = (
    "seed: 1\nseed: 2\n", "\tseed: 1\n", "seed:\t1\n", "seed: &a 1\nthreads: *a\n",
    "seed: *nowhere\n", "augment: &a {flip: *a}\n", "<<: {seed: 3}\n", "<<: 3\n", "seed: !!int x\n",
    "seed: !!binary aGk=\n", "data: !!set {a, b}\n", "name: !!python/object/apply:os.system [id]\n",
    "seed: 0o17\n", "seed: 2024-13-45\n", "name: 2024-02-30\n", "seed: 1:30:00\n",
    "? [a, b]\n: 1\n", "? {a: 1}\n: 2\n", "---\nname: b\n", "...\n", "%YAML 9.9\n---\nname: a\n",
    "name: 'open\n", 'name: "open\n', "name: [1, 2\n", "name: {a: 1\n", "name: |\n  a\n b\n",
    "- a\n- b\n", "@name: 1\n", "`a`: 1\n", "extends: nowhere\n", "extends: [a]\n",
    "extends: fashion-demo\n", "model: Q/99\n", "model: B/0\n", "model: {variant: [1]}\n",
    "model: {variant: N/7, width: -1}\n", "seed: " + "9" * 5000 + "\n",
    "name: " + "[" * 20_000 + "\n", "name: " + "{a: " * 3_000 + "\n",
    "name: " + "- " * 5_000 + "\n", "name: \x07\n", "name: \x1b[31m\n", "name: \ud7ff\ue000\n",
    "# only words\n", "\ufeffname: a\n",
)  # fmt: skip
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)
"""Nine to the twelfth times two texts, when written out."""


def recipe_text(random: Random) -> bytes:
    """A recipe's YAML with something wrong in what it says, how, or in its bytes."""
    values = to_dict(random.choice((MUON, *(make() for make in RECIPES.values()))))
    for _ in range(random.choice((0, 1, 1, 2))):
        _spoil(values, random)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=random.random() < 0.5)
    if random.random() < 0.5:
        lines = text.splitlines(keepends=True)
        lines.insert(random.randint(0, len(lines)), random.choice((*ODD_LINES, LAUGHS)))
        text = "".join(lines)
    if random.random() < 0.1:
        text = random.choice((*ODD_LINES, LAUGHS, ""))
    encoding = random.choice(("utf-8",) * 18 + ("utf-16", "latin-1"))
    content = bytearray(text.encode(encoding, errors="replace"))
    for _ in range(random.choice((0, 0, 0, 1, 3))):
        _break(content, random)
    return bytes(content)


def _spoil(values: dict[str, Any], random: Random) -> None:
    """Change one setting, or its name, somewhere in the mapping."""
    where = random.choice([values, *(v for v in values.values() if isinstance(v, dict) and v)])
    key = random.choice(list(where))
    what = random.randrange(4)
    if what == 0:
        where[_misspelt(str(key), random)] = where.pop(key)
    elif what == 1:
        del where[key]
    else:
        where[key] = random.choice(ODD_NODES)


def _break(content: bytearray, random: Random) -> None:
    """Cut the file, or change, remove or add a byte."""
    place = random.randint(0, len(content))
    what = random.randrange(4)
    if what == 0:
        del content[place:]
    elif what == 1:
        del content[place : place + 1]
    else:
        content[place : place + what - 2] = bytes([random.randrange(256)])


FAULTS = (
    Fault(
        "F19",
        "command lines and recipes of odd, misspelt and broken words",
        "exit code 2 and one readable message, or the answer where it makes sense; nothing is "
        "written",
        trials=2000,
        short=30,
        run=nonsense,
        counts="command lines",
    ),
)
