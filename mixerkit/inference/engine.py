"""The fastest way to run a model on this machine, behind one class.

Letters: B batch, I image channels, H W image height and width, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mixerkit.errors import UserError
from mixerkit.inference.exported import (
    Exported,
    as_logits,
    is_exported,
    normalised,
    open_exported,
    softmax,
)
from mixerkit.inference.mixer_graph import Form, mixer_graph
from mixerkit.inference.plan import kept_plan, sliced
from mixerkit.inference.predictor import Prediction, predict_files
from mixerkit.inference.runtimes import RUNTIMES, InFloat, Run, Runtime, installed, open_graph
from mixerkit.spec.mixer import Size
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import to_dict

if TYPE_CHECKING:
    from mixerkit.model.mixer import MlpMixer

Backend = Literal["auto", "pytorch", "compiled", "onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bfloat16"]
FORMS = {"": Form(), ", constants on the right": Form(left_of_tokens=False)}
SPEED = ("input", "output", "stored", "eight_bits")
"""What a file says of itself that its speed depends on."""
STREAMS = {"": False, ", a stream for each core": True}
Candidates = dict[str, Callable[[], Run]]


class Predictor:
    """A model ready to predict on this machine.

    `source`: a model, or anything that names one (a run folder, a file of weights, `zoo:NAME`, an
    exported file). `backend` "auto" measures for some seconds which installed runtime is fastest,
    on how many images at once, and remembers it; `threads` 0 takes all cores. `precision`: "auto"
    is that of an exported file, else float32; "bfloat16" computes products so, in OpenVINO, on
    processors that can. `watch` is told what is measured and found.

        predictor = Predictor("zoo:fashion-demo")
        for prediction in predictor.predict(["boot.png"]):
            print(prediction.path, prediction.classes[0])
    """

    def __init__(
        self,
        source: "str | Path | MlpMixer",
        precision: Precision = "auto",
        *,
        backend: Backend = "auto",
        threads: int = 0,
        image_size: Size | None = None,
        watch: Callable[[str], None] = lambda line: None,
    ) -> None:
        _check(precision, backend, threads)
        if isinstance(source, str | Path) and is_exported(str(source)):
            if image_size is not None:
                raise UserError(f"{source} is exported for one image size: leave image_size out.")
            candidates, exported = _of_file(Path(source), precision, backend, threads)
            self.config, self.preprocess = exported.config, exported.preprocess
            self.source = str(source)
            self._prepare: Callable[[np.ndarray], np.ndarray] = exported.prepared
            self._gives: str = exported.about["output"]
            self.notes: tuple[str, ...] = ()
            about: dict[str, Any] = {"file": {key: exported.about.get(key) for key in SPEED}}
        else:
            model = _loaded(source, image_size)
            self.config, self.preprocess, self.source = model.config, model.preprocess, model.source
            candidates = _of_model(model, precision, backend, threads)
            self._prepare = partial(_normalised, self.preprocess)
            self._gives, self.notes = "logits", model.notes
            parameter = next(model.parameters())
            about = {"device": parameter.device.type, "dtype": str(parameter.dtype)}
        about |= {"model": to_dict(self.config), "precision": precision, "threads": threads}
        self.plan = kept_plan(about, candidates, self._noise, watch=watch)
        self._run = candidates[self.plan.backend]()

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them; of a file that gives
        probabilities, their logarithms."""
        return as_logits(self._result(pixels_BIHW), self._gives)

    def probabilities(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        result_BK = self._result(pixels_BIHW)
        return result_BK if self._gives == "probabilities" else softmax(result_BK)

    def predict(self, paths: Sequence[str | Path], **options: Any) -> Iterator[Prediction]:
        """The likeliest classes of image files, in their order, decoded while others are computed;
        `options` as of `predict_files`."""
        return predict_files(self, paths, **options)

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, K] of images as the model takes them: normalised [B, I, H, W], or 8-bit
        [B, H, W, I] for a file that was exported so."""
        if not len(images):
            return np.zeros((0, self.config.num_classes or self.config.width), np.float32)
        return sliced(self._run, images, self.plan.slice)

    def _noise(self, count: int) -> np.ndarray:
        """Images to measure with."""
        shape = (count, self.config.in_channels, *self.config.image_hw)
        return self._prepare(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def _result(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        channels, (height, width) = self.config.in_channels, self.config.image_hw
        if pixels_BIHW.dtype != np.uint8 or pixels_BIHW.shape[1:] != (channels, height, width):
            raise UserError(
                f"Expected 8-bit images [batch, {channels}, {height}, {width}], found "
                f"{pixels_BIHW.dtype} {list(pixels_BIHW.shape)}."
            )
        return self.outputs(self._prepare(pixels_BIHW))


def _check(precision: str, backend: str, threads: int) -> None:
    for name, value, known in (
        ("precision", precision, get_args(Precision)),
        ("backend", backend, get_args(Backend)),
    ):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, found {value!r}.")
    if threads < 0:
        raise UserError(f"threads must not be negative, found {threads}.")
    if precision == "bfloat16" and backend not in ("auto", "openvino"):
        raise UserError(f"bfloat16 is for the backend openvino, found {backend}.")


def _loaded(source: "str | Path | MlpMixer", image_size: Size | None) -> "MlpMixer":
    from mixerkit.checkpoint.load import load
    from mixerkit.model.mixer import MlpMixer

    if isinstance(source, MlpMixer):
        if image_size is not None:
            raise UserError("image_size is for models that are loaded: convert this one first.")
        return source.eval()
    return load(str(source), image_size=image_size).eval()


def _normalised(preprocess: Preprocess | None, pixels_BIHW: np.ndarray) -> np.ndarray:
    if preprocess is None:
        raise UserError("This model does not say how images are prepared for it.")
    return normalised(pixels_BIHW, preprocess)


def _of_file(
    path: Path, precision: Precision, backend: Backend, threads: int
) -> tuple[Candidates, Exported]:
    """How an exported file can be run; one of the ways, opened, to say what the file is."""
    if backend in ("pytorch", "compiled"):
        raise UserError(f"{path} is exported and PyTorch does not run it: choose another backend.")
    readers = [
        name
        for name in RUNTIMES
        if (name == backend or backend == "auto")
        and (name == "openvino" or path.suffix != ".xml")
        and (name == "openvino" or precision != "bfloat16")
        and (name == backend or name in installed())
    ]
    if not readers:
        raise UserError(f"Nothing that is installed runs {path}: install {' or '.join(RUNTIMES)}.")

    def opened(runtime: Runtime, streams: bool) -> Run:
        return open_exported(path, runtime, threads, _computed(precision), streams).run

    candidates: Candidates = {
        f"{name}{how}": partial(opened, name, streams) for name, how, streams in _ways(readers)
    }
    return candidates, open_exported(path, readers[0], threads)


def _ways(runtimes: Sequence[Runtime]) -> list[tuple[Runtime, str, bool]]:
    """Each runtime, and OpenVINO also with streams."""
    return [
        (name, how, streams)
        for name in runtimes
        for how, streams in STREAMS.items()
        if name == "openvino" or not streams
    ]


def _computed(precision: Precision) -> InFloat:
    """In what a runtime computes products that are not in 8 bits."""
    return "bfloat16" if precision == "bfloat16" else "float32"


def _of_model(
    model: "MlpMixer", precision: Precision, backend: Backend, threads: int
) -> Candidates:
    """How a PyTorch model can be run: as it is, compiled, or as a graph in each runtime. Without a
    choice the runtimes are compared, and PyTorch is taken where there are none."""
    from mixerkit.inference.eager import compiled_run, eager_run
    from mixerkit.inference.export import weights_of

    kind = _computed(precision)
    runtimes = [
        name
        for name in RUNTIMES
        if name == backend
        or (backend == "auto" and name in installed() and (name == "openvino" or kind == "float32"))
    ]
    if not runtimes and kind == "bfloat16":
        raise UserError("bfloat16 needs the backend openvino, which is not installed.")
    if not runtimes:
        make = compiled_run if backend == "compiled" else eager_run
        return {"compiled" if backend == "compiled" else "pytorch": partial(make, model, threads)}
    weights = weights_of(model)

    def opened(form: Form, runtime: Runtime, streams: bool) -> Run:
        graph = mixer_graph(model.config, weights, None, form).SerializeToString()
        return open_graph(graph, runtime, "", threads, kind, streams).run

    return {
        f"{runtime}{how}{name}": partial(opened, form, runtime, streams)
        for runtime, how, streams in _ways(runtimes)
        for name, form in FORMS.items()
    }
