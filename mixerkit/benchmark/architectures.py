"""Mixers of the paper and what it compares them with, at any image size: to be timed and priced.

Others are timm's. All have random weights, 1000 classes and exact GELU, the only kind that timm's
ViT has. A Mixer for larger images than `native_size` is made by `model/surgery.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mixerkit.benchmark.peers import counted, timm_models
from mixerkit.model.cost import cost
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import Enlargement, adapt
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.paper import LARGEST, RESULTS
from mixerkit.timer import Call

Model = TypeVar("Model", bound=nn.Module)

FORMS: dict[Enlargement, str] = {
    "resample": "token width kept",
    "dense": "dense",
    "shared": "shared tiles",
}
"""How a Mixer is enlarged, in words. The paper runs "dense"."""


@dataclass(frozen=True)
class Architecture:
    """A model and the side of its images in pixels.

    `name` is a family and a size, as in "ViT-B/16"; without `timm_name` it is a Mixer, and one
    larger than `native_size` has a `form`. `stand_in` says what it stands for where the published
    model itself is not to be had.
    """

    name: str
    image_size: int = 224
    timm_name: str = ""
    form: Enlargement | None = None
    native_size: int = 224
    stand_in: str = ""

    @property
    def family(self) -> str:
        """What comes before the size: "Mixer", "ViT", "BiT" and so on."""
        return self.name.partition("-")[0]

    @property
    def title(self) -> str:
        """Name, image size and form."""
        form = f", {FORMS[self.form]}" if self.form else ""
        return f"{self.name} at {self.image_size} px{form}"

    @property
    def native(self) -> MixerConfig:
        """The Mixer that this one is made from."""
        return variant(self.name.removeprefix("Mixer-"), gelu="erf", image_size=self.native_size)

    @property
    def published_rate(self) -> int | None:
        """Images per second and TPUv3 core in the paper; None for what is not in its tables."""
        if self.stand_in or self.form in ("shared", "resample"):
            return None
        return published_rate(self.name, self.image_size)


def published_rate(name: str, image_size: int) -> int | None:
    """Images per second and TPUv3 core in the paper's tables 2 and 3. Where they leave the size out
    the model is at its best one, which is above 224 px."""
    sizes = (224,) if image_size == 224 else (image_size, None)
    rows = (row for row in (*RESULTS, *LARGEST) if row.model == name and row.image_size in sizes)
    return next((row.images_per_second for row in rows), None)


def built(architectures: Sequence[Architecture]) -> dict[str, nn.Module]:
    """The models by title. Forms of one Mixer share the weights that they have in common."""
    configs = {one.native for one in architectures if not one.timm_name}
    natives = {config: randomly(partial(MlpMixer, config)) for config in configs}
    models: dict[str, nn.Module] = {}
    for one in architectures:
        if not one.timm_name:
            models[one.title] = enlarged(natives[one.native], one)
        elif one.family == "ViT":
            models[one.title] = randomly(partial(timm_model, one))
        else:
            models[one.title] = standardised_once(timm_model(one))
    return models


def standardised_once(model: nn.Module) -> nn.Module:
    """`model` with the same outputs and plain convolutions: BiT and NFNet standardise their
    weights, in timm in every pass, which a trained model needs only once."""
    layers: Any = import_module("timm.layers")
    standardising = (
        layers.StdConv2d, layers.StdConv2dSame, layers.ScaledStdConv2d, layers.ScaledStdConv2dSame,
    )  # fmt: skip
    for name, module in list(model.named_modules()):
        if not isinstance(module, standardising):
            continue
        kind: Any = layers.Conv2dSame if getattr(module, "same_pad", False) else nn.Conv2d
        with torch.device("meta"):
            plain = kind(
                module.in_channels, module.out_channels, module.kernel_size, module.stride,
                module.padding, module.dilation, module.groups, module.bias is not None,
            )  # fmt: skip
        plain.weight, plain.bias = nn.Parameter(standardised(module)), module.bias
        model.set_submodule(name, plain, strict=True)
    return model


@torch.no_grad()
def standardised(convolution: nn.Module) -> Tensor:
    """The weights of one of timm's convolutions as it uses them: mean 0 and variance 1 for each
    output (Qiao et al. 2019), in NFNet times a gain."""
    one: Any = convolution
    gain = (one.gain * one.scale).flatten() if hasattr(one, "gain") else None
    flat = one.weight.reshape(1, one.out_channels, -1)
    weight = F.batch_norm(flat, None, None, gain, training=True, momentum=0.0, eps=one.eps)
    return weight.view_as(one.weight)


def randomly(build: Callable[[], Model]) -> Model:
    """A model without buffers, of small random numbers: to draw the initial weights of H/14 takes
    half a minute, and the speed does not depend on them."""
    with torch.device("meta"):
        model = build()
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.02)
    return model


def enlarged(native: MlpMixer, architecture: Architecture) -> MlpMixer:
    """The Mixer in the architecture's form; tensors that stay the same are the native model's."""
    if not architecture.form:
        return native
    config, tensors = adapt(
        native.config,
        native.state_dict(),
        image_size=architecture.image_size,
        enlargement=architecture.form,
    )
    with torch.device("meta"):
        model = MlpMixer(config)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model


def timm_model(architecture: Architecture) -> nn.Module:
    """timm's model with timm's initial weights. A ViT is made for its image size, BotNet for that
    in its name, which it is given here; convolutions take any."""
    size: dict[str, Any] = {"img_size": architecture.image_size}
    model: nn.Module = timm_models().create_model(
        architecture.timm_name,
        pretrained=False,
        **(size if architecture.family == "ViT" else {}),
    )
    return model


def priced(architecture: Architecture) -> tuple[int, int]:
    """(parameters, multiply-adds of one image): a Mixer's in closed form, others as PyTorch counts
    them."""
    one = architecture
    if one.timm_name:
        with torch.device("meta"):
            model = timm_model(one)
        return counted(model, (3, one.image_size, one.image_size))
    config = one.native
    if one.form:
        config, _ = adapt(config, {}, image_size=one.image_size, enlargement=one.form)
    found = cost(config)
    return found.parameters, found.macs


def forward(model: nn.Module, image_size: int, batch: int) -> Call:
    """One pass over a batch of noise in inference mode, ready to be timed."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, image_size, image_size, generator=generator)
    model.eval()

    def call() -> None:
        with torch.inference_mode():
            model(images)

    return call
