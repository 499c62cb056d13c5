"""`mixer export --to web` in a real browser: logits, pixels and units are Python's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.data.decode import fit, open_image
from mixerkit.data.sources import open_source
from mixerkit.inference.eight_bits import SETTINGS
from mixerkit.inference.export import eager_logits, weights_of
from mixerkit.inference.exported import normalised, open_exported
from mixerkit.inference.gate import judged
from mixerkit.inference.samples import parted
from mixerkit.inference.web_export import image_rule
from mixerkit.insight.units import influence
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.preprocess import Preprocess
from tests.browser import Pipe
from tests.inference.page.visit import (
    BOOT,
    SAMPLES,
    SMALL,
    Site,
    answers,
    as_flat,
    base64,
    noise,
    opened,
    photograph,
    published,
    random_model,
    show,
    troubles,
)

pytestmark = pytest.mark.slow


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


# -- pixels ----------------------------------------------------------------------------------------


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
