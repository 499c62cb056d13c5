"""The names that other implementations give to a Mixer's tensors, as data.

Each table maps our modules to patterns of theirs: `{i}` is the block, `{weight}` their word for
a weight of that kind, and "bias" is "bias" everywhere. Our own names are those of the model.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

Sizes = dict[str, tuple[int, ...]]
"""Tensor name → shape."""


@dataclass(frozen=True)
class Layout:
    """How one implementation names its tensors, and in which order their axes are.

    `modules`: our module → its pattern. `words`: the kind of weight → their word for it.
    `flax`: dense kernels are [in, out] and the stem's [P, P, I, C], instead of PyTorch's
    [out, in] and [C, I, P, P]. `gelu`, `eps`: what that implementation computes.
    """

    name: str
    title: str
    modules: dict[str, str]
    words: dict[str, str] = field(
        default_factory=lambda: {"stem": "weight", "norm": "weight", "dense": "weight"}
    )
    flax: bool = False
    gelu: str = "erf"
    eps: float = 1e-6


FLAX_WORDS = {"stem": "kernel", "norm": "scale", "dense": "kernel"}

GOOGLE = Layout(
    name="google",
    title="the authors' .npz (Flax Linen)",
    modules={
        "stem": "stem/{leaf}",
        "blocks.{i}.token_norm": "MixerBlock_{i}/LayerNorm_0/{leaf}",
        "blocks.{i}.token_mixing.fc1": "MixerBlock_{i}/token_mixing/Dense_0/{leaf}",
        "blocks.{i}.token_mixing.fc2": "MixerBlock_{i}/token_mixing/Dense_1/{leaf}",
        "blocks.{i}.channel_norm": "MixerBlock_{i}/LayerNorm_1/{leaf}",
        "blocks.{i}.channel_mixing.fc1": "MixerBlock_{i}/channel_mixing/Dense_0/{leaf}",
        "blocks.{i}.channel_mixing.fc2": "MixerBlock_{i}/channel_mixing/Dense_1/{leaf}",
        "norm": "pre_head_layer_norm/{leaf}",
        "head": "head/{leaf}",
    },
    words=FLAX_WORDS,
    flax=True,
    gelu="tanh",
)

GOOGLE_OLDER = Layout(
    name="google-older",
    title="the authors' .npz with the names of before Linen (Mixer/encoderblock_0/…)",
    modules={
        "stem": "embedding/{leaf}",
        "blocks.{i}.token_norm": "Mixer/encoderblock_{i}/LayerNorm_0/{leaf}",
        "blocks.{i}.token_mixing.fc1": "Mixer/encoderblock_{i}/token_mixing_phase_0/{leaf}1",
        "blocks.{i}.token_mixing.fc2": "Mixer/encoderblock_{i}/token_mixing_phase_0/{leaf}2",
        "blocks.{i}.channel_norm": "Mixer/encoderblock_{i}/LayerNorm_1/{leaf}",
        "blocks.{i}.channel_mixing.fc1": "Mixer/encoderblock_{i}/channel_mixing_phase_0/{leaf}1",
        "blocks.{i}.channel_mixing.fc2": "Mixer/encoderblock_{i}/channel_mixing_phase_0/{leaf}2",
        "norm": "Mixer/encoder_norm/{leaf}",
        "head": "head/{leaf}",
    },
    words=FLAX_WORDS,
    flax=True,
    gelu="tanh",
)

TIMM = Layout(
    name="timm",
    title="timm's mixer_*",
    modules={
        "stem": "stem.proj.{leaf}",
        "blocks.{i}.token_norm": "blocks.{i}.norm1.{leaf}",
        "blocks.{i}.token_mixing.fc1": "blocks.{i}.mlp_tokens.fc1.{leaf}",
        "blocks.{i}.token_mixing.fc2": "blocks.{i}.mlp_tokens.fc2.{leaf}",
        "blocks.{i}.channel_norm": "blocks.{i}.norm2.{leaf}",
        "blocks.{i}.channel_mixing.fc1": "blocks.{i}.mlp_channels.fc1.{leaf}",
        "blocks.{i}.channel_mixing.fc2": "blocks.{i}.mlp_channels.fc2.{leaf}",
        "norm": "norm.{leaf}",
        "head": "head.{leaf}",
    },
)

MMPRETRAIN = Layout(
    name="mmpretrain",
    title="mmpretrain's MlpMixer",
    modules={
        "stem": "backbone.patch_embed.projection.{leaf}",
        "blocks.{i}.token_norm": "backbone.layers.{i}.ln1.{leaf}",
        "blocks.{i}.token_mixing.fc1": "backbone.layers.{i}.token_mix.layers.0.0.{leaf}",
        "blocks.{i}.token_mixing.fc2": "backbone.layers.{i}.token_mix.layers.1.{leaf}",
        "blocks.{i}.channel_norm": "backbone.layers.{i}.ln2.{leaf}",
        "blocks.{i}.channel_mixing.fc1": "backbone.layers.{i}.channel_mix.layers.0.0.{leaf}",
        "blocks.{i}.channel_mixing.fc2": "backbone.layers.{i}.channel_mix.layers.1.{leaf}",
        "norm": "backbone.ln1.{leaf}",
        "head": "head.fc.{leaf}",
    },
    eps=1e-5,  # mmcv's LayerNorm, whatever the weights were trained with
)

OURS = Layout(
    name="mixerkit",
    title="mixerkit's own",
    modules={module: f"{module}.{{leaf}}" for module in TIMM.modules}
    | {
        "blocks.{i}.token_mixing.fc": "blocks.{i}.token_mixing.fc.{leaf}",
        "blocks.{i}.channel_mixing.fc": "blocks.{i}.channel_mixing.fc.{leaf}",
    },
    gelu="as in its config.json",
)

LAYOUTS = {each.name: each for each in (OURS, GOOGLE, GOOGLE_OLDER, TIMM, MMPRETRAIN)}

WRAPPERS = ("params/", "opt/target/", "state_dict.", "model.", "module.", "_orig_mod.")
"""What training scripts put before every name."""
TRAINING_STATE = ("params/", "opt/target/")
"""Where a training checkpoint has the weights, beside the optimiser's numbers."""


