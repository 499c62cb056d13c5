"""Model folders, runs and recipes made to harm."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from mixerkit.checkpoint.load import load, save_model
from mixerkit.checkpoint.manifest import describe_file, manifest_text
from mixerkit.checkpoint.pretrained import from_pretrained
from mixerkit.spec.recipes import recipe
from tests.faults import pickles
from tests.faults.power import PREPROCESS, model
from tests.faults.runs import make_run
from tests.faults.ways_in import (
    Make,
    Payload,
    convert,
    file,
    into_a_model,
    newest_checkpoint,
    resumed,
    summary,
    train,
    verified,
)

Change = Callable[[Path, Path], object]
"""Does something to a folder; the second path is as in `Make`."""

# -- folders ------------------------------------------------------------------------------


def ours(change: Change) -> Make:
    """A model folder to which something was done."""

    def make(folder: Path, trap: Path) -> Path:
        save_model(folder / "model", model(1), PREPROCESS, {})
        change(folder / "model", trap)
        return folder / "model"

    return make


def lists(name: str) -> Change:
    """The manifest vouches for a file outside the folder as well, truthfully."""

    def change(folder: Path, trap: Path) -> None:
        outside = folder.parent / "outside"
        outside.write_text("secret")
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        called = name.replace("OUTSIDE", str(outside))
        content["files"][called] = describe_file(outside)
        path.write_bytes(manifest_text(content["about"], content["files"]))

    return change


def replaced(name: str, by: str | bytes) -> Change:
    """A file gives way to a link to the path `by`, or to the bytes `by`."""

    def change(folder: Path, trap: Path) -> None:
        (folder / name).unlink()
        if isinstance(by, bytes):
            (folder / name).write_bytes(by)
        else:
            (folder / name).symlink_to(by)

    return change


def pipe(name: str) -> Change:
    def change(folder: Path, trap: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def sealed(name: str, by: bytes) -> Change:
    """Other bytes, and a manifest that vouches for them."""

    def change(folder: Path, trap: Path) -> None:
        (folder / name).write_bytes(by)
        path = folder / "manifest.json"
        content = json.loads(path.read_text())
        content["files"][name] = describe_file(folder / name)
        path.write_bytes(manifest_text(content["about"], content["files"]))

    return change


def timms_with_pickle(folder: Path, trap: Path) -> Path:
    (folder / "timm").mkdir()
    (folder / "timm" / "config.json").write_text('{"architecture": "mixer_b16_224"}')
    (folder / "timm" / "pytorch_model.bin").write_bytes(pickles.pth(
        pickles.programs(trap)["protocol 2"]))  # fmt: skip
    return folder / "timm"


def with_index(folder: Path, trap: Path) -> Path:
    """Weights in several files, which an index names: one of them outside."""
    (folder / "parts").mkdir()
    index = {"weight_map": {"stem.weight": "../../outside.bin", "head.weight": "/etc/hostname"}}
    (folder / "parts" / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "parts" / "config.json").write_text('{"architecture": "mixer_b16_224"}')
    return folder / "parts"


FOLDERS = [
    Payload(name, ours(change), (load, into_a_model, from_pretrained, convert))
    for name, change in {
        "manifest lists ../outside": lists("../outside"),
        "manifest lists an absolute path": lists("OUTSIDE"),
        "manifest lists a path that comes back": lists("x/../../outside"),
        "config.json is a device": replaced("config.json", "/dev/zero"),
        "weights are a device": replaced("model.safetensors", "/dev/zero"),
        "manifest is a device": replaced("manifest.json", "/dev/zero"),
        "manifest is a link to itself": replaced("manifest.json", "manifest.json"),
        "config.json is a pipe": pipe("config.json"),
        "weights are a pipe": pipe("model.safetensors"),
        "config.json of brackets": sealed("config.json", b"[" * (1 << 20)),
        "config.json of a million lists": sealed(
            "config.json", b'{"a":[' + b"[]," * (1 << 20) + b"[]]}"),
        "config.json of 30 MB": sealed("config.json", b'{"a":"' + b"x" * (30 << 20) + b'"}'),
        "manifest of 30 MB": replaced("manifest.json", b'{"a":"' + b"x" * (30 << 20) + b'"}'),
    }.items()
]  # fmt: skip
FOLDERS += [
    Payload("pickle in timm's folder", timms_with_pickle, (load, into_a_model, convert)),
    Payload("index of parts outside", with_index, (load, into_a_model, convert)),
]


# -- runs and recipes ---------------------------------------------------------------------


def a_run(change: Change, step: bool = True) -> Make:
    """A run with one checkpoint, to which, or to whose checkpoint, something was done."""

    def make(folder: Path, trap: Path) -> Path:
        run = make_run(folder / "run", (1,))
        change(run / "checkpoints" / "step-00000001" if step else run, trap)
        return run

    return make


def pickled_tensors(folder: Path, trap: Path) -> None:
    content = pickles.pth(pickles.programs(trap)["protocol 2"])
    sealed("tensors.safetensors", content)(folder, trap)


CHECKPOINTS = [
    Payload(f"checkpoint: {name}", a_run(change), (newest_checkpoint, resumed, verified))
    for name, change in {
        "pickle as tensors": pickled_tensors,
        "pickle as state": sealed("state.json", pickle.dumps({"step": 1})),
        "manifest lists ../outside": lists("../outside"),
        "tensors are a device": replaced("tensors.safetensors", "/dev/zero"),
        "state is a link out": replaced("state.json", "/etc/hostname"),
        "tensors are a pipe": pipe("tensors.safetensors"),
    }.items()
]
RUNS = [
    Payload(f"run: {name}", a_run(change, step=False), (newest_checkpoint, verified))
    for name, change in {
        "manifest lists ../outside": lists("../outside"),
        "manifest is a device": replaced("manifest.json", "/dev/zero"),
        "recipe is a device": replaced("recipe.yaml", "/dev/zero"),
    }.items()
]
MERGES = b"a0: &a0 {k: 1}\n" + b"".join(
    b"a%d: &a%d {<<: [" % (i, i) + b",".join([b"*a%d" % (i - 1)] * 9) + b"]}\n" for i in range(1, 9)
)
LAUGHS = b"a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"a%d: &a%d [" % (i, i) + b",".join([b"*a%d" % (i - 1)] * 9) + b"]\n" for i in range(1, 9)
)


def tagged(tag: str, rest: str) -> Callable[[Path], bytes]:
    return lambda trap: f"name: !!python/{tag} {rest.replace('TRAP', str(trap))}\n".encode()


YAML: dict[str, Callable[[Path], bytes]] = {
    "object/apply": tagged("object/apply:os.mkdir", "[TRAP]"),
    "object/new": tagged("object/new:os.mkdir", "[TRAP]"),
    "object": tagged("object:pathlib.Path", "{}"),
    "name": tagged("name:os.mkdir", "''"),
    "module": tagged("module:os", "''"),
    "tuple": tagged("tuple", "[1, 2]"),
    "aliases by the milliard": lambda _: LAUGHS,
    "aliases as a value": lambda _: LAUGHS.replace(b"a0: &a0", b"name: &a0") + b"model: *a8\n",
    "merged aliases": lambda _: MERGES,
    "a list in itself": lambda _: b"name: &a [*a]\n",
    "many keys": lambda _: b"".join(b"k%d: 1\n" % i for i in range(20_000)),
    "brackets": lambda _: b"name: " + b"[" * 70_000,
    "one long word": lambda _: b"name: " + b"x" * (8 << 20),
}
RECIPES = [
    Payload(f"recipe: {name}", file("x.yaml", text), (lambda path: recipe(str(path)), train))
    for name, text in YAML.items()
]
STORED_RECIPES = [
    Payload(
        f"run's recipe: {name}",
        a_run(lambda run, trap, text=text: sealed("recipe.yaml", text(trap))(run, trap), False),
        (summary,),
    )
    for name, text in YAML.items()
]
