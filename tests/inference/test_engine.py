"""`Predictor`: every backend gives what the model gives."""

import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.errors import Refused, UserError
from mixerkit.inference import engine as module, plan as plan_module, ways as ways_module
from mixerkit.inference.eager import SIZES
from mixerkit.inference.eight_bits import Calibration, Setting
from mixerkit.inference.engine import Predictor
from mixerkit.inference.export import eager_logits, export, weights_of
from mixerkit.inference.exported import Exported
from mixerkit.inference.gate import unjudged
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits, Form, mixer_graph
from mixerkit.inference.native import multiplies_eight_bits
from mixerkit.inference.plan import Choice, Plan
from mixerkit.inference.predictor import predict_files
from mixerkit.inference.runtimes import NATIVE, RUNTIMES, Runtime, open_graph
from mixerkit.inference.ways import Backend, ways_of_model
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

OURS = [NATIVE] if multiplies_eight_bits() else []
"""What computes in 8 bits beside the runtimes."""
CONFIG = MixerConfig(
    image_size=(16, 24),
    patch_size=8,
    in_channels=3,
    width=16,
    depth=2,
    token_width=8,
    channel_width=32,
    num_classes=4,
)


@pytest.fixture
def model() -> MlpMixer:
    torch.manual_seed(0)
    made = MlpMixer(CONFIG)
    torch.nn.init.normal_(made.head.weight)
    made.preprocess = Preprocess(image_size=CONFIG.image_size, class_names=tuple("abcd"))
    return made


@pytest.fixture(autouse=True)
def plans_of_this_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured in less time: which way is fastest is not asked here."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(plan_module, "ROUNDS", 1)
    monkeypatch.setattr(plan_module, "SLICES", (1, 4))


