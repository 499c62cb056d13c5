"""Which experiment tests which claim of the paper, and when the claim counts as reproduced.

Differences between arms of a study are paired: both have the same seeds, and with them the same
images in the same order. Their 95 % intervals are Student's t over the seeds. A rule that neither
holds nor fails within the interval leaves the claim undecided.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mixerkit.benchmark.architectures import FORMS
from mixerkit.evaluation.interval import half_width
from mixerkit.spec.paper import CLAIMS, VARIANTS
from mixerkit.study.named import AS_IT_IS, MIXER, RESNET

REPRODUCED, NOT_REPRODUCED, UNDECIDED = "reproduced", "not reproduced", "undecided"

CLOSE = 0.2
"""A figure is reproduced within this share of what was published."""
STRONG = 0.7
"""From this rank correlation on, one thing predicts another."""
LINEAR = (0.9, 1.1)
"""Exponents that count as linear."""
MANY = 0.1
"""A share of units that counts as many, and a correlation that counts as structure."""
POINT = 1.0
"""Points of accuracy that are worth a sentence."""
GROWS = 1.1
"""A loss that has grown by this factor has grown."""

Results = dict[str, Any]
Fields = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """What an experiment came to, in words with figures."""

    measured: str
    verdict: str


@dataclass(frozen=True)
class Experiment:
    """`file` below results/, written by `command`; `rule`: when the claim counts as reproduced."""

    file: str
    command: str
    rule: str
    find: Callable[[Results], Finding]


def verdict(holds: bool, undecided: bool = False) -> str:
    """In a word."""
    return UNDECIDED if undecided else REPRODUCED if holds else NOT_REPRODUCED


def arm(results: Results, **levels: str) -> Fields:
    """The row of a study with these levels, each named by the last part of its factor's name."""
    for row in results["rows"]:
        named = {name.rpartition(".")[2]: level for name, level in row["levels"].items()}
        if named == levels:
            return dict(row)
    raise LookupError(f"no arm {levels}")


def accuracies(row: Fields) -> dict[int, float]:
    """Held-out accuracy of each seed, %."""
    return {one["seed"]: 100 * one["held_out_accuracy"] for one in row["each"]}


def gain(before: Fields, after: Fields) -> tuple[float, float]:
    """Points from one arm to another, and half of the interval over the seeds that both have."""
    first, second = accuracies(before), accuracies(after)
    differences = [second[seed] - first[seed] for seed in first]
    half = half_width(differences)
    if half is None:
        raise LookupError("one seed alone, which has no interval")
    return mean(differences), half


def spoken(difference: tuple[float, float]) -> str:
    """With its sign and interval."""
    return f"{difference[0]:+.1f} ± {difference[1]:.1f} points"


def speed(results: Results, name: str) -> Finding:
    """The ratio of two models' images per second, in the paper's own (dense) form."""
    some = [row for row in results["rows"] if row["part"] == "ratios" and row["claim"] == name]
    own = next(row for row in some if row["form"] != "shared")
    text = f"{own['ratio']:.2f}× on a CPU ({own['mac_ratio']:.2f}× fewer multiply-adds)"
    for row in some:
        if row["form"] == "shared":
            text += f"; with shared tiles {row['ratio']:.2f}×"
    return Finding(text, verdict(own["ratio"] >= least_speed(name)))


def least_speed(name: str) -> float:
    """From which ratio on a claim of speed counts as reproduced."""
    claim = next(claim for claim in CLAIMS if claim.name == name)
    assert claim.value is not None
    return (1 - CLOSE) * min(claim.value, claim.in_tables or claim.value)


def sizes(results: Results) -> Finding:
    """Parameters of the Mixers that were timed, without their heads, beside table 1."""
    timed = {row["name"]: row for row in results["rows"] if row["part"] == "models"}
    found, equal = [], []
    for row in VARIANTS:
        if row.label == "S/8":  # published later
            continue
        count = timed[f"Mixer-{row.label}"]["parameters"] - (row.width + 1) * 1000
        found.append(round(count / 1e6))
        equal.append(found[-1] == TABLE_1[row.label])
    text = f"{', '.join(map(str, found))} million without heads (table 1's, in its order)"
    return Finding(text, verdict(all(equal)))


