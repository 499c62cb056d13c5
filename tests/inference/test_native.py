"""Our own compiled code against the eager model, and what becomes of it without a compiler."""

import ctypes
import math
import platform
import shutil
import stat
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

import mixerkit.inference.native as native_module
import mixerkit.inference.native_compiler as compiler_module
from mixerkit.compiler import cxx_compiler
from mixerkit.errors import UserError
from mixerkit.inference.export import export, weights_of
from mixerkit.inference.graph import Range
from mixerkit.inference.mixer_graph import EightBits
from mixerkit.inference.native import Native, can_be_quartered, computes, pays_by_quarters
from mixerkit.inference.native_compiler import compile_native, native_library
from mixerkit.inference.native_constants import ready
from mixerkit.inference.native_gelu import FINE, gelu_powers
from mixerkit.inference.ways import ways_of_file, ways_of_model
from mixerkit.model.mixer import MlpMixer
from mixerkit.results import usable_cores
from mixerkit.spec.mixer import MixerConfig, variant
from mixerkit.spec.preprocess import Preprocess
from tests.inference.test_mixer_graph import CONFIGS, SMALL, moved

pytestmark = pytest.mark.usefixtures("cache_of_these_tests")

OURS = {name: config for name, config in CONFIGS.items() if computes(config)}
OURS["N/7"] = variant("N/7", num_classes=10)
TARGETS = {"native": "", "x86-64-v3": "avx2", "x86-64": "sse2"}
"""What it is compiled for, and what the processor must have to run it: vectors of 16, 8 and 4."""


@cache
def library(target: str, folder: Path) -> ctypes.CDLL:
    if target == "native":
        return native_library()
    if platform.machine() != "x86_64" or TARGETS[target] not in processor():
        pytest.skip(f"this processor has no {TARGETS[target]}")
    line = (*cxx_compiler(), *compiler_module.FLAGS, compiler_module.target(target))
    compile_native(line, folder / f"{target}.so")
    return ctypes.CDLL(str(folder / f"{target}.so"))


def processor() -> str:
    return Path("/proc/cpuinfo").read_text(encoding="utf-8")


def images_for(config: MixerConfig, count: int) -> np.ndarray:
    shape = (count, config.in_channels, *config.image_hw)
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def preprocess_of(config: MixerConfig) -> Preprocess:
    mean, std = (0.3, 0.5, 0.7, 0.2), (0.4, 0.5, 0.2, 0.3)
    mean, std = mean[: config.in_channels], std[: config.in_channels]
    return Preprocess(config.image_size, config.in_channels, mean=mean, std=std)


def pixels_for(config: MixerConfig, count: int) -> np.ndarray:
    shape = (count, config.in_channels, *config.image_hw)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def exact(model: MlpMixer, images: np.ndarray) -> np.ndarray:
    """What the model says in float64; the model is float32 again afterwards."""
    with torch.inference_mode():
        result = model.double()(torch.from_numpy(images).double()).numpy()
    model.float()
    return result


def assert_same(
    model: MlpMixer,
    images: np.ndarray,
    code: ctypes.CDLL | None = None,
    by_quarters: bool = False,
    threads: int = 1,
) -> None:
    native = Native(ready(model.config, weights_of(model)), code, by_quarters)
    found = native.by(threads, by_quarters)(images)
    wanted = exact(model, images)
    assert found.shape == wanted.shape and found.dtype == np.float32
    assert np.abs(found - wanted).max() <= 3e-6 * max(1, np.abs(wanted).max())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", OURS)
def test_it_gives_what_the_model_gives(name: str, target: str, folder: Path) -> None:
    model = moved(OURS[name])
    assert_same(model, images_for(model.config, 5), library(target, folder))


sides = st.integers(1, 5)
widths = st.integers(1, 70)


@st.composite
def configs(draw: st.DrawFn) -> MixerConfig:
    tiles = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    patch = draw(st.tuples(sides, sides))
    grid = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    image = tuple(t * p * g for t, p, g in zip(tiles, patch, grid, strict=True))
    fewer = (st.integers(0, min(p - 1, i - p)) for i, p in zip(image, patch, strict=True))
    missing = draw(st.tuples(*fewer))
    return MixerConfig(
        image_size=tuple(i - m for i, m in zip(image, missing, strict=True)),  # type: ignore[arg-type]
        patch_size=patch,
        tiles=tiles,
        in_channels=draw(st.integers(1, 3)),
        width=draw(widths),
        depth=draw(st.integers(1, 2)),
        token_width=draw(widths),
        channel_width=draw(widths),
        num_classes=draw(st.integers(0, 20)),
        token_mixer=draw(st.sampled_from(["mlp", "linear"])),
        channel_mixer=draw(st.sampled_from(["mlp", "linear"])),
        norm=draw(st.booleans()),
        gelu=draw(st.sampled_from(["tanh", "erf"])),
        pad=True,
    )


