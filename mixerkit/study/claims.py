"""Every claim of the paper beside what was measured here.

A test of a claim reads one file of `results/` and comes to a verdict by a rule that is written
here, before the figures are known. Small experiments say nothing about accuracies on ImageNet:
such claims are "not testable at this scale", and what it would take is said.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixerkit.results import read_results
from mixerkit.spec.paper import CLAIMS, VARIANTS, Claim
from mixerkit.spec.token_mixers import TOKEN_MIXERS

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
NOT_TESTABLE, NOT_MEASURED = "not testable at this scale", "not measured"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, NOT_TESTABLE, NOT_MEASURED)

CLOSE = 0.2
"""A figure is reproduced within this share of what was published, or beyond it."""
STRONG = 0.7
"""From this rank correlation on, one thing predicts another."""
LINEAR = (0.9, 1.1)
"""Exponents that count as linear."""
MANY = 0.1
"""A share of units that counts as many."""
ENOUGH = 0.01
"""A difference of accuracies that is worth a sentence."""

Results = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """What an experiment came to: in words with figures, and whether the claim holds there."""

    measured: str
    holds: bool


@dataclass(frozen=True)
class Experiment:
    """`file` below results/, written by `command`; `rule`: when the claim counts as reproduced."""

    file: str
    command: str
    rule: str
    find: Callable[[Results], Finding]


@dataclass(frozen=True)
class Row:
    """One claim. `evidence`: the results file, or what it would take; `rule`: "" without one."""

    claim: str
    says: str
    source: str
    published: str
    measured: str
    verdict: str
    evidence: str
    rule: str


def rows(folder: Path) -> list[Row]:
    """All claims, in the paper's order, by the files in `folder`."""
    return [_row(claim, EXPERIMENTS.get(claim.name), folder) for claim in CLAIMS]


def _row(claim: Claim, experiment: Experiment | None, folder: Path) -> Row:
    about = (claim.name, claim.says, claim.source, published(claim))
    if experiment is None:
        return Row(*about, "", NOT_TESTABLE, claim.needs, "")
    path = folder / experiment.file
    if not path.exists():
        return Row(*about, "", NOT_MEASURED, experiment.command, experiment.rule)
    found = experiment.find(read_results(path))
    verdict = REPRODUCED if found.holds else NOT_REPRODUCED
    return Row(*about, found.measured, verdict, f"results/{experiment.file}", experiment.rule)


def published(claim: Claim) -> str:
    """The paper's figure, also by its tables where these say something else."""
    if claim.value is None:
        return claim.unit
    text = f"{claim.value:.3g}" if claim.unit == "×" else f"{claim.value:g}"
    unit = claim.unit if claim.unit == "×" else f" {claim.unit}"
    tables = f" (by its tables {claim.in_tables:.2f})" if claim.in_tables is not None else ""
    return f"{text}{unit}{tables}"


def arm(results: Results, **levels: str) -> Mapping[str, Any]:
    """The row of a study with these levels, each named by the last part of its factor's name."""
    for row in results["rows"]:
        named = {name.rpartition(".")[2]: level for name, level in row["levels"].items()}
        if named == levels:
            return dict(row)
    raise ValueError(f"{results['name']} has no arm {levels}.")


def top1(row: Mapping[str, Any]) -> float:
    """Held-out accuracy, %."""
    return float(100 * row["held_out_accuracy"])


def half(row: Mapping[str, Any]) -> float:
    """Half of its 95 % interval, points."""
    return float(100 * row["held_out_accuracy_half_width"])


def spoken(row: Mapping[str, Any]) -> str:
    """An accuracy with its interval."""
    return f"{top1(row):.1f} ± {half(row):.1f} %"


def speed(name: str) -> Callable[[Results], Finding]:
    """The ratio of two models' images per second, in the paper's own (dense) form."""
    claim = next(claim for claim in CLAIMS if claim.name == name)
    pairs = {
        "speed-vit": ("Mixer-H/14", "ViT-H/14", 448),
        "speed-bit": ("Mixer-H/14", "BiT-R152x4", 448),
        "speed-b16": ("Mixer-B/16", "ViT-B/16", 224),
        "speed-l16": ("Mixer-L/16", "ViT-L/16", 224),
    }
    faster, than, size = pairs[name]

    def find(results: Results) -> Finding:
        some = [
            row
            for row in results["rows"]
            if row["part"] == "ratios"
            and row["faster"].startswith(f"{faster} at {size}")
            and row["than"].startswith(than)
        ]
        own = next(row for row in some if row["form"] != "shared")
        text = f"{own['ratio']:.2f}× on a CPU ({own['mac_ratio']:.2f}× fewer multiply-adds)"
        for row in some:
            if row["form"] == "shared":
                text += f"; with shared tiles {row['ratio']:.2f}×"
        assert claim.value is not None
        least = min(claim.value, claim.in_tables or claim.value)
        return Finding(text, own["ratio"] >= (1 - CLOSE) * least)

    return find


