"""A PyTorch model as a file for other runtimes, read back and compared before it is kept.

Letters: N images, I image channels, H W image height and width, K classes.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mixerkit.checkpoint.files import check_new, check_place, new_files
from mixerkit.data.sources import SOURCES
from mixerkit.errors import Refused, UserError
from mixerkit.inference.eager import Eager
from mixerkit.inference.eight_bits import Watch, check_varied
from mixerkit.inference.exported import Exported, open_exported, softmax
from mixerkit.inference.gate import LEAST_AGREEMENT, Verdict, refuse_unless_good
from mixerkit.inference.graph import onnx_module
from mixerkit.inference.mixer_graph import METADATA, PLAIN, EightBits, Form, mixer_graph
from mixerkit.inference.packages import openvino_module
from mixerkit.inference.readers import READERS, SUFFIX, Target, readers_of
from mixerkit.model.mixer import MlpMixer

BATCH = 16
TOLD = ("source", "classes", "holdout", "split_seed", "join_validation")
"""Of the data that a model was trained on: which images they are."""
CLOSE, CLOSE_HALF = 1e-4, 2e-2
"""The largest `relative` difference that is no defect: of sums in another order, and of weights
rounded to float16."""


@dataclass(frozen=True)
class Parity:
    """One runtime beside the eager model, on the same images. `largest_difference` of an output,
    `relative` to the largest output; `top1_agreement`: the share of images with the same likeliest
    class."""

    runtime: str
    images: int
    largest_difference: float
    relative: float
    top1_agreement: float


@dataclass(frozen=True)
class Written:
    """What an export left on the disk. `forced`: it would have been refused."""

    files: tuple[Path, ...]
    comparisons: tuple[Parity, ...]
    forced: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self.files)


def export(
    model: MlpMixer,
    out: Path,
    pixels_NIHW: np.ndarray,
    *,
    to: Target = "onnx",
    form: Form = PLAIN,
    rounded: tuple[EightBits, Verdict] | None = None,
    force: bool = False,
    watch: Watch = lambda line: None,
) -> Written:
    """Write `model` to the file `out`, after all that can run it here gave what the eager model
    gives of the images `pixels_NIHW` (8 bits).

    `rounded`: how it is computed in 8 bits, as `judged` found it; then the gate decides. `watch` is
    told when our own code is compiled to be one of them.

    `UserError`: `out` exists, a package is missing, or the model's outputs are the same for all
    images, so that nothing can be compared. `Refused`: outputs differ by more than
    rounding can; with `force` it is written all the same, and says so itself.
    """
    check_free(out, to)
    readers = readers_of(to, model.config, bool(rounded), watch)
    if not set(readers) & set(READERS[to]):
        needed = " or ".join(READERS[to])
        raise UserError(f"Nothing is exported that was not read back: install {needed}.")
    if len(pixels_NIHW) < 2:
        raise UserError(
            f"An export is compared on at least two images, found {len(pixels_NIHW)}: give more."
        )
    if model.preprocess is None:
        raise UserError(
            "An export says how images are prepared, and this model does not: set its preprocess."
        )
    weights = weights_of(model)
    eight_bits, verdict = rounded or (None, None)
    if verdict and not force:
        refuse_unless_good(verdict)
    graph = mixer_graph(model.config, weights, model.preprocess, form, eight_bits)
    wanted_NK = eager_logits(model, pixels_NIHW)
    if not force:
        check_varied(wanted_NK, ", or --force")
    constant = not np.ptp(wanted_NK, axis=0).any()
    files = files_of(out, to)
    with new_files(files) as temporary:
        draft = temporary / out.name
        write(graph, draft, to, form)
        found = [
            compared(open_exported(draft, runtime), wanted_NK, pixels_NIHW) for runtime in readers
        ]
        forced = constant or (
            _changed(found, verdict, force) if verdict else _doubtful(found, form, force)
        )
        more = {"compared": [asdict(one) for one in found], "forced": forced}
        more |= {"notes": list(model.notes)} | _trained_on(model)
        tell(graph, more | ({"judged": verdict.row()} if verdict else {}))
        write(graph, draft, to, form)
        open_exported(draft, readers[0])  # as it will be
    return Written(tuple(files), tuple(found), forced)


def weights_of(model: MlpMixer) -> dict[str, np.ndarray]:
    """All tensors by name, float32 arrays."""
    return {name: t.detach().float().cpu().numpy() for name, t in model.state_dict().items()}


def _trained_on(model: MlpMixer) -> dict[str, Any]:
    """The named set that a model was trained on; folders are of this machine and not told."""
    data: dict[str, Any] = dict(model.about).get("data", {})
    if data.get("source") not in SOURCES:
        return {}
    return {"data": {key: data[key] for key in data if key in TOLD}}


def check_free(out: Path, to: Target) -> None:
    """The name suits the target, and nothing is overwritten or keeps the files from being there."""
    if out.suffix != SUFFIX[to]:
        other = next((f" (or give --to {one})" for one in SUFFIX if SUFFIX[one] == out.suffix), "")
        raise UserError(
            f"A model for {to} is a file *{SUFFIX[to]}, found {out.name}: give it this "
            f"ending{other}."
        )
    for path in files_of(out, to):
        check_new(path)
    check_place(out)


def files_of(out: Path, to: Target) -> list[Path]:
    """The files of an exported model, the one to be opened last."""
    return [out.with_suffix(".bin"), out] if to == "openvino" else [out]


def write(graph: Any, path: Path, to: Target, form: Form) -> None:
    """The graph in the target's format."""
    if to == "onnx":
        path.write_bytes(graph.SerializeToString())
        return
    openvino = openvino_module()
    model = openvino.Core().read_model(graph.SerializeToString())
    openvino.save_model(model, path, compress_to_fp16=form.half)


