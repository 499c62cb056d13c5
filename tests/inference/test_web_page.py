"""`mixer export --to web` in a real browser: what the page says, survives and asks for.

The browser and onnxruntime-web are fetched by `make test` before the tests (`tests/browser.py`).
"""

import base64
import io
import json
import shutil
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.checkpoint.load import load
from mixerkit.data.decode import fit, open_image
from mixerkit.data.sources import open_source
from mixerkit.inference.eight_bits import SETTINGS
from mixerkit.inference.export import eager_logits, weights_of
from mixerkit.inference.exported import normalised, open_exported
from mixerkit.inference.gate import judged
from mixerkit.inference.samples import parted
from mixerkit.inference.web_export import image_rule, web_export
from mixerkit.inference.web_runtime import runtime_files
from mixerkit.insight.units import influence
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from tests.browser import BY_HAND, Pipe, Tab, browsing, find_browser, tab
from tests.loopback import serving

pytestmark = pytest.mark.slow
SAMPLES = Path(__file__).parent.parent / "samples" / "fashion-mnist"
BOOT = Path(__file__).parent.parent.parent / "examples" / "fashion" / "ankle-boot.png"
SMALL = MixerConfig(
    image_size=64, patch_size=(16, 8), width=32, depth=2, token_width=24, channel_width=64,
    num_classes=7, gelu="tanh",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A served folder: `at` its address, `path` on the disk."""

    at: str
    path: Path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipe]:
    program = find_browser()
    if program is None:
        pytest.fail(f"There is no browser: run `python -m tests.browser`, or {BY_HAND}")
    with browsing(program, tmp_path_factory.mktemp("browser") / "log") as pipe:
        yield pipe


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *given: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a tab was closed
            super().handle()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """What is served: the pages, and files/ for images."""
    path = tmp_path_factory.mktemp("served")
    (path / "files").mkdir()
    with serving(partial(Quiet, directory=str(path))) as address:  # type: ignore[arg-type]
        yield Site(address, path)


def random_model(config: MixerConfig, **more: Any) -> MlpMixer:
    torch.manual_seed(0)
    model = MlpMixer(config)
    torch.nn.init.normal_(model.head.weight)
    model.preprocess = Preprocess(
        image_size=config.image_size, channels=config.in_channels, mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.25, 0.3), **more,
    )  # fmt: skip
    return model


def noise(model: MlpMixer, count: int = 16) -> np.ndarray:
    shape = (count, model.config.in_channels, *model.config.image_hw)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def published(root: Site, name: str, model: MlpMixer, **options: Any) -> Site:
    path = root.path / name
    if not path.exists():
        web_export(model, path, noise(model), runtime_files(), title=name, **options)
    return Site(f"{root.at}/{name}/", path)


@pytest.fixture(scope="module")
def fashion_model() -> MlpMixer:
    return load("zoo:fashion-demo")


@pytest.fixture(scope="module")
def fashion(root: Site, fashion_model: MlpMixer) -> Site:
    return published(root, "fashion-demo", fashion_model)


@contextmanager
def opened(browser: Pipe, site: Site) -> Iterator[Tab]:
    """The page, ready for an image."""
    with tab(browser) as page:
        page.size(1100, 800)
        page.go(site.at)
        page.wait("!document.getElementById('input').hidden")
        yield page


ASK = """(async () => {
  const { model } = await import("./page.js");
  const found = [];
  for (const name of %s) {
    const blob = await (await fetch(`../files/${name}`)).blob();
    const pixels = await model.prepare(new File([blob], name));
    const { logits } = await model.run(pixels);
    found.push({ pixels: btoa(String.fromCharCode(...pixels)), logits: Array.from(logits) });
  }
  return found;
})()"""


def answers(page: Tab, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, flat, and logits that the page has for files in files/."""
    found = page.run(ASK % json.dumps(names))
    pixels = [np.frombuffer(base64.b64decode(one["pixels"]), np.uint8) for one in found]
    return np.stack(pixels), np.array([one["logits"] for one in found])


def said(page: Tab) -> str:
    return str(page.run("document.getElementById('said').textContent"))


def show(page: Tab, path: Path) -> str:
    """Choose a file; what is said of it."""
    page.run("document.getElementById('said').textContent = ''")
    page.choose("#file", path)
    page.wait("(s => s && !s.startsWith('Looking'))(document.getElementById('said').textContent)")
    return said(page)


def troubles(page: Tab) -> list[dict[str, Any]]:
    """Exceptions and refusals that the browser told of."""
    return page.events("Runtime.exceptionThrown", "Log.entryAdded")


def as_flat(pixels_NIHW: np.ndarray) -> np.ndarray:
    return pixels_NIHW.transpose(0, 2, 3, 1).reshape(len(pixels_NIHW), -1)


# -- numbers ----------------------------------------------------------------------------------


def test_two_hundred_photographs(
    browser: Pipe, root: Site, fashion: Site, fashion_model: MlpMixer
) -> None:
    """As PNG files: the same pixels, logits and classes as in Python, and as right."""
    split = open_source("fashion-mnist", str(SAMPLES)).test
    assert split is not None and split.images is not None
    images = split.images[:200].copy()
    names = [f"{i}.png" for i in range(200)]
    for name, image_HWI in zip(names, images, strict=True):
        Image.fromarray(image_HWI[..., 0]).save(root.path / "files" / name)
    with opened(browser, fashion) as page:
        pixels, logits = answers(page, names)
    np.testing.assert_array_equal(pixels, images.reshape(200, -1))
    wanted = eager_logits(fashion_model, images.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(axis=1), wanted.argmax(axis=1))
    assert (logits.argmax(axis=1) == split.labels[:200]).mean() > 0.85


FORMS: dict[str, dict[str, Any]] = {
    "float32": {},
    "float16": {"half": True},
    "pad": {"pad": True, "image_size": (60, 62)},
    "tiles": {"tiles": (2, 1)},
    "gated": {"token_mixer": "gated"},
    "linear": {"token_mixer": "linear", "channel_mixer": "linear", "norm": False},
    "attention": {"token_mixer": "attention", "token_groups": 4},
    "global-filter": {"token_mixer": "global-filter"},
}


@pytest.mark.parametrize("name", FORMS)
def test_colour_models(browser: Pipe, root: Site, name: str) -> None:
    """Their logits on identical pixels; only token mixing by MLPs has units to show."""
    half = name == "float16"
    changes = {key: value for key, value in FORMS[name].items() if key != "half"}
    model = random_model(replace(SMALL, **changes))
    site = published(root, f"small-{name}", model, half=half)
    images = noise(model, 4)
    names = [f"{name}-{i}.png" for i in range(len(images))]
    for file, image in zip(names, images, strict=True):
        Image.fromarray(image.transpose(1, 2, 0)).save(root.path / "files" / file)
    with opened(browser, site) as page:
        pixels, logits = answers(page, names)
        show(page, root.path / "files" / names[0])
        hidden = page.run("document.getElementById('units').hidden")
        page.wait("document.getElementById('influence-said').textContent")
        assert troubles(page) == []
    np.testing.assert_array_equal(pixels, as_flat(images))
    wanted = eager_logits(model, images)
    np.testing.assert_allclose(logits, wanted, atol=0.02 * np.abs(wanted).max() if half else 1e-4)
    assert hidden is (changes.get("token_mixer", "mlp") != "mlp")


def test_eight_bits(browser: Pipe, root: Site, fashion_model: MlpMixer) -> None:
    """The likeliest classes are those of ONNX Runtime in Python."""
    split = open_source("fashion-mnist", str(SAMPLES)).test
    assert split is not None and split.images is not None and fashion_model.preprocess
    images = split.images.transpose(0, 3, 1, 2).copy()
    about = fashion_model.config, weights_of(fashion_model), fashion_model.preprocess
    rounded = judged(
        *about, parted(images), ["onnxruntime"], lambda line: None, settings=SETTINGS[:1]
    )
    site = published(root, "eight-bits", fashion_model, rounded=rounded, force=True)
    names = [f"eight-{i}.png" for i in range(40)]
    for file, image in zip(names, images[100:140], strict=True):
        Image.fromarray(image[0]).save(root.path / "files" / file)
    with opened(browser, site) as page:
        _, logits = answers(page, names)
        show(page, BOOT)
        assert page.run("document.querySelectorAll('#unit-maps figure').length") == 8
        assert "int8" in page.run("document.getElementById('foot').textContent")
    wanted = open_exported(site.path / "model.onnx", "onnxruntime").logits(images[100:140])
    np.testing.assert_allclose(logits, wanted, atol=0.05 * np.abs(wanted).max())
    assert (logits.argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.95


def test_units_and_influence(browser: Pipe, fashion: Site, fashion_model: MlpMixer) -> None:
    """The units that respond most, their pictures, and what patches are worth, against PyTorch."""
    assert fashion_model.preprocess
    pixels_IHW = fit(open_image(BOOT), fashion_model.preprocess)
    x_1IHW = torch.from_numpy(normalised(pixels_IHW[None], fashion_model.preprocess))
    heard: list[torch.Tensor] = []
    weight_TS, bias_T = fashion_model.blocks[0].token_mixing.fc1.parameters()
    norm = fashion_model.blocks[0].token_norm
    hook = norm.register_forward_hook(lambda *given: heard.append(given[2]))
    with torch.no_grad():
        fashion_model.eval()(x_1IHW)
        h_TC = torch.nn.functional.gelu(weight_TS @ heard[0][0] + bias_T[:, None])
    hook.remove()
    sizes = h_TC.abs().mean(dim=1)
    falls = influence(fashion_model, x_1IHW[0])
    with opened(browser, fashion) as page:
        show(page, BOOT)
        page.wait("document.getElementById('influence-said').textContent")
        captions = page.run(
            "[...document.querySelectorAll('#unit-maps figcaption')].map(c => c.textContent)"
        )
        words = page.run("document.getElementById('influence-said').textContent")
    units = [int(one.split()[1].rstrip(":")) for one in captions]
    assert units == sizes.argsort(descending=True)[:8].tolist()
    assert [float(one.split()[2]) for one in captions] == pytest.approx(
        sizes[units].tolist(), abs=0.006
    )
    row, column = np.unravel_index(falls.argmax(), falls.shape)
    assert f"row {row + 1}, column {column + 1} " in words
    assert float(words.split()[-1].rstrip(".")) == pytest.approx(falls.max(), abs=0.03)


# -- pixels -----------------------------------------------------------------------------------


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours, with edges and noise."""
    random = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (5 + i) + i) * np.cos(y / (9 - i)) for i in range(channels)]
    image = np.stack(waves, axis=2) + random.normal(0, 8, (height, width, channels))
    image[height // 3 : height // 2] = 250
    return image.clip(0, 255).astype(np.uint8)


def put(path: Path) -> dict[str, int]:
    """Files of many kinds, each with the largest difference of a pixel that is allowed: decoders of
    lossy formats differ, and Pillow 13 rounds tall images after the other axis first."""
    wide, tall = Image.fromarray(photograph(61, 97)), Image.fromarray(photograph(120, 50))
    grey = Image.fromarray(photograph(40, 64, 1)[..., 0])
    wide.save(path / "wide.png")
    tall.save(path / "tall.bmp")
    grey.save(path / "grey.png")
    wide.quantize(40).save(path / "palette.gif")
    wide.save(path / "lossless.webp", lossless=True)
    wide.save(path / "lossy.webp", quality=90)
    wide.save(path / "wide.jpg", quality=92)
    grey.save(path / "grey.jpg", quality=92, progressive=True)
    exif = Image.Exif()
    for orientation in (3, 6, 8):
        exif[0x0112] = orientation
        wide.save(path / f"turned-{orientation}.jpg", exif=exif, quality=92, subsampling=0)
    layer = wide.convert("RGBA")
    layer.putalpha(Image.fromarray(photograph(61, 97, 1)[..., 0]))
    layer.save(path / "glass.png")
    grey16 = np.linspace(0, 65535, 40 * 64).astype(np.uint16).reshape(40, 64)
    Image.fromarray(grey16).save(path / "grey-16.png")
    Image.fromarray(photograph(900, 1400)).save(path / "large.png", compress_level=1)
    return {
        **{"wide.png": 0, "tall.bmp": 1, "grey.png": 0, "palette.gif": 0, "lossless.webp": 0},
        **{"lossy.webp": 4, "wide.jpg": 4, "grey.jpg": 2, "glass.png": 1, "grey-16.png": 1},
        **{f"turned-{orientation}.jpg": 4 for orientation in (3, 6, 8)},
        "large.png": 0,
    }


RULES = {
    "shortest": Preprocess(image_size=32),
    "squash": Preprocess(image_size=(30, 44), resize="squash", resize_to=51),
    "up": Preprocess(image_size=224, resize_to=256),
    "grey": Preprocess(image_size=28, channels=1),
    "bicubic": Preprocess(image_size=32, resize_to=36, interpolation="bicubic"),
    "box": Preprocess(image_size=33, interpolation="box"),
    "nearest": Preprocess(
        image_size=(32, 29), resize="squash", resize_to=77, interpolation="nearest"
    ),
}
PREPARE = """(async () => {
  const { opened } = await import("./image_file.js");
  const { prepared } = await import("./pixels.js");
  const image = await opened(await (await fetch("../files/%s")).blob(), %s);
  return %s.map((rule) => {
    const parts = [];
    const pixels = prepared(image, rule);
    for (let i = 0; i < pixels.length; i += 9999) {
      parts.push(String.fromCharCode(...pixels.subarray(i, i + 9999)));
    }
    return btoa(parts.join(""));
  });
})()"""


def test_pixels_are_pillows(browser: Pipe, root: Site, fashion: Site) -> None:
    """For every kind of file and rule: exactly, where the file's format is without loss."""
    allowed = put(root.path / "files")
    rules = [image_rule(rule) for rule in RULES.values()]
    differences = {}
    with opened(browser, fashion) as page:
        for file in allowed:
            found = page.run(PREPARE % (file, json.dumps(rules[0]), json.dumps(rules)))
            image = open_image(root.path / "files" / file)
            for (name, rule), text in zip(RULES.items(), found, strict=True):
                wanted = fit(image, rule).transpose(1, 2, 0).ravel().astype(int)
                pixels = np.frombuffer(base64.b64decode(text), np.uint8)
                differences[file, name] = int(np.abs(pixels - wanted).max())
    assert {key: most for key, most in differences.items() if most > allowed[key[0]]} == {}


def test_a_model_without_a_resize_rule(browser: Pipe, root: Site) -> None:
    model = random_model(SMALL, resize="none")
    site = published(root, "none", model)
    Image.fromarray(photograph(64, 64)).save(root.path / "files" / "exact.png")
    with opened(browser, site) as page:
        says = show(page, BOOT)
        assert "it has 28 × 28 px and this model takes 64 × 64 px only" in says
        pixels, _ = answers(page, ["exact.png"])
    np.testing.assert_array_equal(pixels[0], photograph(64, 64).ravel())


# -- what it survives -------------------------------------------------------------------------


def claiming(width: int, height: int) -> bytes:
    """A PNG that says it is so large, with next to nothing in it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        end = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + end

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


def broken_files(folder: Path) -> dict[str, str]:
    """Files that are no images, and what is said of each."""
    jpeg, png, webp, gif, long = (io.BytesIO() for _ in range(5))
    Image.new("L", (1, 65_000)).save(long, "PNG")
    image = Image.fromarray(photograph(200, 300))
    for content, kind in ((jpeg, "JPEG"), (png, "PNG"), (webp, "WEBP"), (gif, "GIF")):
        image.save(content, kind)
    broken = "it is broken or cut short"
    none = "its content is none of JPEG, PNG, WEBP, BMP, GIF"
    made = {
        "words.png": (b"these are words", none),
        "nothing.jpg": (b"", none),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", none),
        "cut.jpg": (jpeg.getvalue()[:3000], broken),
        "cut.png": (png.getvalue()[:9000], broken),
        "cut.webp": (webp.getvalue()[:2000], broken),
        "head.png": (png.getvalue()[:20], broken),
        "head.gif": (gif.getvalue()[:9], broken),
        "head.jpg": (jpeg.getvalue()[:4], broken),
        "zero.png": (claiming(0, 10), broken),
        "wrong.png": (png.getvalue().replace(b"IDAT", b"IDAT" + b"\xff" * 4), broken),
        "huge.png": (
            claiming(10_000, 10_000),
            "10000 × 10000 px are above the limit of 50 million",
        ),
        "vast.png": (claiming(2**31 - 1, 2**31 - 1), "above the limit of 50 million pixels"),
        "long.png": (long.getvalue(), "it is too long and narrow (1 × 65000 px)"),
        "empty.png": (claiming(4000, 4000), broken),
    }
    for name, (content, _) in made.items():
        (folder / name).write_bytes(content)
    with (folder / "giant.jpg").open("wb") as file:
        file.truncate(3 << 30)
    return {name: words for name, (_, words) in made.items()} | {"giant.jpg": "3,072 MiB are above"}


def test_broken_and_huge_files(browser: Pipe, fashion: Site, tmp_path: Path) -> None:
    """One message each, and the next image is answered as if nothing had been."""
    found = {}
    wanted = broken_files(tmp_path)
    with opened(browser, fashion) as page:
        before = show(page, BOOT)
        for name in wanted:
            found[name] = show(page, tmp_path / name)
            assert page.run("document.getElementById('answer').hidden") is True
        assert show(page, BOOT) == before
        assert troubles(page) == []
    wrong = {name: says for name, says in found.items() if wanted[name] not in says}
    assert wrong == {}
    assert all(says.startswith(f"Cannot use {name}: ") for name, says in found.items())


def test_a_worker_that_dies_is_replaced(browser: Pipe, fashion: Site) -> None:
    with opened(browser, fashion) as page:
        before = show(page, BOOT)
        page.run("import('./page.js').then(({ model }) => { model.fail('out of memory') })")
        assert show(page, BOOT) == before


def test_a_folder_that_is_not_whole(browser: Pipe, root: Site, fashion: Site) -> None:
    """A clear message instead of a page that waits for ever."""
    copy = root.path / "half"
    shutil.copytree(fashion.path, copy)
    (copy / "model.onnx").unlink()
    with tab(browser) as page:
        page.go(f"{root.at}/half/")
        page.wait("document.getElementById('said').classList.contains('error')")
        assert "model.onnx is not there (404)" in said(page)


# -- who can use it ---------------------------------------------------------------------------


def focused(page: Tab) -> str:
    return str(page.run("document.activeElement.id || document.activeElement.tagName"))


def test_by_keyboard_alone(browser: Pipe, fashion: Site) -> None:
    """Every control is reached with Tab; a drawing is made with arrows and the space bar."""
    with opened(browser, fashion) as page:
        page.press("Tab")
        assert focused(page) == "file"
        outline = "getComputedStyle(document.querySelector('label[for=file]')).outlineStyle"
        assert page.run(outline) == "solid"
        page.press("Tab")
        assert focused(page) == "SUMMARY"
        page.press("Enter")
        page.press("Tab")
        assert focused(page) == "board"
        page.press("ArrowUp", 8)
        page.press(" ")
        assert page.run("document.getElementById('pen-said').textContent") == "The pen is down."
        page.press("ArrowDown", 16)
        page.press(" ")
        page.wait("!document.getElementById('answer').hidden")
        drawn = (
            "[...document.getElementById('seen').getContext('2d').getImageData(14, 8, 1, 1).data]"
        )
        assert page.run(drawn)[0] > 100
        assert "%" in said(page)
        for control in ("pen", "width", "clear"):
            page.press("Tab")
            assert focused(page) == control
        page.press("Enter")
        assert page.run("document.getElementById('pen-said').textContent") == "The paper is empty."


DROP = """(async (kind) => {
  const answer = await fetch("../files/boot.png");
  const data = new DataTransfer();
  if (kind !== "text") data.items.add(new File([await answer.blob()], `${kind}.png`));
  else data.setData("text/plain", "words");
  const event = kind === "paste"
    ? new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })
    : new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
  document.body.dispatchEvent(event);
})("%s")"""


def test_dropped_pasted_and_drawn(browser: Pipe, root: Site, fashion: Site) -> None:
    shutil.copy(BOOT, root.path / "files" / "boot.png")
    with opened(browser, fashion) as page:
        for kind in ("drop", "paste"):
            page.run(DROP % kind)
            label = f"document.getElementById('seen').ariaLabel.startsWith('{kind}.png')"
            page.wait(f"document.getElementById('seen').ariaLabel && {label}")
            page.wait("document.getElementById('said').textContent.startsWith('Ankle boot')")
        page.run(DROP % "text")
        assert "That was no image file" in said(page)
        page.run("document.querySelector('details').open = true")
        box = page.run(
            "(b => [b.left, b.top, b.width, b.height])"
            "(document.getElementById('board').getBoundingClientRect())"
        )
        for kind, share in (("mousePressed", 0.3), ("mouseMoved", 0.7), ("mouseReleased", 0.7)):
            page.ask(
                "Input.dispatchMouseEvent", type=kind, x=box[0] + share * box[2],
                y=box[1] + 0.5 * box[3], button="left", buttons=int(kind != "mouseReleased"),
                clickCount=1,
            )  # fmt: skip
        page.wait("document.getElementById('seen').ariaLabel.startsWith('your drawing')")


def test_screen_readers_are_told(browser: Pipe, fashion: Site) -> None:
    """Results are announced; every picture, control and section has a name; bars are silent."""
    with opened(browser, fashion) as page:
        show(page, BOOT)
        page.wait("document.getElementById('influence-said').textContent")
        assert page.run("document.getElementById('said').ariaLive") == "polite"
        tree = page.ask("Accessibility.getFullAXTree")["nodes"]
    unnamed = []
    roles = ("image", "button", "slider", "region", "heading", "ColorWell", "application")
    for node in tree:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in roles and not node.get("name", {}).get("value"):
            unnamed.append(node)
    assert unnamed == []


@pytest.mark.parametrize("name", ["wide", "narrow", "dark"])
def test_how_it_looks(browser: Pipe, fashion: Site, tmp_path: Path, name: str) -> None:
    """Nothing is wider than the window; who wants no motion gets none. Pictures are for people."""
    width = 360 if name == "narrow" else 1100
    with opened(browser, fashion) as page:
        page.size(width, 800, dark=name == "dark", still=True)
        show(page, BOOT)
        page.wait("document.getElementById('influence-said').textContent")
        page.run("document.querySelector('details').open = true")
        assert page.run("document.documentElement.scrollWidth") <= width
        assert page.run("document.getAnimations().length") == 0
        ground = page.run("getComputedStyle(document.body).backgroundColor")
        height = int(page.ask("Page.getLayoutMetrics")["cssContentSize"]["height"])
        page.size(width, height, dark=name == "dark", still=True)
        page.picture(tmp_path / f"{name}.png")
    assert (sum(map(int, ground[4:-1].split(","))) < 200) is (name == "dark")
    with Image.open(tmp_path / f"{name}.png") as picture:
        assert picture.size == (width, height)


# -- what it asks for -------------------------------------------------------------------------


def test_nothing_but_its_own_folder_is_asked_for(browser: Pipe, fashion: Site) -> None:
    """And where a script tried, the page's policy would forbid it: in the worker, too."""
    elsewhere = "http://127.0.0.1:9/x"
    with opened(browser, fashion) as page:
        page.run("document.querySelector('details').open = true")
        show(page, BOOT)
        page.wait("document.getElementById('influence-said').textContent")
        asked = [one["request"]["url"] for one in page.events("Network.requestWillBeSent")]
        assert troubles(page) == []
        refused = page.run(f"fetch({elsewhere!r}).catch((error) => error.message)")
        loaded = page.run("performance.getEntriesByType('resource').map((one) => one.name)")
        in_worker = page.run(WORKER_FETCHES % elsewhere)
        blocked = [one["entry"]["text"] for one in page.events("Log.entryAdded")]
    addresses = [one.removeprefix("blob:") for one in {*asked, *loaded}]
    assert addresses and all(one.startswith(fashion.at.rsplit("/", 2)[0]) for one in addresses)
    assert [one for one in asked if not one.startswith(("blob:", fashion.at))] == []
    assert "Failed to fetch" in refused and in_worker == "refused"
    assert sum("connect-src 'self'" in one for one in blocked) >= 2


