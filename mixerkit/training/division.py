"""How the memory of a training step divides among devices, without building anything:
`mixer train RECIPE --dry-run --devices N --memory G`.

Counted from the shapes of the parameters and from what autograd keeps (`model/cost.py`). Left out:
what PyTorch and the device's libraries take for themselves, for which a tenth of the memory is set
aside, and peers of our model.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor

from mixerkit.device import GIB
from mixerkit.errors import UserError
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.recipe import Recipe
from mixerkit.training.optimizer import is_hidden_matrix

USABLE = 0.9
"""Share of a device's memory that the figures may fill."""
CLEARLY_LESS = 0.7
"""Of what was too much, by these figures, what is worth a try."""
SMALLEST = 4
"""Images in a micro-batch below which cutting it up costs more than computing blocks twice."""


@dataclass(frozen=True)
class Share:
    """Bytes on the device that has most at the peak of a step. `accumulation`: micro-batches that
    each process cuts its part into. `gathered`: what FSDP has whole meanwhile. `casts`: the
    matrices in bfloat16. `activations`: what autograd keeps, with images and outputs."""

    strategy: str
    activation_checkpointing: bool
    accumulation: int
    weights: int
    gradients: int
    optimizer: int
    average: int
    gathered: int
    casts: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        parts = (self.weights, self.gradients, self.optimizer, self.average)
        return sum(parts) + self.gathered + self.casts + self.activations

    def fits(self, memory: float) -> bool:
        """Whether it fits into so many GiB, with a tenth set aside."""
        return self.total <= USABLE * memory * GIB

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"total": self.total}

    def settings(self) -> str:
        """What to say on the command line for it."""
        return f"--strategy {self.strategy} {self.settings_alone()}"

    def settings_alone(self) -> str:
        """The same where there is one device."""
        twice = " --activation-checkpointing" if self.activation_checkpointing else ""
        return f"--accumulation {self.accumulation}{twice}"


@dataclass(frozen=True)
class Division:
    """All ways to divide a recipe among `devices`: `shares`, each with the fewest micro-batches
    that fit into `memory` GiB, or as many as there can be."""

    recipe: str
    parameters: int
    devices: int
    memory: float
    batch_size: int
    shares: tuple[Share, ...]

    def fits(self, share: Share) -> bool:
        """Whether it fits into the memory of a device."""
        return share.fits(self.memory)

    @property
    def best(self) -> Share | None:
        """The cheapest in time that fits: whole models before divided ones, and blocks computed
        once before blocks computed twice, unless micro-batches become tiny."""
        fitting = [share for share in self.shares if self.fits(share)]
        large = [s for s in fitting if self.micro_batch(s) >= min(SMALLEST, self.per_device)]
        return next(iter(large or fitting), None)

    @property
    def per_device(self) -> int:
        """Images of each batch on a device."""
        return self.batch_size // self.devices

    def micro_batch(self, share: Share) -> int:
        """Images that go through the model at once."""
        return self.per_device // share.accumulation

    def as_dict(self) -> dict[str, Any]:
        """For `--json`; bytes."""
        best = self.best
        return {
            "recipe": self.recipe,
            "parameters": self.parameters,
            "devices": self.devices,
            "memory_gib": self.memory,
            "batch_size": self.batch_size,
            "shares": [share.as_dict() | {"fits": self.fits(share)} for share in self.shares],
            "best": best.as_dict() if best else None,
        }


def divide(recipe: Recipe, devices: int, memory: float) -> Division:
    """Every strategy for the recipe on `devices` with `memory` GiB each, whatever it says of
    strategy, accumulation and activation checkpointing itself."""
    if devices < 1 or not memory > 0:
        raise UserError(f"Expected devices and memory above 0, found {devices} and {memory:g}.")
    if recipe.batch_size % devices:
        raise UserError(
            f"batch_size {recipe.batch_size} must be a multiple of the number of devices, found "
            f"{devices}."
        )
    shares = tuple(
        _fewest(recipe, devices, memory, strategy, twice)
        for strategy in (("ddp", "fsdp") if devices > 1 else ("ddp",))
        for twice in (False, True)
    )
    parameters = cost(recipe.model).parameters
    return Division(recipe.name, parameters, devices, memory, recipe.batch_size, shares)


