"""Pages that are served from this machine, opened in a real browser, and what they show."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mixerkit.inference.web_export import web_export
from mixerkit.inference.web_runtime import runtime_files
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess
from tests.browser import Pipe, Tab, tab

TESTS = Path(__file__).parent.parent.parent
SAMPLES = TESTS / "samples" / "fashion-mnist"
BOOT = TESTS.parent / "examples" / "fashion" / "ankle-boot.png"
SMALL = MixerConfig(
    image_size=64, patch_size=(16, 8), width=32, depth=2, token_width=24, channel_width=64,
    num_classes=7, gelu="tanh",
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """A served folder: `at` its address, `path` on the disk."""

    at: str
    path: Path


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *given: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # a tab was closed
            super().handle()


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


def photograph(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Smooth colours, with edges and noise."""
    random = np.random.default_rng(height)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x / (5 + i) + i) * np.cos(y / (9 - i)) for i in range(channels)]
    image = np.stack(waves, axis=2) + random.normal(0, 8, (height, width, channels))
    image[height // 3 : height // 2] = 250
    return image.clip(0, 255).astype(np.uint8)