@st.composite
def quartered_configs(draw: st.DrawFn) -> MixerConfig:
    width, channel_width = (32 * draw(st.integers(1, 5)) for _ in range(2))
    changed = {"width": width, "channel_width": channel_width, "channel_mixer": "mlp"}
    return draw(configs().map(partial(replace, **changed)).filter(can_be_quartered))


IN_SLICES = {
    "count": st.integers(1, 9),
    "at_once": st.integers(1, 2**18),
    "threads": st.integers(1, 3),
}


@settings(max_examples=60, deadline=None)
@given(config=configs(), **IN_SLICES)
def test_sizes_need_not_be_whole_vectors(config: MixerConfig, **slices: int) -> None:
    if config.norm and config.width < 4:  # of few channels a LayerNorm may make much of nothing
        config = replace(config, norm_eps=0.1)
    assert_same_in_slices(config, **slices)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(config=quartered_configs(), **IN_SLICES)
def test_seven_products_of_quarters_give_what_one_gives(config: MixerConfig, **slices: int) -> None:
    assert_same_in_slices(config, by_quarters=True, **slices)


def assert_same_in_slices(
    config: MixerConfig, count: int, at_once: int, threads: int, by_quarters: bool = False
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_module, "AT_ONCE", at_once)
        assert_same(
            moved(config), images_for(config, count), by_quarters=by_quarters, threads=threads
        )


BY_QUARTERS = MixerConfig(
    image_size=24, patch_size=4, width=288, depth=2, token_width=20, channel_width=416
)


@pytest.mark.parametrize("target", TARGETS)
def test_quarters_on_every_processor(target: str, folder: Path) -> None:
    assert pays_by_quarters(BY_QUARTERS)
    code = library(target, folder)
    assert_same(moved(BY_QUARTERS), images_for(BY_QUARTERS, 5), code, by_quarters=True)


@pytest.mark.parametrize(
    "change",
    [
        {"image_size": 20},  # of 25 tokens one is left over
        {"width": 272},
        {"channel_width": 128},
        {"channel_mixer": "linear"},
    ],
    ids=str,
)
def test_quarters_must_be_whole_and_large(change: dict[str, Any]) -> None:
    assert not pays_by_quarters(replace(BY_QUARTERS, **change))


def exported(model: MlpMixer, folder: Path) -> Path:
    model.preprocess = preprocess_of(model.config)
    (path,) = export(model, folder / "model.onnx", pixels_for(model.config, 8)).files
    return path


def test_quarters_are_a_way_in_float(tmp_path: Path) -> None:
    model, images = moved(BY_QUARTERS), images_for(BY_QUARTERS, 3)
    path = exported(model, tmp_path)
    for threads, how in ((0, "images for each core"), (1, "1 thread")):
        for ways in (
            ways_of_model(model, "float32", "native", threads),
            ways_of_file(path, "float32", "native", threads)[0],
        ):
            run = ways[f"native, {how if usable_cores() > 1 else '1 thread'}, Strassen"]()
            np.testing.assert_allclose(run(images), exact(model, images), atol=1e-5)


def test_quarters_are_no_way_in_8_bits_or_of_small_models_or_for_runtimes(tmp_path: Path) -> None:
    products = [f"blocks.{i}.channel_mixing.fc1" for i in range(2)]
    about = EightBits({name: Range(-2, 3) for name in products})
    model = moved(BY_QUARTERS)
    path = exported(model, tmp_path)
    for ways in (
        ways_of_model(model, "auto", "native", 0, about),
        ways_of_model(moved(SMALL), "auto", "native", 0),
        ways_of_file(path, "float32", "onnxruntime", 0)[0],
    ):
        assert not [name for name in ways if "Strassen" in name]


