"""`mixer bench int8`: what 8 bits do to a trained model's answers, and what the gate says of it.

Ranges are found on training images and judged by validation images; the test images are only
measured on. Each product is also rounded alone, and a setting that cuts off half of all values is
shown to the gate, which has to refuse it.
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mixerkit.checkpoint.files import write_atomic
from mixerkit.checkpoint.load import load
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.sources import opened
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import Refused, UserError
from mixerkit.evaluation.accuracy import probabilities
from mixerkit.inference.eight_bits import Calibration, Setting, tried
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.exported import open_exported
from mixerkit.inference.gate import Verdict, judged, refuse_unless_good
from mixerkit.inference.mixer_graph import EightBits
from mixerkit.inference.module import ExportedModel
from mixerkit.inference.readers import readers_of
from mixerkit.inference.runtimes import Runtime
from mixerkit.inference.samples import Samples, samples_of
from mixerkit.insight.canvas import can_draw
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import write_results
from mixerkit.spec.recipe import Data
from mixerkit.spec.strict import from_dict
from mixerkit.study.int8_figure import figure

Say = Callable[[str], None]
Rows = list[dict[str, Any]]

MODEL = "zoo:fashion-best"
BAD = Setting(percentile=50.0)
IMAGES, QUICK_IMAGES, QUICK_TEST = 512, 132, 200
BATCH = 100


def study(out: Path, say: Say, quick: bool = False, model: str = MODEL) -> Rows:
    """Rows of four kinds, written to `out`: settings, accuracy, products, gate."""
    loaded = load(model).eval()
    data = from_dict(Data, dict(loaded.about).get("data", {}))
    if not data.source or loaded.preprocess is None:
        raise UserError(f"{model} does not say what it was trained on: give a trained model.")
    splits = opened(data)
    if splits.test is None:
        raise UserError(f"{data.source} has no test images to measure on.")
    samples = samples_of(splits, loaded.preprocess, QUICK_IMAGES if quick else IMAGES)
    about = (loaded.config, weights_of(loaded), loaded.preprocess)
    runtimes = readers_of("onnx", loaded.config, True, say)
    settings = tried(Calibration(*about, samples.learn, runtimes[0]), say)
    rows = [{"kind": "setting"} | asdict(one) | asdict(loss) for one, _, loss in settings]
    found = judged(*about, samples, runtimes, say, settings=[settings[0][0]], sense=True)
    test = splits.test.subset(range(QUICK_TEST)) if quick else splits.test
    rows += _accuracies(loaded, found, samples, test, runtimes, say)
    rows += [
        {"kind": "product", "product": name, "signal_to_noise": decibels}
        for name, decibels in found[1].costs.items()
    ]
    bad = judged(*about, samples, runtimes, say, settings=[BAD])[1]
    rows += [_gate("chosen", found[1]), _gate("half of all values cut off", bad)]
    if can_draw():
        write_atomic(
            out.with_suffix(".png"), figure([row for row in rows if row["kind"] == "product"])
        )
    write_results(
        out,
        name="int8",
        command=f"mixer bench int8 --model {model}" + (" --quick" if quick else ""),
        settings={"model": model, "data": data.source, "test_images": len(test)}
        | {"learn": len(samples.learn), "judge": len(samples.judge)},
        rows=rows,
    )
    return rows


def _accuracies(
    model: MlpMixer,
    rounded: tuple[EightBits, Verdict],
    samples: Samples,
    test: ImageSplit,
    runtimes: Sequence[Runtime],
    say: Say,
) -> Rows:
    """Test accuracy in PyTorch, and of exported files in each runtime."""
    assert model.preprocess
    loader = EvaluationLoader(test, model.preprocess, batch_size=BATCH)
    reference_N, labels_N = _answers(model, loader)
    rows = [_accuracy("float32", "pytorch", reference_N, reference_N, labels_N)]
    with tempfile.TemporaryDirectory() as temporary:
        for precision, how in (("float32", None), ("int8", rounded)):
            path = Path(temporary) / f"{precision}.onnx"
            export(model, path, samples.judge, rounded=how, force=True)
            for runtime in runtimes:
                answers_N, _ = _answers(ExportedModel(open_exported(path, runtime)), loader)
                rows.append(_accuracy(precision, runtime, answers_N, reference_N, labels_N))
    for row in rows:
        say(f"{row['runtime']}, {row['precision']}: {row['top1']:.2%} of {len(labels_N)} images")
    return rows


def _accuracy(
    precision: str, runtime: str, found_N: np.ndarray, wanted_N: np.ndarray, labels_N: np.ndarray
) -> dict[str, Any]:
    return {
        "kind": "accuracy",
        "precision": precision,
        "runtime": runtime,
        "top1": float((found_N == labels_N).mean()),
        "agreement": float((found_N == wanted_N).mean()),
    }


def _answers(model: nn.Module, loader: EvaluationLoader) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest classes [N] and the labels [N]."""
    p_NK, labels_N = probabilities(model, loader)
    return p_NK.argmax(dim=1).numpy(), labels_N.numpy()


def _gate(name: str, verdict: Verdict) -> dict[str, Any]:
    try:
        refuse_unless_good(verdict)
        said = ""
    except Refused as error:
        said = str(error)
    return {"kind": "gate", "of": name, "passes": verdict.passes, "said": said} | verdict.row()