TABLE_1 = {"S/32": 19, "S/16": 18, "B/32": 60, "B/16": 59, "L/32": 206, "L/16": 207, "H/14": 431}
"""Millions of parameters, as the paper prints them."""


def linear_cost(results: Results) -> Finding:
    """Exponents of time against the number of patches."""
    found = {row["family"]: row for row in results["rows"] if row["part"] == "exponents"}
    mixer, vit = found[f"Mixer, {FORMS['resample']}"], found["ViT"]
    text = (
        f"time grows with patches to the power of {mixer['seconds']:.2f}, ViT's "
        f"{vit['seconds']:.2f} ({mixer['seconds_of_largest_two']:.2f} and "
        f"{vit['seconds_of_largest_two']:.2f} between the two largest)"
    )
    low, high = LINEAR
    holds = low <= mixer["seconds"] <= high and vit["seconds"] > mixer["seconds"]
    return Finding(text, verdict(holds))


def compute(results: Results) -> Finding:
    """Rank correlation of training cost and accuracy over all architectures and sizes."""
    value = results["settings"]["rank_correlation_training_macs"]
    text = (
        f"rank correlation {value:.2f} of training cost and accuracy over {len(results['rows'])} "
        f"models, on the task that they are trained on"
    )
    return Finding(text, verdict(value >= STRONG))


def more_data(results: Results) -> Finding:
    """Points that each gains from few images to all of them."""
    names = list(dict.fromkeys(row["levels"]["model"] for row in results["rows"]))
    few, *_, every = dict.fromkeys(row["levels"]["share"] for row in results["rows"])
    gains = {
        name: gain(arm(results, model=name, share=few), arm(results, model=name, share=every))
        for name in names
    }
    text = f"from {few} to {every} of the images: " + ", ".join(
        f"{name} {spoken(one)}" for name, one in gains.items()
    )
    mixer, half = gains[MIXER]
    ahead = [(mixer - one, half + other) for name, (one, other) in gains.items() if name != MIXER]
    holds = all(difference > width for difference, width in ahead)
    fails = any(difference < -width for difference, width in ahead)
    return Finding(text, verdict(holds, undecided=not holds and not fails))


def overfits(results: Results) -> Finding:
    """The plain model with the fewest images: does its held-out loss grow again, and does
    regularisation help? With all images?"""
    by_share: dict[float, dict[str, list[Fields]]] = {}
    for row in results["rows"]:
        by_share.setdefault(row["share"], {}).setdefault(row["regularisation"], []).append(row)
    helps = {
        share: 100 * (_accuracy(some[REGULARISED]) - _accuracy(some[UNREGULARISED]))
        for share, some in by_share.items()
    }
    plain = by_share[min(by_share)][UNREGULARISED]
    growth = mean(row["held_out_nll"] / min(nll for *_, nll in row["course"]) for row in plain)
    seeds = len(plain)
    text = (
        f"with {plain[0]['images']:,} images the held-out loss ends at {growth:.2f} times its "
        f"lowest; regularisation gives "
        + ", ".join(f"{points:+.1f}" for points in helps.values())
        + f" points with {', '.join(f'{share:.0%}' for share in helps)} of the images "
        f"({seeds} seed{'s' if seeds > 1 else ''})"
    )
    return Finding(text, verdict(growth >= GROWS and helps[min(helps)] >= POINT))


def _accuracy(rows: list[Fields]) -> float:
    return mean(row["held_out_accuracy"] for row in rows)


UNREGULARISED, REGULARISED = "none", "decay, mixup, depth"
"""Arms of `regularisation.py`."""