def sizes(results: Results) -> Finding:
    """Parameters of the Mixers of table 1 that were built for timing."""
    known = {f"Mixer-{row.label}": row.parameters for row in VARIANTS}
    found = {
        row["name"]: row["parameters"]
        for row in results["rows"]
        if row["part"] == "models" and row["name"] in known and row["image_size"] == 224
    }
    equal = [name for name, count in found.items() if count == known[name]]
    return Finding(f"{len(equal)} of {len(found)} equal to the last one", equal == list(found))


def linear_cost(results: Results) -> Finding:
    """Exponents of time against the number of patches."""
    found = {row["family"]: row for row in results["rows"] if row["part"] == "exponents"}
    mixer, vit = found["Mixer, token width kept"], found["ViT"]
    text = (
        f"time grows with patches to the power of {mixer['seconds']:.2f}, ViT's "
        f"{vit['seconds']:.2f} ({mixer['seconds_of_largest_two']:.2f} and "
        f"{vit['seconds_of_largest_two']:.2f} between the two largest)"
    )
    low, high = LINEAR
    return Finding(text, low <= mixer["seconds"] <= high and vit["seconds"] > mixer["seconds"])


def tiles(results: Results) -> Finding:
    """The same of shared tiles."""
    found = {row["family"]: row for row in results["rows"] if row["part"] == "exponents"}
    row = found["Mixer, shared tiles"]
    low, high = LINEAR
    text = (
        f"multiply-adds grow with patches to the power of {row['macs']:.3f}, time to that of "
        f"{row['seconds']:.2f}"
    )
    return Finding(text, abs(row["macs"] - 1) < 1e-3 and low <= row["seconds"] <= high)


def compute(results: Results) -> Finding:
    """Rank correlation of training cost and accuracy over all architectures and sizes."""
    value = results["settings"]["rank_correlation_training_macs"]
    text = f"rank correlation {value:.2f} over {len(results['rows'])} models of five families"
    return Finding(text, value >= STRONG)


def more_data(results: Results) -> Finding:
    """Points that each gains from few images to all of them."""
    names = list(dict.fromkeys(row["levels"]["model"] for row in results["rows"]))
    shares = list(dict.fromkeys(row["levels"]["share"] for row in results["rows"]))
    few, every = shares[0], shares[-1]
    gains, widths = {}, {}
    for name in names:
        first, last = arm(results, model=name, share=few), arm(results, model=name, share=every)
        gains[name] = top1(last) - top1(first)
        widths[name] = (half(first) ** 2 + half(last) ** 2) ** 0.5
    text = f"from {few} to {every} of the images: " + ", ".join(
        f"{name} {gain:+.1f} ± {widths[name]:.1f} points" for name, gain in gains.items()
    )
    beyond = [
        gains["mlp"] - widths["mlp"] > gains[name] + widths[name] for name in names if name != "mlp"
    ]
    return Finding(text, all(beyond))


def overfits(results: Results) -> Finding:
    """The plain model with the fewest images, beside the regularised one."""
    fewest = min(row["share"] for row in results["rows"])
    some = {row["regularisation"]: row for row in results["rows"] if row["share"] == fewest}
    plain, paper = some["none"], some["decay, mixup, depth"]
    gain = paper["held_out_accuracy"] - plain["held_out_accuracy"]
    text = (
        f"with {plain['images']:,} images it knows {100 * plain['training_accuracy']:.1f} % of "
        f"them and {100 * plain['held_out_accuracy']:.1f} % of others; regularised "
        f"{100 * gain:+.1f} points (one seed)"
    )
    return Finding(text, plain["training_accuracy"] > 0.99 and gain >= ENOUGH)


PLAIN, PATCHES, PIXELS = "as it is", "patches", "pixels"
MIXER, RESNET = "mlp", "ResNet (timm)"


def drop(results: Results, model: str, order: str) -> tuple[float, float]:
    """Points that a model loses by an order of pixels, and half of their 95 % interval."""
    before, after = (arm(results, model=model, order=each) for each in (PLAIN, order))
    return top1(before) - top1(after), (half(before) ** 2 + half(after) ** 2) ** 0.5


def patch_order(results: Results) -> Finding:
    """The first experiment of section 3.4."""
    (mixer, interval), (resnet, other) = (
        drop(results, model, PATCHES) for model in (MIXER, RESNET)
    )
    identity = results["settings"]["identity"]
    text = (
        f"Mixer loses {mixer:.1f} ± {interval:.1f} points, ResNet {resnet:.1f} ± {other:.1f}; "
        f"with permuted weights outputs differ by {identity['difference_float32']:.0e} in float32"
    )
    nothing = abs(mixer) <= max(interval, 100 * ENOUGH) and identity["difference_float32"] <= 1e-6
    return Finding(text, nothing and resnet - other > mixer + interval)


def pixels_order(results: Results) -> Finding:
    """The second one: who falls more."""
    (mixer, interval), (resnet, other) = (drop(results, model, PIXELS) for model in (MIXER, RESNET))
    text = f"Mixer loses {mixer:.1f} ± {interval:.1f} points, ResNet {resnet:.1f} ± {other:.1f}"
    return Finding(text, resnet - other > mixer + interval)