@dataclass(frozen=True)
class Found:
    """A tensor of a file: its name there, and whether its axes are Flax's."""

    name: str
    flax: bool


@dataclass(frozen=True)
class Recognised:
    """The tensors of a file under our names; `unknown` are those that no Mixer has, and `beside`
    counts those outside a training checkpoint's weights."""

    layout: Layout
    tensors: dict[str, Found]
    unknown: list[str]
    beside: int = 0


def recognise(names: Iterable[str]) -> Recognised | None:
    """The layout that explains most of `names`, and our names for them; None if none does."""
    every = list(names)
    weights = weights_among(every)
    plain = unwrapped(weights)
    best: Recognised | None = None
    for layout in LAYOUTS.values():
        # the plain numbers first: renumbering closes gaps, and a missing block must be noticed
        for mapped in (plain, renumbered(plain)) if layout.flax else (plain,):
            found = _explained(layout, mapped, len(every) - len(weights))
            if best is None or len(found.tensors) > len(best.tensors):
                best = found
    return best if best and best.tensors else None


def _explained(layout: Layout, mapped: dict[str, str], beside: int) -> Recognised:
    """What `layout` makes of names in the file → names without wrappers."""
    tensors: dict[str, Found] = {}
    unknown = []
    for original, name in mapped.items():
        ours = our_name(layout, name)
        if ours is None or ours in tensors:
            unknown.append(original)
        else:
            tensors[ours] = Found(original, layout.flax)
    return Recognised(layout, tensors, unknown, beside)