def test_what_quarters_round_off_is_small_beside_the_largest_number() -> None:
    """Numbers of one half are a thousand times those of the other."""
    model = moved(replace(BY_QUARTERS, depth=1, num_classes=0))
    with torch.no_grad():
        model.blocks[0].channel_mixing.fc1.weight[: BY_QUARTERS.channel_width // 2] *= 1000
    assert_same(model, images_for(model.config, 2), by_quarters=True)


def test_no_images_give_no_rows() -> None:
    model = moved(SMALL)
    found = Native(ready(SMALL, weights_of(model)))(images_for(SMALL, 0))
    assert found.shape == (0, SMALL.num_classes)


def test_images_may_be_laid_out_in_any_way_but_not_have_another_size() -> None:
    run, images = Native(ready(SMALL, weights_of(moved(SMALL)))), images_for(SMALL, 4)
    turned = np.ascontiguousarray(images.transpose(0, 1, 3, 2)).transpose(0, 1, 3, 2)
    np.testing.assert_array_equal(run(turned), run(images))
    np.testing.assert_array_equal(run(images.astype(np.float64)), run(images))
    with pytest.raises(UserError, match=r"Expected images \[batch, 1, 28, 20\], found \[4, 1, 28"):
        run(images[:, :, :, :-1])


def test_what_is_not_a_number_stays_with_its_image() -> None:
    for config, by_quarters in ((SMALL, False), (BY_QUARTERS, True)):
        run = Native(ready(config, weights_of(moved(config))), by_quarters=by_quarters)
        images = images_for(config, 5)
        wanted = run(images)
        images[2, 0, 3, 3] = np.nan
        found = run(images)
        assert np.isnan(found[2]).all()
        np.testing.assert_array_equal(found[[0, 1, 3, 4]], wanted[[0, 1, 3, 4]])


def test_several_threads_may_ask_at_once() -> None:
    native, images = Native(ready(SMALL, weights_of(moved(SMALL)))), images_for(SMALL, 200)
    wanted = native(images)
    for run in (native, native.by(2), native.by(3, True)):
        with ThreadPoolExecutor(8) as pool:
            parts = list(pool.map(run, np.array_split(images, 40)))
        np.testing.assert_array_equal(np.concatenate(parts), wanted)


def test_there_may_be_more_threads_than_tokens() -> None:
    """Of matrices so large that what comes next is asked for."""
    model = moved(MixerConfig(image_size=4, patch_size=4, width=300, depth=1, token_width=8))
    run, images = Native(ready(model.config, weights_of(model))), images_for(model.config, 1)
    np.testing.assert_array_equal(run.by(3)(images), run(images))
    np.testing.assert_array_equal(run.by(3, True)(images), run(images))


def test_a_process_that_is_forked_off_has_threads_of_its_own() -> None:
    """Those of the other process are not there: waiting for them would never end."""
    in_a_new_process("""
wanted = native(images)
child = os.fork()
same = bool((native(images) == wanted).all())
if not child:
    os._exit(0 if same else 1)
assert same and os.waitpid(child, 0)[1] == 0
""")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems choose for us")
@pytest.mark.skipif(usable_cores() < 2, reason="there is one core for all")
def test_other_threads_keep_off_the_core_of_the_one_that_asks() -> None:
    """A system that saves cores would let them take turns on one."""
    in_a_new_process("""
core = ctypes.CDLL(None).sched_getcpu
all_of_them, threads = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
native(images)
others = set(os.listdir("/proc/self/task")) - threads
assert len(others) == 2, others
while True:
    here = core()
    native(images)
    if core() == here:
        break
for one in others:
    assert os.sched_getaffinity(int(one)) == all_of_them - {here}
assert os.sched_getaffinity(0) == all_of_them
""")


def in_a_new_process(lines: str) -> None:
    """Lines of Python about `native`, by three threads, and `images` for it."""
    script = f"""
import ctypes, os
from mixerkit.inference.native import Native
from mixerkit.inference.native_constants import ready
from tests.inference.test_native import SMALL, images_for, moved, weights_of
native = Native(ready(SMALL, weights_of(moved(SMALL)))).by(3)
images = images_for(SMALL, 4)
{lines}"""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# -- GELU -------------------------------------------------------------------------------------


def gelu(flavour: str, x: np.ndarray) -> np.ndarray:
    """By a model that is x + gelu(x) of one pixel, in our code."""
    config = MixerConfig(
        **dict(image_size=1, patch_size=1, in_channels=1, width=1, depth=1, channel_width=1),
        **dict(num_classes=0, token_mixer="linear", norm=False, gelu=flavour),  # type: ignore[arg-type]
    )
    weights = {name: np.zeros_like(tensor) for name, tensor in weights_of(MlpMixer(config)).items()}
    for name in ("stem", "blocks.0.channel_mixing.fc1", "blocks.0.channel_mixing.fc2"):
        weights[f"{name}.weight"] += 1
    images = x.astype(np.float32).reshape(-1, 1, 1, 1)
    return Native(ready(config, weights))(images)[:, 0] - images.ravel()


@pytest.mark.parametrize("flavour", FINE.limits)
def test_gelu_is_the_flavour_to_what_float32_can_say(flavour: str) -> None:
    x = np.linspace(-12, 12, 200_001)
    exact = torch.nn.functional.gelu(
        torch.from_numpy(x.astype(np.float32)).double(),
        approximate="tanh" if flavour == "tanh" else "none",
    ).numpy()
    found = gelu(flavour, x)
    rounding = np.spacing(np.float32(1)) * (1 + np.abs(x))  # of x + gelu(x), and of gelu
    assert (np.abs(found - exact) / rounding).max() < 3


@pytest.mark.parametrize("flavour", FINE.limits)
def test_gelu_of_large_numbers_is_all_or_nothing(flavour: str) -> None:
    np.testing.assert_array_equal(
        gelu(flavour, np.array([1e4, 1e38, -1e4, -1e38])), np.float32([1e4, 1e38, 0, 0])
    )
    assert math.isnan(gelu(flavour, np.array([math.nan]))[0])


@pytest.mark.parametrize("flavour", FINE.limits)
def test_the_polynomial_needs_its_degree(flavour: str) -> None:
    """With half as many powers it is seen to be worse: the test above can fail."""
    x = np.linspace(0.01, FINE.limits[flavour], 1000)
    u = 2 * x**2 / FINE.limits[flavour] ** 2 - 1

    def error(degree: int) -> float:
        inside = x * np.polyval(gelu_powers(flavour, replace(FINE, degree=degree)), u)
        wanted = (
            2
            * torch.nn.functional.gelu(
                torch.from_numpy(x), approximate="tanh" if flavour == "tanh" else "none"
            ).numpy()
            / x
            - 1
        )
        return float(np.abs(inside - wanted).max())

    assert error(16) < 1e-7 < 1e-4 < error(8)


# -- the compiler -----------------------------------------------------------------------------


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing is compiled yet; the cache's folder. What is compiled is slow, and soon there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hasty = tuple("-O0" if flag == "-O3" else flag for flag in compiler_module.FLAGS)
    assert hasty != compiler_module.FLAGS
    monkeypatch.setattr(compiler_module, "FLAGS", hasty)
    forget(monkeypatch)
    return tmp_path / "mixerkit" / "native"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in another process."""
    monkeypatch.setattr(compiler_module, "_opened", {})
    monkeypatch.setattr(compiler_module, "_failed", {})


def stand_in(tmp_path: Path, script: str) -> str:
    """A compiler that does as it is told."""
    path = tmp_path / "c++"
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_it_is_compiled_once_and_kept(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    native_library(said.append)
    (kept,) = fresh.iterdir()
    assert len(said) == 1 and "compiling" in said[0]
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    forget(monkeypatch)
    written = kept.stat().st_mtime_ns
    native_library(said.append)
    assert len(said) == 1 and kept.stat().st_mtime_ns == written


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_a_half_of_it_is_compiled_again(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    native_library()
    (kept,) = fresh.iterdir()
    whole = kept.read_bytes()
    kept.unlink()  # this process runs it
    kept.touch(0o600)
    kept.write_bytes(whole[: int(share * len(whole))])
    forget(monkeypatch)
    assert_same(moved(SMALL), images_for(SMALL, 3), native_library())
    (again,) = fresh.iterdir()
    assert again.stat().st_size == len(whole)


def test_several_processes_compile_at_once(fresh: Path) -> None:
    code = "from mixerkit.inference.native_compiler import native_library as n; print(n().lanes())"
    programs = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [one.wait(timeout=120) for one in programs] == [0, 0, 0]
    assert all(path.name.endswith(".so") for path in fresh.iterdir())
    assert len(list(fresh.iterdir())) == 1


def test_what_it_is_made_of_is_in_its_name(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native_library()
    (found,) = cxx_compiler()
    monkeypatch.setenv("CXX", stand_in(tmp_path, f'exec {found} "$@"'))
    native_library()
    monkeypatch.setenv("CXX", f"{found} -DSOMETHING")
    native_library()
    changed = tmp_path / "cpp"
    shutil.copytree(compiler_module.SOURCE.parent, changed)
    monkeypatch.setattr(compiler_module, "SOURCE", changed / "mixer.cpp")
    with (changed / "gelu.h").open("a", encoding="utf-8") as header:
        header.write("\n")
    native_library()
    monkeypatch.setattr(compiler_module, "processor", lambda: "flags: another")
    native_library()
    assert len({path.name.partition("-")[0] for path in fresh.iterdir()}) == 5


@pytest.mark.parametrize("which", ["folder", "library"])
def test_what_others_may_write_is_not_run(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    native_library()
    (kept,) = fresh.iterdir()
    (fresh if which == "folder" else kept).chmod(0o770)
    forget(monkeypatch)
    with pytest.raises(UserError, match=r"Others may write .*native"):
        native_library()


def test_without_a_compiler_it_is_told_or_passed_over(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    model, said = moved(SMALL), list[str]()
    ways = ways_of_model(model, "auto", "auto", 0, watch=said.append)
    assert not [name for name in ways if "native" in name] and not said
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler, and neither g\+\+ nor clang"):
        ways_of_model(model, "auto", "native", 0)


def test_a_compiler_that_is_named_and_not_there(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O1")
    says = r"\$CXX names no-such-compiler, which is not installed"
    with pytest.raises(UserError, match=says):
        native_library()
    told = list[str]()
    ways = ways_of_model(moved(SMALL), "auto", "auto", 0, watch=told.append)
    assert not [name for name in ways if "native" in name]
    assert len(told) == 1 and "left out: $CXX names" in told[0]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'in function f:' >&2; echo 'error: no such option' >&2; exit 1", "no such option"),
        ('for last; do :; done; echo half > "$last"; exit 4', "it ended with 4"),
        (r"printf 'error: \374' >&2; exit 1", "error: \ufffd"),
        ("exec sleep 60", "timed out"),
        ("true", "it wrote nothing"),
        (r"printf '\tusage\nof it\n' >&2; exit 1", "usage."),
    ],
)
def test_a_compiler_that_fails_leaves_nothing(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    count = tmp_path / "count"
    monkeypatch.setenv("CXX", stand_in(tmp_path, f"echo >> {count}; {script}"))
    monkeypatch.setattr(compiler_module, "SECONDS", 1)
    with pytest.raises(UserError, match=f"does not compile our own code: .*{said}"):
        native_library()
    told = list[str]()
    ways = ways_of_model(moved(SMALL), "auto", "auto", 0, watch=told.append)
    assert not [name for name in ways if "native" in name]
    assert len(told) == 1 and "left out" in told[0] and said in told[0]
    assert count.read_text().count("\n") == 1, "once is enough for a process"
    assert not list(fresh.iterdir())


def test_a_compiler_that_writes_something_else(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", stand_in(tmp_path, 'for last; do :; done; echo text > "$last"'))
    with pytest.raises(UserError, match="cannot be used"):
        native_library()


def test_a_cache_that_cannot_be_written_is_told(fresh: Path) -> None:
    fresh.parent.write_text("a file in the place of the folder", encoding="utf-8")
    with pytest.raises(UserError, match="cannot be used"):
        native_library()


def test_the_source_is_part_of_the_package(monkeypatch: pytest.MonkeyPatch, fresh: Path) -> None:
    about = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
    assert "inference/cpp/*" in about["tool"]["setuptools"]["package-data"]["mixerkit"]
    monkeypatch.setattr(compiler_module, "SOURCE", Path("nowhere.cpp"))
    with pytest.raises(UserError, match="cannot be used"):
        native_library()


# -- who is offered it ------------------------------------------------------------------------


def test_ways_have_it_where_it_has_the_token_mixer() -> None:
    ways = ways_of_model(moved(SMALL), "auto", "auto", 2)
    ours = [f"native, {how}" for how in ("2 threads", "1 thread", "images for each core")]
    assert list(ways)[-3:] == ours
    images = images_for(SMALL, 3)
    wanted = ways[ours[1]]()(images)
    for name in ours:
        np.testing.assert_array_equal(ways[name]()(images), wanted)
    for mixer in ("attention", "pool"):
        other = moved(replace(SMALL, token_mixer=mixer))
        assert not [name for name in ways_of_model(other, "auto", "auto", 2) if "native" in name]
        with pytest.raises(UserError, match=f"mlp and linear, found {mixer}"):
            ways_of_model(other, "auto", "native", 0)
    assert list(ways_of_model(moved(SMALL), "auto", "native", 1)) == ["native, 1 thread"]