def pixels(model: str, published_drop: float) -> Callable[[Results], Finding]:
    """How far a model falls, in per cent of its accuracy."""

    def find(results: Results) -> Finding:
        before, after = (arm(results, model=model, order=each) for each in (PLAIN, PIXELS))
        share = 100 * (1 - top1(after) / top1(before))
        text = f"{share:.0f} % drop, from {spoken(before)} to {spoken(after)}"
        return Finding(text, abs(share - published_drop) <= CLOSE * published_drop)

    return find


def block_rows(results: Results) -> list[Mapping[str, Any]]:
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
    return Finding(text, many and first["local"] > first["local_shuffled"])


def pairs(results: Results) -> Finding:
    """Units of the first block that have one of opposite phase, beyond chance."""
    first = block_rows(results)[0]
    text = (
        f"{first['partners']:.0%} of the first block's units have one of opposite phase, "
        f"{first['partners_shuffled']:.0%} when their weights are shuffled"
    )
    return Finding(text, first["partners"] - first["partners_shuffled"] >= MANY)


def deeper(results: Results) -> Finding:
    """How smooth units are in the first and in the last block."""
    first, *_, last = block_rows(results)
    text = (
        f"neighbouring weights correlate by {first['smoothness']:.2f} in the first block and "
        f"{last['smoothness']:.2f} in the last"
    )
    return Finding(text, last["smoothness"] <= first["smoothness"] / 2)


def no_help(mixer: str) -> Callable[[Results], Finding]:
    """A token mixer of the paper's appendix A beside its plain one."""
    assert mixer in TOKEN_MIXERS

    def find(results: Results) -> Finding:
        plain, other = arm(results, token_mixer=MIXER), arm(results, token_mixer=mixer)
        text = f"{spoken(other)}, mlp {spoken(plain)}, at equal multiply-adds"
        return Finding(text, top1(other) - half(other) <= top1(plain) + half(plain))

    return find


THROUGHPUT, FEW = "throughput.json", "token-mixers/few-images.json"
PERMUTATION, MATCHED = "permutation.json", "token-mixers/by-macs.json"
FRONTIER, WEIGHTS = "token-mixers/frontier.json", "visualize/fashion-best.json"
BENCH = "mixer bench throughput"
VISUALIZE = f"mixer visualize zoo:fashion-best --results results/{WEIGHTS}"


def study_command(name: str, file: str) -> str:
    """What writes a study's file."""
    return f"mixer study {name} --out results/{file}"


RATIO_RULE = f"at least {1 - CLOSE:.0%} of what was published"
FALL_RULE = f"within {CLOSE:.0%} of what was published"
EXPERIMENTS: dict[str, Experiment] = {
    **{
        name: Experiment(THROUGHPUT, BENCH, RATIO_RULE, speed(name))
        for name in ("speed-vit", "speed-bit", "speed-b16", "speed-l16")
    },
    "sizes": Experiment(THROUGHPUT, BENCH, "all equal", sizes),
    "linear-cost": Experiment(
        THROUGHPUT, BENCH, f"exponent of time {LINEAR[0]} to {LINEAR[1]}, and below ViT's",
        linear_cost,
    ),
    "tiles": Experiment(
        THROUGHPUT, BENCH, f"exponent of multiply-adds 1, of time {LINEAR[0]} to {LINEAR[1]}", tiles
    ),
    "compute": Experiment(
        FRONTIER, study_command("frontier", FRONTIER), f"rank correlation of at least {STRONG}",
        compute,
    ),
    "more-data": Experiment(
        FEW, study_command("few-images", FEW), "Mixer's gain above all others', intervals apart",
        more_data,
    ),
    "overfits": Experiment(
        "regularisation.json", "mixer bench regularisation",
        "with the fewest images it knows over 99 % of them, and regularisation gains a point",
        overfits,
    ),
    "patch-order": Experiment(
        PERMUTATION, study_command("permutation", PERMUTATION),
        "Mixer loses less than its interval or a point, ResNet more, intervals apart; permuted "
        "weights undo it to 1e-6", patch_order,
    ),
    "pixels-order": Experiment(
        PERMUTATION, study_command("permutation", PERMUTATION),
        "ResNet loses more, intervals apart", pixels_order,
    ),
    "pixels-mixer": Experiment(
        PERMUTATION, study_command("permutation", PERMUTATION), FALL_RULE, pixels(MIXER, 45)
    ),
    "pixels-resnet": Experiment(
        PERMUTATION, study_command("permutation", PERMUTATION), FALL_RULE, pixels(RESNET, 75)
    ),
    "local-global": Experiment(
        WEIGHTS, VISUALIZE, f"at least {MANY:.0%} of each, local ones beyond chance", local_global
    ),
    "pairs": Experiment(WEIGHTS, VISUALIZE, f"at least {MANY:.0%} more than by chance", pairs),
    "deeper": Experiment(
        WEIGHTS, VISUALIZE, "the last block's units at most half as smooth as the first's", deeper
    ),
    **{
        name: Experiment(
            MATCHED, study_command("token-mixers", MATCHED), "not above mlp, intervals apart",
            no_help(name),
        )
        for name in ("untied", "grouped")
    },
}  # fmt: skip