def pixels(count: int = 11) -> np.ndarray:
    shape = (count, 3, *CONFIG.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("backend", get_args(Backend))
def test_every_backend_gives_what_the_model_gives(
    model: MlpMixer, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if backend == "compiled":  # compiling takes long, and is PyTorch's matter
        monkeypatch.setattr(torch, "compile", lambda model, **options: model)
    predictor = Predictor(model, backend=backend)
    wanted = eager_logits(model, pixels())
    np.testing.assert_allclose(predictor.logits(pixels()), wanted, atol=1e-5)
    p = torch.from_numpy(wanted).softmax(dim=1).numpy()
    np.testing.assert_allclose(predictor.probabilities(pixels()), p, atol=1e-6)
    for choice in (predictor.plan.one, predictor.plan.many):
        chosen = choice.backend.partition(",")[0]
        assert chosen == backend or (backend == "auto" and chosen in (NATIVE, *RUNTIMES))
        assert choice.backend in repr(predictor)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_streams_give_the_images_in_their_order(
    model: MlpMixer, count: int, runtime: Runtime
) -> None:
    graph = mixer_graph(CONFIG, weights_of(model)).SerializeToString()
    images = np.random.default_rng(0).standard_normal((count, 3, *CONFIG.image_hw), np.float32)
    one, several = (
        open_graph(graph, runtime, "", threads=2, streams=streams).run for streams in (False, True)
    )
    for _ in range(2):  # requests are used again
        np.testing.assert_allclose(several(images), one(images), atol=1e-6)


@pytest.mark.parametrize("form", [Form(), Form(pixels=True, probabilities=True)])
def test_an_exported_file_is_run_by_whatever_is_fastest(
    model: MlpMixer, tmp_path: Path, form: Form
) -> None:
    (path,) = export(model, tmp_path / "a.onnx", pixels(), form=form).files
    p = torch.from_numpy(eager_logits(model, pixels())).softmax(dim=1).numpy()
    for backend in ("auto", "onnxruntime", "openvino"):
        predictor = Predictor(path, backend=backend)  # type: ignore[arg-type]
        np.testing.assert_allclose(predictor.probabilities(pixels()), p, atol=1e-5)
        shifted = predictor.logits(pixels()) - eager_logits(model, pixels())
        assert np.ptp(shifted, axis=1).max() < 1e-4


def test_files_are_predicted_as_by_the_model(model: MlpMixer, tmp_path: Path) -> None:
    files = []
    for number in range(5):
        files.append(tmp_path / f"{number}.png")
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(files[-1])
    ours = list(Predictor(model).predict(files, top=2))
    for one, other in zip(ours, predict_files(model, files, top=2), strict=True):
        assert one.path == other.path
        assert [name for name, _ in one.classes] == [name for name, _ in other.classes]
    predictor = Predictor(model)
    for given, wanted in (
        (tmp_path, files),
        ([files[0], tmp_path], [files[0], *files]),
        (str(files[3]), [files[3]]),
    ):
        assert [one.path for one in predictor.predict(given)] == wanted
    with Image.open(files[2]) as image:
        for _ in range(2):  # the image is left open
            for (name, p), (same, q) in zip(
                predictor.classes(image, top=2), ours[2].classes, strict=True
            ):
                assert name == same and p == pytest.approx(q, abs=1e-6)


def test_a_batch_is_computed_in_the_slices_of_the_plan(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def run(images_B: np.ndarray) -> np.ndarray:
        sizes.append(len(images_B))
        return images_B[:, 0, 0, :4]

    def alone(images_B: np.ndarray) -> np.ndarray:
        sizes.append(-len(images_B))
        return images_B[:, 0, 0, :4]

    plan = Plan(Choice("one", 1, 0.1), Choice("many", 4, 0.1))
    monkeypatch.setattr(module, "kept_plan", lambda *given, **more: plan)
    ways = {"many": lambda: run, "one": lambda: alone, "bad": lambda: pytest.fail("opened")}
    monkeypatch.setattr(module, "ways_of_model", lambda *given: ways)
    predictor = Predictor(model)
    for count in (10, 1, 2):
        predictor.logits(pixels(count))
    assert sizes == [4, 3, 3, -1, 2]
    assert predictor.batch_size == 32
    prepared: list[int] = []

    def prepare(pixels_BIHW: np.ndarray) -> np.ndarray:
        prepared.append(len(pixels_BIHW))
        return pixels_BIHW.astype(np.float32)

    monkeypatch.setattr(predictor, "_prepare", prepare)
    predictor.logits(pixels(10))
    assert prepared == [4, 3, 3], "no more is prepared at once than is computed"


def test_the_runtime_that_said_what_a_file_is_goes_with_it(
    model: MlpMixer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the plan runs it: a large model would be in memory twice."""
    (path,) = export(model, tmp_path / "a.onnx", pixels()).files
    names, opened = [], []
    whole = ways_module.open_exported

    def noting(*given: Any) -> Exported:
        found = whole(*given)
        opened.append((given[1], weakref.ref(found.run)))
        return found

    def last(about: Any, ways: dict[str, Any], *_: Any, **more: Any) -> Plan:
        names.extend(ways)
        return Plan(Choice(names[-1], 1, 0.1), Choice(names[-1], 4, 0.1))

    monkeypatch.setattr(ways_module, "open_exported", noting)
    monkeypatch.setattr(module, "kept_plan", last)
    predictor = Predictor(path)
    assert [runtime for runtime, _ in opened] == ["onnxruntime"]
    assert [run() for _, run in opened] == [None] and "native" in names[-1]
    assert predictor.logits(pixels()).shape == (11, 4)


def test_8_bits_are_computed_by_a_runtime_beside_a_gpu_too(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = weights_of(model)
    monkeypatch.setattr("mixerkit.inference.export.weights_of", lambda model: weights)
    elsewhere = model.to("meta")
    eight_bits = EightBits({"blocks.0.token_mixing.fc1": Range(-1, 1)})
    ways = ways_of_model(elsewhere, "int8", "auto", 1, eight_bits)
    assert {name.partition(",")[0] for name in ways} == {*RUNTIMES, *OURS}
    assert list(ways_of_model(elsewhere, "auto", "auto", 1)) == ["pytorch"]
    assert list(ways_of_model(elsewhere, "bfloat16", "auto", 1)) == ["pytorch, bfloat16"]


def test_8_bits_are_judged_in_the_runtimes_that_may_answer(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def judged(*given: Any) -> Any:
        seen.append((given[4], given[6]))
        raise Refused("seen")

    monkeypatch.setattr("mixerkit.inference.gate.judged", judged)
    for backend in ("auto", "openvino", "native"):
        with pytest.raises(Refused, match="seen"):
            Predictor(model, "int8", images=pixels(200), backend=backend, threads=2)  # type: ignore[arg-type]
    assert seen == [([*RUNTIMES, *OURS], 2), (["openvino"], 2), (["native"], 2)]


def test_a_file_in_8_bits_may_be_asked_for_them(model: MlpMixer, tmp_path: Path) -> None:
    about = weights_of(model), model.preprocess, model.config
    calibration = Calibration(about[2], *about[:2], pixels(), "onnxruntime")
    rounded = unjudged(calibration, Setting())
    (path,) = export(model, tmp_path / "8.onnx", pixels(), rounded=rounded, force=True).files
    (other,) = export(model, tmp_path / "f.onnx", pixels()).files
    for backend in ("auto", "native", "onnxruntime"):
        predictor = Predictor(path, "int8", backend=backend)  # type: ignore[arg-type]
        wanted = eager_logits(model, pixels())
        assert rms(predictor.logits(pixels()) - wanted) < 0.1 * rms(wanted)
    with pytest.raises(UserError, match="is exported in float and keeps that"):
        Predictor(other, "int8")
    with pytest.raises(UserError, match="leave `images` out"):
        Predictor(path, "int8", images=pixels())


def rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x).mean()))


def test_what_is_no_number_is_no_answer(model: MlpMixer, tmp_path: Path) -> None:
    image = tmp_path / "a.png"
    Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(image)
    with torch.no_grad():
        model.head.bias[1] = float("nan")
    predictor = Predictor(model)
    with pytest.raises(UserError, match="outputs that are no numbers"):
        list(predictor.predict(image))
    with pytest.raises(UserError, match=r"found 'a\.png'"):
        predictor.classes("a.png")  # type: ignore[arg-type]


def test_8_bits_that_cannot_be_are_told_before_anything_is_measured(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = "mixerkit.inference.gate.judged"
    monkeypatch.setattr(judge, lambda *given: pytest.fail("measured"))
    other = MlpMixer(replace(CONFIG, token_mixer="pool"))
    other.preprocess = model.preprocess
    with pytest.raises(UserError, match="mlp and linear, found pool"):
        Predictor(other, "int8", images=pixels(200), backend="native")
    monkeypatch.setattr(module, "installed", lambda: ("onnxruntime",))
    monkeypatch.setattr("mixerkit.inference.readers.installed", lambda: ("onnxruntime",))
    with pytest.raises(UserError, match="int8 needs a runtime"):
        Predictor(model, "int8", images=pixels(200), backend="openvino")


def test_the_second_predictor_measures_nothing(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixerkit.inference import kept_plan

    first = Predictor(model).plan
    monkeypatch.setattr(kept_plan, "fastest", lambda *given: pytest.fail("measured again"))
    assert Predictor(model).plan == first


def test_with_a_plan_nothing_is_measured(model: MlpMixer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kept_plan", lambda *given, **more: pytest.fail("measured"))
    one, many = Choice("onnxruntime, 1 thread", 1, 1.0), Choice("openvino, 1 thread", 2, 1.0)
    given = Predictor(model, plan=Plan(one, many))
    assert given.plan == Plan(one, many) and "onnxruntime" in repr(given)
    assert np.abs(given.logits(pixels()) - eager_logits(model, pixels())).max() < 1e-4
    with pytest.raises(UserError, match=r"'abacus', is none of this model's: .*onnxruntime"):
        Predictor(model, plan=Plan(one, replace(many, backend="abacus")))


def test_a_graph_is_written_once_for_the_ways_that_read_it(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Form] = []

    def counted(config: MixerConfig, weights: Any, preprocess: None, form: Form, *more: Any) -> Any:
        written.append(form)
        return mixer_graph(config, weights, preprocess, form, *more)

    monkeypatch.setattr(ways_module, "mixer_graph", counted)
    for way in ways_of_model(model, "float32", "auto", 1).values():
        way()
    assert len(written) == len(set(written)) == 2


def test_files_of_one_model_have_plans_of_their_own(model: MlpMixer, tmp_path: Path) -> None:
    """Pixels or normalised images, float or not: one is no measure of the other."""
    told: list[str] = []
    for number, form in enumerate((Form(), Form(pixels=True), Form(half=True))):
        (path,) = export(model, tmp_path / f"{number}.onnx", pixels(), form=form).files
        for _ in range(2):
            Predictor(path, watch=told.append)
    assert sum("measuring" in line for line in told) == 3


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_threads_may_share_a_predictor(model: MlpMixer, runtime: Runtime) -> None:
    graph = mixer_graph(CONFIG, weights_of(model)).SerializeToString()
    images = np.random.default_rng(0).standard_normal((40, 3, *CONFIG.image_hw), np.float32)
    for streams in (False, True):
        run = open_graph(graph, runtime, "", threads=2, streams=streams).run
        wanted = run(images)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(run, [images[i : i + 4] for i in range(0, 40, 4)] * 5))
        np.testing.assert_allclose(np.concatenate(found), np.tile(wanted, (5, 1)), atol=1e-6)


def test_onnxruntime_leaves_the_processor_when_it_has_answered(model: MlpMixer) -> None:
    """Its threads would go on waiting by computing, and spoil what is measured next."""
    graph = mixer_graph(CONFIG, weights_of(model)).SerializeToString()
    run = open_graph(graph, "onnxruntime", "", threads=2).run
    images = np.zeros((64, 3, *CONFIG.image_hw), np.float32)
    taken = []
    for _ in range(20):
        run(images)
        before = time.process_time()
        time.sleep(0.01)
        taken.append(time.process_time() - before)
    assert np.median(taken) < 0.003


def test_no_images_are_no_answers(model: MlpMixer) -> None:
    for backend in ("pytorch", "onnxruntime", "openvino"):
        predictor = Predictor(model, backend=backend)  # type: ignore[arg-type]
        assert predictor.probabilities(pixels(0)).shape == (0, 4)


def test_compiled_with_weights_as_constants(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config

    seen, sizes = [], []

    def compiled(module: MlpMixer, **options: Any) -> Any:
        def call(x: torch.Tensor) -> torch.Tensor:
            seen.append(config.freezing)  # when it is called it is compiled
            sizes.append(len(x))
            result: torch.Tensor = module(x)
            return result

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    predictor = Predictor(model, backend="compiled")
    assert seen and all(seen) and set(sizes) <= set(SIZES)
    sizes.clear()
    wanted = eager_logits(model, pixels(45))
    for count in (1, 3, 8, 9, 33, 45):
        np.testing.assert_allclose(predictor.logits(pixels(45)[:count]), wanted[:count], atol=1e-5)
    assert set(sizes) <= set(SIZES), "each other size would be compiled anew"


def test_the_shipped_model_by_name() -> None:
    predictor = Predictor("zoo:fashion-demo")
    assert predictor.config.num_classes == 10
    found = predictor.probabilities(np.zeros((2, 1, 28, 28), np.uint8))
    assert found.shape == (2, 10) and found.sum(axis=1) == pytest.approx([1, 1], abs=1e-5)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"precision": "float8"}, "precision must be one of auto, float32, bfloat16, int8"),
        ({"precision": "int8"}, "give `images`"),
        ({"images": pixels()}, "give `images`"),
        ({"precision": "int8", "images": pixels(), "backend": "pytorch"}, "int8 is for"),
        ({"precision": "int8", "images": pixels()[:, :1]}, r"Expected 8-bit images \[batch, 3, "),
        ({"precision": "int8", "images": "my-photos"}, "in an array, found str"),
        ({"precision": "int8", "images": pixels(), "backend": "compiled"}, "int8 is for"),
        ({"backend": "tensorrt"}, "backend must be one of auto"),
        ({"threads": -1}, "threads must not be negative"),
        ({"precision": "bfloat16", "backend": "onnxruntime"}, "bfloat16 is for the backend"),
        ({"image_size": 32}, "convert this one first"),
    ],
)
def test_bad_options(model: MlpMixer, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        Predictor(model, **options)


def test_bad_images_and_files(model: MlpMixer, tmp_path: Path) -> None:
    predictor = Predictor(model, backend="pytorch")
    for wrong in (pixels().astype(np.float32), pixels()[:, :1], pixels()[:, :, :8]):
        with pytest.raises(UserError, match="Expected 8-bit images"):
            predictor.logits(wrong)
    (path,) = export(model, tmp_path / "a.onnx", pixels()).files
    with pytest.raises(UserError, match="is exported and pytorch does not read it: choose native"):
        Predictor(path, backend="pytorch")
    with pytest.raises(UserError, match="exported for one image size"):
        Predictor(path, image_size=32)
    with pytest.raises(UserError, match="leave `images` out"):
        Predictor(path, "int8", images=pixels())
    path.with_suffix(".xml").touch()
    with pytest.raises(UserError, match="OpenVINO's and ONNX Runtime cannot read it"):
        Predictor(path.with_suffix(".xml"), backend="onnxruntime")
    with pytest.raises(UserError, match="No exported model"):
        Predictor(tmp_path / "b.onnx")


def test_a_model_in_8_bits_must_pass_the_gate(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found on the images that are given; too slow is refused as in an export."""
    from mixerkit.inference import gate

    for ratio in (1.5, 1.1):
        speed = gate.Speed(ratio, ratio, ratio, "openvino")
        monkeypatch.setattr(gate, "speed_up", lambda *given, speed=speed: speed)
        if ratio < gate.LEAST_SPEED_UP:
            with pytest.raises(Refused, match=r"1\.10 times as fast in openvino"):
                Predictor(model, "int8", images=pixels(132))
            continue
        predictor = Predictor(model, "int8", images=pixels(132))
        found, wanted = predictor.logits(pixels(40)), eager_logits(model, pixels(40))
        assert 0 < np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_a_model_is_left_as_it_was(model: MlpMixer) -> None:
    """With what its user froze, and so are PyTorch's threads."""
    threads = torch.get_num_threads()
    for training in (True, False):
        model.train(training)
        model.blocks[0].eval()
        before = [part.training for part in model.modules()]
        for backend in ("pytorch", "onnxruntime"):
            predictor = Predictor(model, backend=backend, threads=threads + 1)  # type: ignore[arg-type]
            predictor.logits(pixels())
            eager_logits(model, pixels())
            assert [part.training for part in model.modules()] == before
            assert torch.get_num_threads() == threads


def test_a_model_in_training_answers_several_threads_without_dropout(model: MlpMixer) -> None:
    """One must not switch it on while another computes."""
    dropping = MlpMixer(replace(CONFIG, dropout=0.5)).train()
    dropping.load_state_dict(model.state_dict())
    dropping.preprocess = model.preprocess
    predictor = Predictor(dropping, backend="pytorch")
    wanted = eager_logits(model, pixels(2))
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(predictor.logits, [pixels(2)] * 200):
            np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_model_without_a_head_has_no_probabilities() -> None:
    headless = MlpMixer(replace(CONFIG, num_classes=0))
    headless.preprocess = Preprocess(image_size=CONFIG.image_size)
    predictor = Predictor(headless, backend="pytorch")
    assert predictor.logits(pixels(3)).shape == (3, CONFIG.width)
    for ask in (
        lambda: predictor.probabilities(pixels(3)),
        lambda: predictor.classes(Image.new("RGB", (30, 30))),
    ):
        with pytest.raises(UserError, match="no head"):
            ask()


def test_bfloat16_is_refused_where_it_is_not_computed(
    model: MlpMixer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixerkit.inference import ways

    monkeypatch.setattr(ways, "computes_bfloat16", lambda: False)
    with pytest.raises(UserError, match="a processor that multiplies in it"):
        Predictor(model, "bfloat16")


def test_a_signal_after_openvino_is_handled(model: MlpMixer) -> None:
    """In a process of its own: it would end with a segmentation fault."""
    code = """
import gc, os, signal
import numpy as np
from mixerkit.inference.engine import Predictor
predictor = Predictor("zoo:fashion-demo", backend="openvino")
predictor.logits(np.zeros((1, 1, 28, 28), np.uint8))
del predictor
gc.collect()
signal.signal(signal.SIGTERM, lambda *given: print("handled"))
os.kill(os.getpid(), signal.SIGTERM)
print("alive")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["handled", "alive"]), done.stderr
