"""The ways in which a model can be computed here, each by a name, opened when it is called.

Letters: B batch, K classes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from mixerkit.errors import UserError
from mixerkit.inference.exported import Exported, open_exported
from mixerkit.inference.mixer_graph import EightBits, Form, mixer_graph
from mixerkit.inference.native import Native, check_computes, pays_by_quarters
from mixerkit.inference.native_compiler import native_library
from mixerkit.inference.native_constants import ready
from mixerkit.inference.native_graph import NativeGraph
from mixerkit.inference.readers import native_runs
from mixerkit.inference.runtimes import (
    NATIVE,
    RUNTIMES,
    InFloat,
    Run,
    Runtime,
    computes_bfloat16,
    installed,
    open_graph,
)
from mixerkit.results import usable_cores
from mixerkit.spec.mixer import MixerConfig

if TYPE_CHECKING:
    from mixerkit.model.mixer import MlpMixer

Backend = Literal["auto", "pytorch", "compiled", "native", "onnxruntime", "openvino"]
Precision = Literal["auto", "float32", "bfloat16", "int8"]
Ways = dict[str, Callable[[], Run]]
Watch = Callable[[str], None]

COMPILED = "compiled"
FORMS = {"": Form(), ", constants on the right": Form(left_of_tokens=False)}
IN_EIGHT_BITS = {"": Form(left_of_tokens=False)}


def ways_of_file(
    path: Path,
    precision: Precision,
    backend: Backend,
    threads: int,
    watch: Watch = lambda line: None,
) -> tuple[Ways, Exported]:
    """How an exported file can be run; and the file, opened, to say what it is."""
    if backend in ("pytorch", COMPILED):
        others = "openvino" if path.suffix == ".xml" else f"{NATIVE}, {or_runtimes()}"
        raise UserError(
            f"{path} is exported and {backend} does not read it: choose {others}, or give the "
            f"model that was exported."
        )
    kind = in_float(precision)
    if backend in ("onnxruntime", NATIVE) and path.suffix == ".xml":
        name = "our own code" if backend == NATIVE else "ONNX Runtime"
        raise UserError(f"{path} is OpenVINO's and {name} cannot read it: export to onnx.")
    readers = [
        name for name in _runtimes(backend, kind) if name == "openvino" or path.suffix != ".xml"
    ]
    may_be_ours = kind == "float32" and path.suffix == ".onnx" and bool(find_spec("onnx"))
    if backend == NATIVE or (may_be_ours and not readers):
        readers = [NATIVE]
        native_library(watch)
    if not readers:
        raise UserError(f"Nothing that is installed runs {path}: install {or_runtimes()}.")
    shared = cache(lambda: NativeGraph(path))

    def opened(how: Setting) -> Run:
        if how.runtime == NATIVE:
            graph = NativeGraph(path, by_quarters=True) if how.by_quarters else shared()
            return graph.run(how.threads, how.streams)
        return open_exported(path, how.runtime, how.threads, kind, how.streams).run

    settings = _settings(readers, threads)
    first, how = next(iter(settings.items()))
    exported = open_exported(path, how.runtime, how.threads, kind)
    check_precision(exported, precision)
    rounded = bool(exported.about.get("eight_bits"))
    also_ours = backend == "auto" and may_be_ours
    if NATIVE in readers or (also_ours and native_runs(exported.config, rounded, watch)):
        settings |= _native_settings(exported.config, rounded, threads)
    ways: Ways = {name: partial(opened, how) for name, how in settings.items()}
    ways[first] = lambda: exported.run  # it is open already
    return ways, exported


def check_precision(exported: Exported, precision: Precision) -> None:
    """`UserError` where a file in 8 bits is asked for another precision, or the other way round."""
    rounded = bool(exported.about.get("eight_bits"))
    if precision == "int8" and not rounded:
        raise UserError(
            f"{exported.source} is exported in float and keeps that: `mixer export SOURCE "
            f"--precision int8`."
        )
    if precision not in ("auto", "int8") and rounded:
        raise UserError(
            f"{exported.source} is exported in 8 bits and not computed in {precision}: leave the "
            f"precision out, or export the model again."
        )


def ways_of_model(
    model: "MlpMixer",
    precision: Precision,
    backend: Backend,
    threads: int,
    eight_bits: EightBits | None = None,
    watch: Watch = lambda line: None,
) -> Ways:
    """How a PyTorch model can be run: as it is, compiled, by our own code, or as a graph in each
    runtime. Without a choice our code and the runtimes are compared; PyTorch is among them where no
    runtime is installed, and alone on a GPU."""
    from mixerkit.inference.export import weights_of

    kind = in_float(precision)
    on_gpu = next(model.parameters()).device.type != "cpu"
    takes_gpu = on_gpu and backend == "auto" and not eight_bits  # no runtime here has one
    runtimes = [] if takes_gpu else _runtimes(backend, kind)
    ours: Ways = {}
    if not takes_gpu and kind == "float32":
        ours = _in_native(model, backend, threads, eight_bits, watch)
    if eight_bits and not (runtimes or ours):
        raise UserError(f"int8 needs a runtime: install {or_runtimes()}.")
    if not runtimes:
        alone = eight_bits or backend == NATIVE
        return ours if alone else _in_pytorch(model, kind, backend, threads) | ours
    weights = weights_of(model)
    forms: Mapping[str, Form] = IN_EIGHT_BITS if eight_bits else FORMS

    @lru_cache(maxsize=1)  # ways of one form follow one another
    def graph(form: Form) -> bytes:
        return mixer_graph(model.config, weights, None, form, eight_bits).SerializeToString()

    def opened(form: Form, how: Setting) -> Run:
        return open_graph(graph(form), how.runtime, "", how.threads, kind, how.streams).run

    return {
        f"{name}{which}": partial(opened, form, how)
        for which, form in forms.items()
        for name, how in _settings(runtimes, threads).items()
    } | ours


def in_float(precision: Precision) -> InFloat:
    """In what a runtime computes products that are not in 8 bits."""
    return "bfloat16" if precision == "bfloat16" else "float32"


def or_runtimes() -> str:
    """Their names, to choose from."""
    return " or ".join(RUNTIMES)


def _in_native(
    model: "MlpMixer",
    backend: Backend,
    threads: int,
    eight_bits: EightBits | None,
    watch: Watch,
) -> Ways:
    """By our own code; it is passed over if it was not asked for and cannot."""
    from mixerkit.inference.export import weights_of

    if backend not in ("auto", NATIVE):
        return {}
    if backend == NATIVE:
        check_computes(model.config)
        native_library(watch)
    elif not native_runs(model.config, bool(eight_bits), watch):
        return {}
    weights = weights_of(model)

    def native(by_quarters: bool = False) -> Native:
        return Native(ready(model.config, weights, eight_bits), by_quarters=by_quarters)

    shared = cache(native)

    def opened(how: Setting) -> Run:
        one = native(by_quarters=True) if how.by_quarters else shared()
        return one.by(how.threads or usable_cores(), how.streams)

    settings = _native_settings(model.config, bool(eight_bits), threads)
    return {name: partial(opened, how) for name, how in settings.items()}


def _in_pytorch(model: "MlpMixer", kind: InFloat, backend: Backend, threads: int) -> Ways:
    from mixerkit.inference.eager import compiled_run, eager_run, padded

    if backend == "compiled":
        return {COMPILED: lambda: padded(compiled_run(model, threads))}
    name = "pytorch" if kind == "float32" else f"pytorch, {kind}"
    return {name: partial(eager_run, model, threads, kind)}


def _runtimes(backend: Backend, kind: InFloat) -> list[Runtime]:
    """Those that are asked for, or are installed and can."""
    if kind == "bfloat16":
        if not computes_bfloat16():
            raise UserError(
                "bfloat16 needs OpenVINO and a processor that multiplies in it (AVX-512 BF16, AMX "
                "or ARM's BF16): here float32 is the choice."
            )
        return ["openvino"]
    return [
        name for name in RUNTIMES if name == backend or (backend == "auto" and name in installed())
    ]


class Setting(NamedTuple):
    """`threads`: 0 for as many as there are cores. `streams`: each has images of its own.
    `by_quarters`: as `Native` has it."""

    runtime: Runtime
    threads: int
    streams: bool = False
    by_quarters: bool = False


def _settings(runtimes: Sequence[Runtime], threads: int) -> dict[str, Setting]:
    """Each runtime with numbers of threads, and with a part of the images for each core. Our own
    code is tried with one thread in any case: of a small image, a second costs more than it
    does."""
    cores = usable_cores()
    counts = [threads] if threads else sorted({1, max(1, cores // 2), cores}, reverse=True)
    found: dict[str, Setting] = {}
    for runtime in runtimes:
        for count in sorted({1, *counts}, reverse=True) if runtime == NATIVE else counts:
            found[f"{runtime}, {count} thread{'s' if count > 1 else ''}"] = Setting(runtime, count)
        if counts[0] > 1:
            found[f"{runtime}, images for each core"] = Setting(runtime, threads, True)
    return found


def _native_settings(config: MixerConfig, rounded: bool, threads: int) -> dict[str, Setting]:
    """Those of our own code, also with Strassen's products, where they may pay."""
    found = _settings([NATIVE], threads)
    if not rounded and pays_by_quarters(config):
        how = "images for each core" if (threads or usable_cores()) > 1 else "1 thread"
        found[f"{NATIVE}, {how}, Strassen"] = Setting(NATIVE, threads, True, by_quarters=True)
    return found