def fall(results: Results, model: str, order: str) -> tuple[float, float]:
    """Points that a model loses by an order of pixels, and half of their interval."""
    return gain(arm(results, model=model, order=order), arm(results, model=model, order=AS_IT_IS))


def falls(results: Results, order: str) -> tuple[str, tuple[float, float], tuple[float, float]]:
    """What Mixer and ResNet lose, in words and figures."""
    mixer, resnet = (fall(results, model, order) for model in (MIXER, RESNET))
    words = [f"{name} loses {round(one, 1) + 0.0:.1f} ± {half:.1f} points"
             for name, (one, half) in (("Mixer", mixer), ("ResNet", resnet))]  # fmt: skip
    return ", ".join(words), mixer, resnet


def patch_order(results: Results) -> Finding:
    """The first experiment of section 3.4, and its exact form."""
    text, (mixer, half), (resnet, other) = falls(results, "patches")
    identity = results["settings"]["identity"]
    exact = identity["difference_float64"] <= 1e-12
    text += (
        f"; a Mixer with its weights permuted along gives the same outputs to "
        f"{identity['difference_float64']:.0e} in float64, {identity['difference_float32']:.0e} "
        f"in float32"
    )
    nothing, something = abs(mixer) + half <= POINT, mixer - half > POINT
    more = resnet - other > mixer + half
    holds = exact and nothing and more
    fails = not exact or something or resnet + other < mixer - half
    return Finding(text, verdict(holds, undecided=not holds and not fails))


def pixels_order(results: Results) -> Finding:
    """The second one: who loses more."""
    text, (mixer, half), (resnet, other) = falls(results, "pixels")
    apart = abs(resnet - mixer) > half + other
    return Finding(text, verdict(resnet > mixer, undecided=not apart))


def pixels(results: Results, model: str, published: float) -> Finding:
    """How far a model falls, in per cent of its accuracy."""
    before, after = (
        mean(accuracies(arm(results, model=model, order=order)).values())
        for order in (AS_IT_IS, "pixels")
    )
    share = 100 * (1 - after / before)
    text = f"{share:.0f} % drop, from {before:.1f} to {after:.1f} %"
    return Finding(text, verdict(abs(share - published) <= CLOSE * published))


def block_rows(results: Results) -> list[Fields]:
    """The figures of token mixing, by depth."""
    return [row for row in results["rows"] if row["part"].startswith("block")]


def local_global(results: Results) -> Finding:
    """Units of the first block that act on a part of the image, and on all of it."""
    first = block_rows(results)[0]
    text = (
        f"in the first block {first['local']:.0%} of the units act on a part of the image "
        f"(shuffled: {first['local_shuffled']:.0%}) and {first['wide']:.0%} on all of it"
    )
    many = first["local"] >= MANY and first["wide"] >= MANY
    return Finding(text, verdict(many and first["local"] > first["local_shuffled"]))


def pairs(results: Results) -> Finding:
    """Units of the first block that have one of opposite phase, beyond chance."""
    first = block_rows(results)[0]
    text = (
        f"{first['partners']:.0%} of the first block's units have one of opposite phase, "
        f"{first['partners_shuffled']:.0%} when their weights are shuffled"
    )
    return Finding(text, verdict(first["partners"] - first["partners_shuffled"] >= MANY))


def deeper(results: Results) -> Finding:
    """How smooth units are in the first and in the last block, beyond their shuffled selves."""
    first, *_, last = block_rows(results)
    begins, ends = (row["smoothness"] - row["smoothness_shuffled"] for row in (first, last))
    text = (
        f"neighbouring weights correlate by {begins:.2f} more than shuffled ones in the first "
        f"block and {ends:.2f} in the last"
    )
    if begins < MANY:
        return Finding(f"{text}: there is no structure to lose", UNDECIDED)
    return Finding(text, verdict(ends <= begins / 2))