WORKER_FETCHES = """new Promise((resolve) => {
  const code = "fetch('%s').then(() => postMessage('sent'), () => postMessage('refused'))";
  const worker = new Worker(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  worker.onmessage = ({ data }) => resolve(data);
})"""


def test_the_files_name_no_address(fashion: Site) -> None:
    """Of ours; onnxruntime's script has a link in a message that is never followed."""
    ours = [path for path in fashion.path.iterdir() if path.is_file()]
    assert [path.name for path in ours if b"://" in path.read_bytes()] == []


def test_large_models_wait_to_be_asked(browser: Pipe, root: Site, fashion: Site) -> None:
    """Influence that would take long has a button; a new image drops what the old one computes."""
    with opened(browser, fashion) as page:
        page.run(
            "import('./page.js').then(({ model }) => { const run = model.run.bind(model);"
            " model.run = async (...words) => ({ ...(await run(...words)), milliseconds: 5000 }) })"
        )
        show(page, BOOT)
        button = "document.getElementById('influence-button')"
        assert page.run(f"{button}.textContent") == "Cover all 16 patches (about 80 s)"
        page.run(f"{button}.focus()")
        begun = time.monotonic()
        page.press("Enter")
        page.wait("document.getElementById('influence-said').textContent")
        assert time.monotonic() - begun < 20
        assert page.run(f"{button}.hidden") is True
