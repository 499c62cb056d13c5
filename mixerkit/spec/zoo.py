"""Every published Mixer: where its file is, what it was really trained on, and how good it is.

Sizes and accuracies are the publishers' own; `source` says whose. What timm calls
"goog_in21k_ft_in1k" are the files trained on ImageNet-1k from scratch: their accuracies are
those of the paper's from-scratch rows (76.44 and 71.76), not of its fine-tuned ones (80.64 and
82.89), and an author says so in timm's pull request 651.
"""

from dataclasses import dataclass, replace
from typing import Literal

from mixerkit.spec.imagenet import imagenet_classes
from mixerkit.spec.preprocess import Preprocess

GOOGLE = "https://storage.googleapis.com/mixer_models/"

AUTHORS = Preprocess(resize_to=256, resize="shortest", interpolation="bilinear")
"""How the authors prepared images: values in [-1, 1], short side 256, centre 224."""
MIIL = Preprocess(resize_to=256, interpolation="bilinear", mean=(0.0,), std=(1.0,))
"""How MIIL prepared images: values in [0, 1]."""


@dataclass(frozen=True)
class Published:
    """One published file.

    `file`: an address below `GOOGLE`, or a whole one such as `hf://org/name`. `mebibytes`: its
    size as listed, to two decimals; 0 when not listed. `top1`, `real`: ImageNet accuracy in per
    cent with the original and the ReaL labels; None when never published. `source`: who measured
    them.
    """

    name: str
    file: str
    variant: str
    trained_on: str
    num_classes: int
    gelu: Literal["tanh", "erf"]
    preprocess: Preprocess = AUTHORS
    mebibytes: float = 0.0
    top1: float | None = None
    real: float | None = None
    source: str = ""
    note: str = ""

    @property
    def address(self) -> str:
        """Where the file is."""
        return self.file if "://" in self.file else GOOGLE + self.file

    @property
    def prepared(self) -> Preprocess:
        """`preprocess` with the names of the classes, where they are ImageNet-1k's."""
        names = imagenet_classes() if self.num_classes == 1000 else ()
        return replace(self.preprocess, class_names=names)


def _google(
    name: str,
    file: str,
    variant: str,
    trained_on: str,
    mebibytes: float,
    num_classes: int = 1000,
    top1: float | None = None,
    real: float | None = None,
    source: str = "",
    note: str = "",
) -> Published:
    return Published(
        name=f"{name}-google",
        file=file,
        variant=variant,
        trained_on=trained_on,
        num_classes=num_classes,
        gelu="tanh",
        mebibytes=mebibytes,
        top1=top1,
        real=real,
        source=source,
        note=note,
    )


SCRATCH = "ImageNet-1k from scratch, 300 epochs"
I21K = "ImageNet-21k, 300 epochs"
SAM = "ImageNet-1k from scratch with SAM"
GSAM = "ImageNet-1k from scratch with GSAM"
SECOND_HAND = "second-hand, not in the paper"

_ALL = (
    _google("b16-imagenet1k", "imagenet1k/Mixer-B_16.npz", "B/16", SCRATCH, 228.47,
            top1=76.44, real=82.36, source="paper, table 3"),
    _google("l16-imagenet1k", "imagenet1k/Mixer-L_16.npz", "L/16", SCRATCH, 794.29,
            top1=71.76, real=77.08, source="paper, table 3"),
    _google("b16-imagenet21k", "imagenet21k/Mixer-B_16.npz", "B/16", I21K, 289.61, 21843,
            note="80.64 % on ImageNet after fine-tuning (paper, table 3)"),
    _google("l16-imagenet21k", "imagenet21k/Mixer-L_16.npz", "L/16", I21K, 875.78, 21843,
            note="82.89 % on ImageNet after fine-tuning (paper, table 3)"),
    _google("b16-sam", "sam/Mixer-B_16.npz", "B/16", SAM, 228.47, top1=77.4, source=SECOND_HAND),
    _google("b32-sam", "sam/Mixer-B_32.npz", "B/32", SAM, 230.04, top1=72.5, source=SECOND_HAND),
    _google("s8-gsam", "gsam/Mixer-S_8.npz", "S/8", GSAM, 78.79),
    _google("s16-gsam", "gsam/Mixer-S_16.npz", "S/16", GSAM, 70.71),
    _google("s32-gsam", "gsam/Mixer-S_32.npz", "S/32", GSAM, 72.91),
    _google("b16-gsam", "gsam/Mixer-B_16.npz", "B/16", GSAM, 228.47),
    _google("b32-gsam", "gsam/Mixer-B_32.npz", "B/32", GSAM, 230.04),
    Published("b16-imagenet21k-miil", "hf://timm/mixer_b16_224.miil_in21k", "B/16",
              "ImageNet-21k-P, by MIIL in timm", 11221, "erf", MIIL),
    Published("b16-imagenet1k-miil", "hf://timm/mixer_b16_224.miil_in21k_ft_in1k", "B/16",
              "ImageNet-21k-P, then ImageNet-1k, by MIIL in timm", 1000, "erf", MIIL,
              top1=82.314, real=87.230, source="timm's results"),
)  # fmt: skip

PUBLISHED = {each.name: each for each in _ALL}

SAME_AS = {
    "timm/mixer_b16_224.goog_in21k_ft_in1k": "b16-imagenet1k-google",
    "timm/mixer_l16_224.goog_in21k_ft_in1k": "l16-imagenet1k-google",
    "timm/mixer_b16_224.goog_in21k": "b16-imagenet21k-google",
    "timm/mixer_l16_224.goog_in21k": "l16-imagenet21k-google",
    "timm/mixer_b16_224.miil_in21k": "b16-imagenet21k-miil",
    "timm/mixer_b16_224.miil_in21k_ft_in1k": "b16-imagenet1k-miil",
}
"""timm's uploads → what they are."""


def published(source: str) -> Published | None:
    """The published model that `zoo:NAME` names, or None for every other source."""
    return PUBLISHED.get(source.removeprefix("zoo:")) if source.startswith("zoo:") else None


MISLABELLED = {
    f"mixer_{size}_224.goog_in21k_ft_in1k": f"{size}-imagenet1k-google" for size in ("b16", "l16")
}
"""timm's tags that name another training than the weights had → what the weights are."""


def published_as(timm_tag: str) -> Published | None:
    """What timm's model of this name (`mixer_b16_224.goog_in21k`) really is, if it is known."""
    name = SAME_AS.get(f"timm/{timm_tag}")
    return PUBLISHED[name] if name else None


def correction(timm_tag: str) -> str:
    """One sentence when the tag names another training than the weights had, else nothing."""
    if timm_tag not in MISLABELLED:
        return ""
    truth = PUBLISHED[MISLABELLED[timm_tag]]
    return (
        f"timm calls these weights {timm_tag}; they were trained on {truth.trained_on}, and not "
        f"on ImageNet-21k ({truth.top1} % is the paper's accuracy from scratch)."
    )
