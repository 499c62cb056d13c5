"""The fastest way to run a model on this machine, behind one class.

Letters: B batch, N images, I image channels, H W image height and width, K classes.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from mixerkit.data.decode import fit, upright
from mixerkit.errors import UserError
from mixerkit.inference.exported import as_logits, is_exported, normalised, softmax
from mixerkit.inference.kept_plan import kept_plan
from mixerkit.inference.mixer_graph import EightBits
from mixerkit.inference.native import check_computes
from mixerkit.inference.native_compiler import native_library
from mixerkit.inference.plan import Choice, Plan, sliced
from mixerkit.inference.predictor import (
    BATCH_SIZE,
    Prediction,
    images_in,
    likeliest,
    predict_files,
)
from mixerkit.inference.readers import readers_of
from mixerkit.inference.runtimes import NATIVE, RUNTIMES, Run, Runtime, installed
from mixerkit.inference.ways import (
    COMPILED,
    Backend,
    Precision,
    Watch,
    Ways,
    or_runtimes,
    ways_of_file,
    ways_of_model,
)
from mixerkit.spec.mixer import MixerConfig, Size
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.strict import to_dict

if TYPE_CHECKING:
    from PIL import Image

    from mixerkit.model.mixer import MlpMixer

SPEED = ("input", "output", "stored", "eight_bits")
"""What a file says of itself that its speed depends on."""


class Predictor:
    """A model ready to predict on this machine.

    `source`: a model, or anything that names one (a run folder, a file of weights, `zoo:NAME`, an
    exported file). `backend` "auto" measures which of our own code and the installed runtimes is
    fastest, with how many threads, for a single image and for many, and remembers it; that takes
    some seconds, or minutes for a large model. `again` measures anew; a `plan` is that of another
    predictor of the same model, and nothing is measured; `threads` 0 tries several.
    `watch` is told what is measured and found.

    `precision`: "auto" is that of an exported file, else float32. "bfloat16" computes products so,
    on a GPU, or in OpenVINO on processors that can. "int8" finds how to round on `images`, 8-bit
    ones [N, I, H, W] such as the model was trained on, and raises `Refused` unless the model
    answers as before and faster; that takes a while, and `mixer export --precision int8` keeps the
    result.

        predictor = Predictor("zoo:fashion-demo")
        for prediction in predictor.predict(["boot.png", "my-photos"]):
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
        images: np.ndarray | None = None,
        again: bool = False,
        plan: Plan | None = None,
        watch: Watch = lambda line: None,
    ) -> None:
        is_file = isinstance(source, str | Path) and is_exported(str(source))
        _check(precision, backend, threads, images, is_file)
        self._prepare: Callable[[np.ndarray], np.ndarray]
        if is_file:
            assert isinstance(source, str | Path)
            if image_size is not None:
                raise UserError(f"{source} is exported for one image size: leave image_size out.")
            ways, exported = ways_of_file(Path(source), precision, backend, threads, watch)
            self.config, self.preprocess = exported.config, exported.preprocess
            self.source = str(source)
            self.notes: tuple[str, ...] = ()
            self._prepare, self._gives = exported.prepare, str(exported.about["output"])
            about: dict[str, Any] = {"file": {key: exported.about.get(key) for key in SPEED}}
        else:
            model = _loaded(source, image_size, backend)
            self.config, self.preprocess, self.source = model.config, model.preprocess, model.source
            eight_bits = None
            if images is not None:
                eight_bits = _rounded(model, images, backend, threads, watch)
            ways = ways_of_model(model, precision, backend, threads, eight_bits, watch)
            self._prepare, self._gives = partial(_normalised, self.preprocess), "logits"
            self.notes = model.notes
            parameter = next(model.parameters())
            about = {"device": parameter.device.type, "dtype": str(parameter.dtype)}
            about |= {"eight_bits": sorted(eight_bits.ranges) if eight_bits else None}
        if backend == "compiled":
            watch("PyTorch compiles for 1, 8 and 32 images at once, which may take minutes …")
        about |= {"model": to_dict(self.config), "precision": precision, "threads": threads}
        self.plan = plan or kept_plan(about, ways, self._noise, watch=watch, again=again)
        self._runs = _opened(ways, (self.plan.one, self.plan.many))

    def __repr__(self) -> str:
        one, many = self.plan.one.backend, self.plan.many.backend
        how = one if one == many else f"one image: {one}; several: {many}"
        return f"Predictor({self.source or 'a model in memory'!r}; {how})"

    def logits(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them; of a file that gives
        probabilities, their logarithms."""
        return as_logits(self._result(pixels_BIHW), self._gives)

    def probabilities(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        """float32 [B, K] of 8-bit images as the decoder gives them."""
        if not self.config.num_classes:
            raise UserError(f"{self!r} has no head and so no probabilities: take logits, features.")
        result_BK = self._result(pixels_BIHW)
        return result_BK if self._gives == "probabilities" else softmax(result_BK)

    def predict(
        self, paths: str | Path | Sequence[str | Path], **options: Any
    ) -> Iterator[Prediction]:
        """The likeliest classes of image files, and of those in folders, in their order, decoded
        while others are computed; `options` as of `predict_files`, and `batch_size` what the plan
        says if not given."""
        listed = [paths] if isinstance(paths, str | Path) else paths
        found = [
            file
            for path in map(Path, listed)
            for file in (images_in(path) if path.is_dir() else [path])
        ]
        return predict_files(self, found, **{"batch_size": self.batch_size} | options)

    def classes(self, image: "Image.Image", top: int = 5) -> tuple[tuple[str, float], ...]:
        """The likeliest classes of an image in memory, as (name, probability)."""
        if self.preprocess is None or not self.config.num_classes:
            raise UserError(f"{self!r} cannot name classes: it has no head, or no preprocessing.")
        if isinstance(image, str | Path):
            raise UserError(f"Expected an image in memory, found {str(image)!r}: `predict` it.")
        pixels_1IHW = fit(upright(image.copy()), self.preprocess)[None]
        return likeliest(self, self.logits(pixels_1IHW), top)[0]

    def outputs(self, images: np.ndarray) -> np.ndarray:
        """float32 [B, K] of images as the model takes them: normalised [B, I, H, W], or 8-bit
        [B, H, W, I] for a file that was exported so."""
        return self._computed(lambda ready: ready, images)

    def _computed(
        self, prepare: Callable[[np.ndarray], np.ndarray], images: np.ndarray
    ) -> np.ndarray:
        """Slice by slice, so that no more is prepared at once than is computed."""
        if not len(images):
            return np.zeros((0, self.config.num_classes or self.config.width), np.float32)
        choice = self.plan.for_batch(len(images))
        run = self._runs[choice.backend]
        even = choice.backend != COMPILED  # which has a few sizes, and fills up what is smaller
        return sliced(lambda part: run(prepare(part)), images, choice.slice, even)

    @property
    def batch_size(self) -> int:
        """Images to hand over at once: as many as are computed at once, and not few."""
        return max(BATCH_SIZE, self.plan.many.slice)

    def _noise(self, count: int) -> np.ndarray:
        """Images to measure with."""
        shape = (count, self.config.in_channels, *self.config.image_hw)
        return self._prepare(np.random.default_rng(0).integers(0, 256, shape, np.uint8))

    def _result(self, pixels_BIHW: np.ndarray) -> np.ndarray:
        _check_pixels(pixels_BIHW, self.config)
        return self._computed(self._prepare, pixels_BIHW)


def _check_pixels(pixels: Any, config: MixerConfig) -> None:
    """`UserError` unless they are images as the decoder gives them to this model."""
    wanted = (config.in_channels, *config.image_hw)
    if not isinstance(pixels, np.ndarray):
        found = type(pixels).__name__
    elif pixels.dtype != np.uint8 or pixels.shape[1:] != wanted:
        found = f"{pixels.dtype} {list(pixels.shape)}"
    else:
        return
    raise UserError(
        f"Expected 8-bit images [batch, {', '.join(map(str, wanted))}] in an array, found {found}."
    )


def _opened(ways: Ways, choices: Sequence[Choice]) -> dict[str, Run]:
    for choice in choices:
        if choice.backend not in ways:
            raise UserError(
                f"The plan's way to compute, {choice.backend!r}, is none of this model's: "
                f"{', '.join(ways)}. Leave the plan out."
            )
    return {name: ways[name]() for name in dict.fromkeys(one.backend for one in choices)}


def _check(
    precision: str, backend: str, threads: int, images: np.ndarray | None, is_file: bool
) -> None:
    for name, value, known in (
        ("precision", precision, get_args(Precision)),
        ("backend", backend, get_args(Backend)),
    ):
        if value not in known:
            raise UserError(f"{name} must be one of {', '.join(known)}, found {value!r}.")
    if threads < 0:
        raise UserError(f"threads must not be negative, found {threads}.")
    if precision == "bfloat16" and backend not in ("auto", "openvino"):
        raise UserError(
            f"bfloat16 is for the backend openvino, or on a GPU for auto, found {backend}."
        )
    if precision == "int8" and backend in ("pytorch", COMPILED):
        raise UserError(
            f"int8 is for the backends {NATIVE}, {' and '.join(RUNTIMES)}, found {backend}."
        )
    if is_file and images is not None:
        raise UserError("An exported file keeps how it is rounded: leave `images` out.")
    if not is_file and (precision == "int8") != (images is not None):
        raise UserError(
            "int8 of a model finds how to round on images: give `images`, uint8 [images, channels, "
            "height, width], with it and with nothing else. What `mixer export --precision int8` "
            "wrote needs none."
        )


def _loaded(
    source: "str | Path | MlpMixer", image_size: Size | None, backend: Backend
) -> "MlpMixer":
    from mixerkit.checkpoint.load import load
    from mixerkit.device import device_here
    from mixerkit.model.mixer import MlpMixer

    if isinstance(source, MlpMixer):
        if image_size is not None:
            raise UserError("image_size is for models that are loaded: convert this one first.")
        return source
    model = load(str(source), image_size=image_size)
    return model if backend in (NATIVE, *RUNTIMES) else model.to(device_here())


def _rounded(
    model: "MlpMixer", images_NIHW: np.ndarray, backend: Backend, threads: int, watch: Watch
) -> EightBits:
    """How the model is computed in 8 bits, if the gate lets it pass in every runtime that may
    answer."""
    from mixerkit.inference.export import weights_of
    from mixerkit.inference.gate import judged, refuse_unless_good
    from mixerkit.inference.samples import parted

    if backend == NATIVE:
        check_computes(model.config)
        native_library(watch)
        here: list[Runtime] = [NATIVE]
    else:
        every = readers_of("onnx", model.config, True, watch)
        here = [name for name in every if backend in ("auto", name)]
    if not installed() or not here:
        raise UserError(f"int8 needs a runtime: install {or_runtimes()}.")
    if model.preprocess is None:
        raise UserError("int8 needs to know how images are prepared: set the model's preprocess.")
    _check_pixels(images_NIHW, model.config)
    about = (model.config, weights_of(model), model.preprocess)
    found, verdict = judged(*about, parted(images_NIHW), here, watch, threads)
    refuse_unless_good(verdict, "Leave the precision out to compute in float32.")
    return found


def _normalised(preprocess: Preprocess | None, pixels_BIHW: np.ndarray) -> np.ndarray:
    if preprocess is None:
        raise UserError(
            "This model does not say how images are prepared for it: set its preprocess."
        )
    return normalised(pixels_BIHW, preprocess)
