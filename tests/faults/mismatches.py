"""Checkpoints whose tensors have other names, shapes, kinds of numbers, or are not finite (F7)."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch import Tensor

from mixerkit.checkpoint.load import load, load_weights, save_model
from mixerkit.checkpoint.manifest import describe_file, manifest_text
from mixerkit.checkpoint.run import RunFolder
from mixerkit.checkpoint.tensors import read_tensors, write_tensors
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Optimizer, Recipe
from mixerkit.training.state import TrainingState, fresh_state
from tests.checkpoint import published
from tests.faults.fault import Fault, Trial

CONFIG = MixerConfig(
    image_size=(8, 16),
    patch_size=4,
    in_channels=3,
    width=6,
    depth=2,
    token_width=5,
    channel_width=7,
    num_classes=3,
)
FITTING = Recipe(name="tiny", model=CONFIG, optimizer=Optimizer(name="muon"), ema=0.9)
OTHER_KINDS = (torch.float64, torch.int32, torch.int8, torch.bool, torch.float8_e5m2)
FOR_NUMPY = (torch.float64, torch.int32, torch.int8, torch.bool)
MOST = 6
"""Tensors changed in one trial."""

Names = dict[str, str]
"""Name in the file → the name in the error."""


def change_some(
    tensors: dict[str, Tensor], names: Names, random: Random, kinds: tuple[torch.dtype, ...]
) -> list[str]:
    """Change some of `tensors` in place; returns what the error must mention, one for each."""
    changes = (drop, add, rename, reshape, lambda *a: other_kind(*a, kinds), not_finite)
    chosen = random.sample(sorted(names), random.randint(1, MOST))
    return [mention for name in chosen for mention in random.choice(changes)(
        tensors, name, names[name], random)]  # fmt: skip


def drop(tensors: dict[str, Tensor], name: str, ours: str, _: Random) -> list[str]:
    del tensors[name]
    return [ours]


def add(tensors: dict[str, Tensor], name: str, _: str, random: Random) -> list[str]:
    extra = f"{name}_{random.getrandbits(20):x}"
    tensors[extra] = torch.ones(random.randint(0, 3))
    return [extra]


def rename(tensors: dict[str, Tensor], name: str, ours: str, random: Random) -> list[str]:
    extra = add(tensors, name, ours, random)
    tensors[extra[0]] = tensors[name]
    return extra + drop(tensors, name, ours, random)


def reshape(tensors: dict[str, Tensor], name: str, ours: str, random: Random) -> list[str]:
    """Another length of one axis, or one axis more."""
    size = list(tensors[name].shape)
    if not size or random.random() < 0.2:
        size += [2]
    else:
        axis = random.randrange(len(size))
        size[axis] = random.choice([n for n in range(12) if n != size[axis]])
    tensors[name] = torch.ones(size)
    return [ours]


def other_kind(
    tensors: dict[str, Tensor], name: str, ours: str, random: Random, kinds: tuple[torch.dtype, ...]
) -> list[str]:
    tensors[name] = tensors[name].to(random.choice(kinds))
    return [name]


def not_finite(tensors: dict[str, Tensor], name: str, ours: str, random: Random) -> list[str]:
    values = tensors[name].flatten().clone()
    values[random.randrange(len(values))] = random.choice((torch.nan, torch.inf, -torch.inf))
    tensors[name] = values.reshape(tensors[name].shape)
    return [ours]


# -- load_weights -------------------------------------------------------------------------


def vouch(folder: Path) -> None:
    """A manifest that vouches for the files as they are now."""
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    files = {name: describe_file(folder / name) for name in content["files"]}
    path.write_bytes(manifest_text(content["about"], files))


def random_model(random: Random, gelu: str) -> MlpMixer:
    torch.manual_seed(random.getrandbits(32))
    model = MlpMixer(replace(CONFIG, gelu=gelu))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def as_ours(folder: Path, random: Random) -> tuple[Path, list[str]]:
    """A model folder whose manifest vouches for the wrong tensors."""
    path = folder / "ours"
    names = ("a", "b", "c")
    save_model(path, random_model(random, "erf"), Preprocess((8, 16), class_names=names), {})
    tensors = read_tensors(path / "model.safetensors")
    mentions = change_some(tensors, {name: name for name in tensors}, random, OTHER_KINDS)
    write_tensors(path / "model.safetensors", tensors)
    vouch(path)
    return path, mentions


TIMM = (
    ("stem.", "stem.proj."), ("token_norm", "norm1"), ("token_mixing", "mlp_tokens"),
    ("channel_norm", "norm2"), ("channel_mixing", "mlp_channels"),
)  # fmt: skip


def as_timm(folder: Path, random: Random) -> tuple[Path, list[str]]:
    names = {}
    for ours in random_model(random, "erf").state_dict():
        theirs = ours
        for word, other in TIMM:
            theirs = theirs.replace(word, other)
        names[theirs] = ours
    state = random_model(random, "erf").state_dict()
    tensors = {theirs: state[ours] for theirs, ours in names.items()}
    mentions = change_some(tensors, names, random, OTHER_KINDS)
    write_tensors(folder / "timm.safetensors", tensors)
    return folder / "timm.safetensors", mentions


def as_google(folder: Path, random: Random) -> tuple[Path, list[str]]:
    shape = published.Shape(P=4, C=6, L=2, T=5, D=7, S=8, K=3)
    arrays = published.linen(shape, random.getrandbits(32))
    names = {name: next(iter(published.oracle_weights({name: arrays[name]}))) for name in arrays}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    mentions = change_some(tensors, names, random, FOR_NUMPY)
    np.savez(folder / "google.npz", **{name: t.numpy() for name, t in tensors.items()})
    return folder / "google.npz", mentions


def bits_of(tensors: dict[str, Tensor]) -> dict[str, bytes]:
    """Names and bytes."""
    return {name: t.detach().numpy().tobytes() for name, t in tensors.items()}


def refused(call: Callable[[], object], mentions: list[str]) -> None:
    """`call` raises one `UserError` that has a line about every mention."""
    try:
        call()
    except UserError as error:
        lines = str(error).splitlines()
        silent = [one for one in mentions if not any(_is_about(line, one) for line in lines)]
        assert not silent, f"nothing about {silent} in: {error}"
        return
    raise AssertionError(f"nothing was said about {mentions}")


def _is_about(line: str, name: str) -> bool:
    return name in line.replace(":", " ").replace(",", " ").split()


def load_what_does_not_fit(random: Random, folder: Path) -> None:
    write, gelu = random.choice(((as_ours, "erf"), (as_timm, "erf"), (as_google, "tanh")))
    path, mentions = write(folder, random)
    model = random_model(random, gelu)
    before = bits_of(model.state_dict()), model.preprocess, model.about, model.source, model.notes
    refused(lambda: load_weights(model, path), mentions)
    after = bits_of(model.state_dict()), model.preprocess, model.about, model.source, model.notes
    assert before == after, "the model was touched"
    if write is as_ours:
        refused(lambda: load(path), mentions)


# -- resuming -----------------------------------------------------------------------------


def trained(random: Random) -> TrainingState:
    """A state after one update."""
    state = fresh_state(FITTING)
    for parameter in state.model.parameters():
        parameter.grad = torch.full_like(parameter, random.uniform(-1, 1))
    for optimizer in state.optimizers:
        optimizer.step()
    state.step = 1
    return state


def resume_from_what_does_not_fit(random: Random, folder: Path) -> None:
    with RunFolder.create(folder / "run", FITTING) as run:
        run.log({"step": 1, "split": "train"})
        trained(random).save(run, 2)
        run.log({"step": 2, "split": "train"})
        path = run.checkpoints.at(1)
        tensors = read_tensors(path / "tensors.safetensors")
        mentions = change_some(tensors, {name: name for name in tensors}, random, OTHER_KINDS)
        write_tensors(path / "tensors.safetensors", tensors)
        vouch(path)
        state = trained(random)
        before = bits_of(state.tensors())
        refused(lambda: state.restore(run), mentions)
        assert bits_of(state.tensors()) == before, "the state was touched"
        assert len(run.metrics()) == 2, "rows were cut"


def what_does_not_fit(trial: Trial) -> None:
    """Two of three are weights for a model, one is a run's checkpoint."""
    if trial.number % 3:
        load_what_does_not_fit(trial.random, trial.folder)
    else:
        resume_from_what_does_not_fit(trial.random, trial.folder)


FAULTS = (
    Fault(
        "F7",
        "up to six tensors of a checkpoint (weights, averages, optimisers) missing, renamed, of "
        "another shape or kind, or not finite",
        "one error lists them all; the model, or the state of training, is bitwise as it was",
        trials=600,
        short=40,
        run=what_does_not_fit,
        counts="checkpoints",
    ),
)