def no_help(results: Results, mixer: str) -> Finding:
    """A token mixer of the paper's appendix A beside its plain one."""
    more, half = gain(arm(results, token_mixer=MIXER), arm(results, token_mixer=mixer))
    text = f"{spoken((more, half))} over mlp at equal multiply-adds"
    holds, fails = more + half <= POINT, more - half > 0
    return Finding(text, verdict(holds, undecided=not holds and not fails))


THROUGHPUT, FEW = "throughput.json", "token-mixers/few-images.json"
PERMUTATION, MATCHED = "permutation.json", "token-mixers/by-macs.json"
FRONTIER, WEIGHTS = "token-mixers/frontier.json", "visualize/fashion-best.json"


def by_bench(name: str, rule: str, find: Callable[[Results], Finding]) -> Experiment:
    """An experiment whose file `mixer bench` writes."""
    return Experiment(f"{name}.json", f"mixer bench {name}", rule, find)


def by_study(name: str, file: str, rule: str, find: Callable[[Results], Finding]) -> Experiment:
    """An experiment whose file `mixer study` writes."""
    return Experiment(file, f"mixer study {name} --out results/{file}", rule, find)


def by_weights(rule: str, find: Callable[[Results], Finding]) -> Experiment:
    """An experiment on the weights of the long-trained model."""
    command = f"mixer visualize zoo:fashion-best --results results/{WEIGHTS}"
    return Experiment(WEIGHTS, command, rule, find)


def _speeds() -> dict[str, Experiment]:
    names = ("speed-vit", "speed-bit", "speed-b16", "speed-l16")
    return {
        name: by_bench(
            "throughput",
            f"at least {least_speed(name):.2f}× ({1 - CLOSE:.0%} of the lower figure)",
            lambda results, name=name: speed(results, name),  # type: ignore[misc]
        )
        for name in names
    }


def _helpless() -> dict[str, Experiment]:
    rule = f"at most {POINT:g} point above mlp, interval included"
    return {
        name: by_study(
            "token-mixers",
            MATCHED,
            rule,
            lambda results, name=name: no_help(results, name),  # type: ignore[misc]
        )
        for name in ("untied", "grouped")
    }


EXPERIMENTS: dict[str, Experiment] = {
    **_speeds(),
    "sizes": by_bench("throughput", "all equal to table 1, rounded to millions", sizes),
    "linear-cost": by_bench(
        "throughput", f"exponent of time {LINEAR[0]} to {LINEAR[1]}, and below ViT's", linear_cost
    ),
    "compute": by_study("frontier", FRONTIER, f"rank correlation of at least {STRONG}", compute),
    "more-data": by_study(
        "few-images", FEW, "Mixer's gain above all others', intervals apart", more_data
    ),
    "overfits": by_bench(
        "regularisation",
        f"with the fewest images the held-out loss ends {GROWS - 1:.0%} above its lowest or more, "
        f"and regularisation gives {POINT:g} point or more",
        overfits,
    ),
    "patch-order": by_study(
        "permutation",
        PERMUTATION,
        f"Mixer loses at most {POINT:g} point, interval included, ResNet more, intervals apart; "
        f"weights permuted along give equal outputs",
        patch_order,
    ),
    "pixels-order": by_study(
        "permutation", PERMUTATION, "ResNet loses more, intervals apart", pixels_order
    ),
    "pixels-mixer": by_study(
        "permutation",
        PERMUTATION,
        f"within {CLOSE:.0%} of the published drop",
        lambda results: pixels(results, MIXER, 45),
    ),
    "pixels-resnet": by_study(
        "permutation",
        PERMUTATION,
        f"within {CLOSE:.0%} of the published drop",
        lambda results: pixels(results, RESNET, 75),
    ),
    "local-global": by_weights(
        f"at least {MANY:.0%} of each, local ones beyond chance", local_global
    ),
    "pairs": by_weights(f"at least {MANY:.0%} more than by chance", pairs),
    "deeper": by_weights("structure in the first block, at most half of it in the last", deeper),
    **_helpless(),
}