def tell(graph: Any, more: dict[str, Any]) -> None:
    """Add to what the model says of itself."""
    about = next(json.loads(one.value) for one in graph.metadata_props if one.key == METADATA)
    text = json.dumps(about | more)
    onnx_module().helper.set_model_props(graph, {METADATA: text})


def eager_logits(model: MlpMixer, pixels_NIHW: np.ndarray) -> np.ndarray:
    """What PyTorch makes of the images, [N, K]."""
    eager = Eager(model)
    return np.concatenate([eager.logits(some) for some in batches(pixels_NIHW)])


def compared(exported: Exported, wanted_NK: np.ndarray, pixels_NIHW: np.ndarray) -> Parity:
    """An exported model beside the logits [N, K] that are wanted. The first image is also computed
    alone: batches of any size must do."""

    def outputs(pixels: np.ndarray) -> np.ndarray:
        return exported.run(exported.prepare(pixels))

    found_NK = np.concatenate([outputs(some) for some in batches(pixels_NIHW)])
    alone_1K = outputs(pixels_NIHW[:1])
    if exported.about["output"] == "probabilities":
        wanted_NK = softmax(wanted_NK)
    differences = np.abs(found_NK - wanted_NK).max(), np.abs(alone_1K - wanted_NK[:1]).max()
    largest = float(max(differences))
    return Parity(
        exported.runtime,
        len(found_NK),
        largest,
        largest / max(1e-12, float(np.abs(wanted_NK).max())),
        float((found_NK.argmax(axis=1) == wanted_NK.argmax(axis=1)).mean()),
    )


def batches(pixels_NIHW: np.ndarray) -> list[np.ndarray]:
    """Some images at a time."""
    return [pixels_NIHW[i : i + BATCH] for i in range(0, len(pixels_NIHW), BATCH)]


def _changed(found: list[Parity], verdict: Verdict, force: bool) -> bool:
    """Whether the gate refused a model in 8 bits, or the file that was made of it answers otherwise
    in any runtime, and it is wanted all the same."""
    worst = min(found, key=lambda one: one.top1_agreement)
    if worst.top1_agreement < LEAST_AGREEMENT and not force:
        raise Refused(
            f"Not exported: in {worst.runtime} the likeliest class is the same as in float for "
            f"{worst.top1_agreement:.2%} of {worst.images} images (expected at least "
            f"{LEAST_AGREEMENT:.0%}). With --force it is written all the same."
        )
    return worst.top1_agreement < LEAST_AGREEMENT or not verdict.passes


def _doubtful(found: list[Parity], form: Form, force: bool) -> bool:
    """Whether the model differs by more than rounding and is wanted all the same."""
    most = CLOSE_HALF if form.half else CLOSE
    wrong = [one for one in found if not one.relative <= most]
    if wrong and not force:
        raise Refused(
            f"Not exported: in {wrong[0].runtime} an output differs by "
            f"{wrong[0].largest_difference:.2g}, {wrong[0].relative:.2g} of the largest one, where "
            f"rounding explains {most:g}. With --force it is written all the same."
        )
    return bool(wrong)