def weights_among(names: list[str]) -> list[str]:
    """The names of a training checkpoint's weights; all names where it is none."""
    for prefix in TRAINING_STATE:
        chosen = [name for name in names if name.startswith(prefix)]
        if chosen:
            return chosen
    return names


def unwrapped(names: list[str]) -> dict[str, str]:
    """Each name → the name without what a training script put before all of them."""
    short = {name: name for name in names}
    changed = bool(names)
    while changed:
        changed = False
        for prefix in WRAPPERS:
            if all(name.startswith(prefix) for name in short.values()):
                short = {name: plain.removeprefix(prefix) for name, plain in short.items()}
                changed = True
    return short


def renumbered(names: dict[str, str]) -> dict[str, str]:
    """Names with Linen's numbering, which counts each class of a scope on its own from 0.

    Before Linen one count ran through all the classes of a scope (LayerNorm_0, Dense_1, …).
    """
    scopes: dict[tuple[str, str], set[int]] = {}
    for name in names.values():
        for scope, word, number in _numbered_parts(name):
            scopes.setdefault((scope, word), set()).add(number)
    ranks = {key: {n: i for i, n in enumerate(sorted(found))} for key, found in scopes.items()}

    def renamed(name: str) -> str:
        parts = name.split("/")
        for index, part in enumerate(name.split("/")):
            if match := re.fullmatch(NUMBERED, part):
                rank = ranks["/".join(name.split("/")[:index]), match[1]][int(match[2])]
                parts[index] = f"{match[1]}_{rank}"
        return "/".join(parts)

    return {original: renamed(name) for original, name in names.items()}


NUMBERED = r"([A-Z][A-Za-z]*)_([0-9]{1,4})"
"""A class name and its number: LayerNorm_1, MixerBlock_11, but not encoderblock_3."""


def _numbered_parts(name: str) -> list[tuple[str, str, int]]:
    """(scope, class, number) for every numbered part of a name."""
    parts = name.split("/")
    matches = [(i, re.fullmatch(NUMBERED, part)) for i, part in enumerate(parts)]
    return [("/".join(parts[:i]), m[1], int(m[2])) for i, m in matches if m]


def their_name(layout: Layout, ours: str) -> str | None:
    """The name that `layout` gives to our tensor; None when it has no such tensor."""
    module, _, leaf = ours.rpartition(".")
    block = re.search(r"^blocks\.([0-9]+)\.", module)
    general = re.sub(r"^blocks\.[0-9]+\.", "blocks.{i}.", module)
    if general not in layout.modules:
        return None
    word = layout.words[kind(module)] if leaf == "weight" else leaf
    pattern = layout.modules[general].replace("{leaf}", word)
    return pattern.replace("{i}", block[1]) if block else pattern


def our_name(layout: Layout, theirs: str) -> str | None:
    """Our name for a tensor of `layout`; None when a Mixer has no such tensor."""
    known = _known_names(layout.name)
    if "{" in theirs:
        return None
    if theirs in known:
        return known[theirs]
    for number in re.finditer(BLOCK_NUMBER, theirs):
        general = f"{theirs[: number.start()]}{{i}}{theirs[number.end() :]}"
        if general in known:
            return known[general].replace("{i}", number[0])
    return None


BLOCK_NUMBER = r"(?<![0-9])(?:0|[1-9][0-9]{0,4})(?![0-9])"


@cache
def _known_names(layout: str) -> dict[str, str]:
    """Their name of every tensor → ours, with {i} in both where the block's number stands."""
    chosen = LAYOUTS[layout]
    return {
        theirs.replace("{leaf}", word): f"{module}.{leaf}"
        for module, theirs in chosen.modules.items()
        for leaf, word in (("weight", chosen.words[kind(module)]), ("bias", "bias"))
    }


def kind(module: str) -> str:
    """ "stem", "norm" or "dense"."""
    last = module.rpartition(".")[2]
    return "stem" if last == "stem" else "norm" if last.endswith("norm") else "dense"