def to_fit(recipe: Recipe, devices: int, memory: float | None) -> str:
    """What to say to somebody whose step did not fit into `memory` GiB (None: nobody knows how
    many), whatever the closed forms say: a way that takes clearly less than the recipe's own."""
    twice, parts = recipe.activation_checkpointing, recipe.accumulation
    own = share_of(recipe, devices, recipe.strategy, twice, parts).total / GIB
    less = CLEARLY_LESS * own / USABLE
    best = divide(recipe, devices, less if memory is None else min(less, memory)).best
    if best is None:
        return f"A step needs about {own:.1f} GiB: take a smaller model, or more devices."
    settings = best.settings() if devices > 1 else best.settings_alone()
    return (
        f"A step needs about {own:.1f} GiB, and {best.total / GIB:.1f} GiB with {settings}, which "
        f"gives the same updates: start again with that. `mixer train RECIPE --dry-run "
        f"--devices {devices} --memory GIB` shows other ways."
    )


def _fewest(recipe: Recipe, devices: int, memory: float, strategy: str, twice: bool) -> Share:
    """The share with the fewest micro-batches that fits, or the one with most of them."""
    per_device = recipe.batch_size // devices
    counts = [n for n in range(1, per_device + 1) if per_device % n == 0]
    shares = [share_of(recipe, devices, strategy, twice, count) for count in counts]
    fitting = (share for share in shares if share.fits(memory))
    return next(fitting, shares[-1])


def share_of(
    recipe: Recipe, devices: int, strategy: str, activation_checkpointing: bool, accumulation: int
) -> Share:
    """The bytes of one way."""
    parameters = _parameters(recipe.model)
    divided = strategy == "fsdp" and devices > 1

    def kept(shape: torch.Size) -> int:
        """Numbers of a parameter on the first device, which has the most rows."""
        rows = -(-shape[0] // devices) if divided else shape[0]
        return rows * prod(shape[1:])

    sizes = {name: kept(parameter.shape) for name, parameter in parameters.items()}
    own = 4 * sum(sizes.values())
    half = recipe.precision == "bfloat16"
    matrices = sum(p.numel() for p in parameters.values() if p.ndim > 1)
    sam = bool(recipe.optimizer.sam)
    return Share(
        strategy,
        activation_checkpointing,
        accumulation,
        weights=own * (2 if sam else 1),
        gradients=own * (2 if sam else 1),
        optimizer=sum(_state(recipe, name, parameters[name], size) for name, size in sizes.items()),
        average=own if recipe.ema else 0,
        gathered=_gathered(recipe, parameters) if divided else 0,
        casts=2 * matrices if half else 0,
        activations=_activations(recipe, devices, activation_checkpointing, accumulation),
    )


@cache
def _parameters(config: MixerConfig) -> dict[str, Tensor]:
    """Every parameter by name, without any numbers."""
    with torch.device("meta"):
        return dict(MlpMixer(config).named_parameters())


def _state(recipe: Recipe, name: str, parameter: Tensor, size: int) -> int:
    """Bytes that the optimiser keeps of one parameter, of which `size` numbers are here."""
    spec = recipe.optimizer
    if spec.name == "sgd":
        return 4 * size if spec.momentum else 0
    if spec.name == "muon" and is_hidden_matrix(name, parameter):
        return 4 * size
    return 8 * size + 4  # two means, and the number of updates


def _gathered(recipe: Recipe, parameters: dict[str, Tensor]) -> int:
    """What FSDP has whole at the peak: what is in no block; two blocks, of which one is fetched
    ahead; a block's gradients and their copy to be sent; and for Muon all matrices of one shape,
    before and after."""
    rest = sum(p.numel() for name, p in parameters.items() if not name.startswith("blocks."))
    block = sum(p.numel() for name, p in parameters.items() if name.startswith("blocks.0."))
    step = 4 * (rest + 4 * block)
    if recipe.optimizer.name != "muon":
        return step
    groups: Counter[torch.Size] = Counter()
    for name, parameter in parameters.items():
        if is_hidden_matrix(name, parameter):
            groups[parameter.shape] += parameter.numel()
    return max(step, 3 * 4 * max(groups.values(), default=0))


def _activations(recipe: Recipe, devices: int, twice: bool, accumulation: int) -> int:
    """Of one micro-batch: what autograd keeps; computed twice, the input of each block and what
    one of them keeps. With the images, and the outputs in the loss."""
    config = recipe.model
    images = recipe.batch_size // devices // accumulation
    inside = 2 if recipe.precision == "bfloat16" else 4
    blocks = [0] * config.depth
    rest = 0
    for part in cost(config).parts:
        # norms stay in float32
        each = 4 if "norm" in part.name else inside
        if part.name.startswith("block "):
            blocks[int(part.name.split()[1]) - 1] += each * part.saved
        else:
            rest += each * part.saved
    stream = 4 * config.num_patches * config.width
    kept = config.depth * stream + max(blocks, default=0) if twice else sum(blocks)
    pixels = 4 * config.in_channels * prod(config.image_hw)
    outputs = 4 * 4 * config.num_classes  # logits, targets, their logarithms and gradients
    return images * (kept + rest + pixels + outputs)
