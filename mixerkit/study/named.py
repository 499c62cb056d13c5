"""The studies that come with mixerkit, sized for a few hours on two cores."""

from collections.abc import Callable
from dataclasses import replace

from mixerkit.spec.mixer import variant
from mixerkit.spec.recipe import Augment, Evaluate, Optimizer, Recipe, Save
from mixerkit.spec.recipes import recipe
from mixerkit.spec.token_mixers import TOKEN_MIXERS
from mixerkit.study.grid import ORDERS, Changes, Match, Study, merged

DURATION = "4 epochs"
SEEDS: dict[str, Changes] = {str(seed): {"seed": seed} for seed in (0, 1, 2)}
HEADS, GROUPS, HOLDOUT = 4, 8, 10_000
FEW_STEPS = 1800
"""About four epochs of all images."""


def base() -> Recipe:
    """N/4 (49 tokens) on Fashion-MNIST by AdamW, the same for every model: its settings were not
    chosen for any of them. Measured on training images that were held out; the test is not read."""
    demo = recipe("fashion-demo")
    return replace(
        demo,
        model=variant("N/4", in_channels=1, num_classes=10),
        optimizer=Optimizer(name="adamw", lr=3e-3, weight_decay=0.05),
        data=replace(demo.data, holdout=HOLDOUT),
        evaluate=Evaluate(every=DURATION, test=False),
        save=Save(every=DURATION),
        duration=DURATION,
    )


def mixers(**special: Changes) -> dict[str, Changes]:
    """A level for each token mixer; `special`: what else a level changes of the model."""
    own: dict[str, Changes] = {
        "attention": {"token_groups": HEADS},
        "grouped": {"token_groups": GROUPS},
    }
    return {
        name: {"model": {"token_mixer": name} | own.get(name, {}) | special.get(name, {})}
        for name in TOKEN_MIXERS
    }


def token_mixers() -> Study:
    """Which token mixer is best at equal multiply-adds: channel mixing takes what token mixing
    leaves."""
    factors = {"model.token_mixer": mixers(), "seed": SEEDS}
    return Study("token-mixers", base(), factors, Match("macs", "channel_width"))


def token_mixers_by_parameters() -> Study:
    """Which token mixer is best at equal parameters: MLPs for each channel need few units for
    that."""
    levels = mixers(untied={"token_width": 2})
    factors = {"model.token_mixer": levels, "seed": SEEDS}
    return Study(
        "token-mixers-by-parameters", base(), factors, Match("parameters", "channel_width")
    )


WIDTHS = (24, 40, 64, 96)
RESNET_WIDTHS = (4, 8, 12, 16)
"""With one block a stage, from about as many multiply-adds as a Mixer of `WIDTHS` to as many."""


def frontier() -> Study:
    """What accuracy costs: five architectures at four sizes each, trained equally long."""
    own: dict[str, Changes] = {
        "mlp": {"model": {"token_mixer": "mlp"}},
        "linear": {"model": {"token_mixer": "linear"}},
        "attention": {"model": {"token_mixer": "attention", "token_groups": HEADS}},
        "ViT (timm)": {
            "peer": "vit",
            "model": {"token_mixer": "attention", "token_groups": HEADS},
        },
    }
    levels: dict[str, Changes] = {
        f"{name} {width}": merged(changes, {"model": sizes(width)})
        for name, changes in own.items()
        for width in WIDTHS
    }
    levels |= {f"ResNet (timm) {width}": a_resnet(width) for width in RESNET_WIDTHS}
    return Study("frontier", base(), {"model": levels, "seed": SEEDS})


def sizes(width: int) -> Changes:
    """The proportions of the paper's models."""
    return {"width": width, "token_width": width // 2, "channel_width": 4 * width}


def a_resnet(width: int) -> Changes:
    """One block in each stage."""
    return {"peer": "resnet", "model": {"width": width, "depth": 1}}


MIXER, RESNET, AS_IT_IS = "mlp", "ResNet (timm)", "as it is"
THREE: dict[str, Changes] = {
    MIXER: {},
    "ViT (timm)": {
        "peer": "vit",
        "model": {"token_mixer": "attention", "token_groups": HEADS, "channel_width": 104},
    },
    RESNET: a_resnet(12),
}
"""A Mixer, a ViT and a ResNet of about as many multiply-adds."""


def few_images() -> Study:
    """Who gains most from more images: Mixer, ViT and ResNet on parts of the training images, for
    equally many steps."""
    start = base()
    steps = f"{FEW_STEPS} steps"
    evaluate = Evaluate(every=steps, test=False)
    start = replace(start, duration=steps, evaluate=evaluate, save=Save(every=steps))
    shares = {f"{100 * share:g} %": {"data": {"share": share}} for share in (0.03, 0.1, 0.3, 1.0)}
    return Study("few-images", start, {"model": THREE, "share": shares, "seed": SEEDS})


def permutation() -> Study:
    """Whether the order of patches and pixels matters (paper, section 3.4): images as they are;
    patches in another order and their pixels in another; all pixels in another. One order a seed,
    the same for all images. Images are not shifted: that would tell which pixels are neighbours."""
    evaluate = Evaluate(every="0.5 epochs", test=False)
    start = replace(base(), evaluate=evaluate, augment=Augment())
    orders: dict[str, Changes] = {AS_IT_IS: {}} | {order: {"order": order} for order in ORDERS}
    return Study("permutation", start, {"model": THREE, "order": orders, "seed": SEEDS})


STUDIES: dict[str, Callable[[], Study]] = {
    "token-mixers": token_mixers,
    "token-mixers-by-parameters": token_mixers_by_parameters,
    "frontier": frontier,
    "few-images": few_images,
    "permutation": permutation,
}
