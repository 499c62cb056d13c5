"""`mixer export --to web` in a real browser: broken files, dead workers, a server that is gone."""

import io
import shutil
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import ClassVar

import pytest
from PIL import Image

from tests.browser import Pipe, tab
from tests.inference.page.visit import (
    BOOT,
    Quiet,
    Site,
    opened,
    photograph,
    said,
    show,
    troubles,
)
from tests.loopback import serving

pytestmark = pytest.mark.slow


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
    jpeg, png, webp, gif, bmp, tiff, avif, long = (io.BytesIO() for _ in range(8))
    Image.new("L", (1, 65_000)).save(long, "PNG")
    image = Image.fromarray(photograph(200, 300))
    named = {"JPEG": jpeg, "PNG": png, "WEBP": webp, "GIF": gif, "BMP": bmp, "TIFF": tiff}
    for kind, content in named.items():
        image.save(content, kind)
    image.save(avif, "AVIF")
    broken = "it is broken or cut short"
    none = "its content is none of JPEG, PNG, WEBP, BMP, GIF"
    made = {
        "words.png": (b"these are words", none),
        "nothing.jpg": (b"", none),
        "page.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", none),
        "scan.tif": (tiff.getvalue(), none),
        "photo.avif": (avif.getvalue(), none),
        "cut.jpg": (jpeg.getvalue()[:3000], broken),
        "cut.png": (png.getvalue()[:9000], broken),
        "cut.webp": (webp.getvalue()[:2000], broken),
        "cut.gif": (gif.getvalue()[: len(gif.getvalue()) // 2], broken),
        "cut.bmp": (bmp.getvalue()[: len(bmp.getvalue()) // 2], broken),
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


def test_a_file_that_is_gone(browser: Pipe, fashion: Site, tmp_path: Path) -> None:
    """Costs no worker: the model is not loaded again. A folder that is dropped is read as such."""
    with opened(browser, fashion) as page:
        page.run("import('./page.js').then(({ model }) => { model.worker.isTheFirst = true })")
        assert "it cannot be read. Is it a folder, or gone?" in show(page, tmp_path / "none.png")
        assert "Ankle boot" in show(page, BOOT)
        assert page.run("import('./page.js').then(({ model }) => model.worker.isTheFirst)")


DIE = "import('./page.js').then(({ model }) => { model.fail('out of memory') })"


def test_a_worker_that_dies_is_replaced(browser: Pipe, fashion: Site) -> None:
    with opened(browser, fashion) as page:
        before = show(page, BOOT)
        page.run(DIE)
        assert show(page, BOOT) == before
        assert troubles(page) == []


class Failing(Quiet):
    """A server that has no answer for the files in `lost`, and lets no browser keep any."""

    lost: ClassVar[set[str]] = set()

    def do_GET(self) -> None:  # noqa: N802 — a name of the standard library
        if self.path.rsplit("/", 1)[-1] in self.lost:
            self.send_error(503)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()


@pytest.mark.parametrize("lost", ["worker.js", "model.json", "model.onnx"])
def test_a_server_that_is_gone_for_a_moment(browser: Pipe, fashion: Site, lost: str) -> None:
    """While a worker that died is replaced: each image tries again, until one is answered."""
    handler = partial(Failing, directory=str(fashion.path))
    with serving(handler) as address, opened(browser, Site(f"{address}/", fashion.path)) as page:  # type: ignore[arg-type]
        before = show(page, BOOT)
        page.run(DIE)
        Failing.lost = {lost}
        try:
            for _ in range(2):
                assert "The page goes on with the next image." in show(page, BOOT)
        finally:
            Failing.lost = set()
        assert show(page, BOOT) == before
        thrown = page.events("Runtime.exceptionThrown")
    assert thrown == []


def test_a_folder_that_is_not_whole(browser: Pipe, root: Site, fashion: Site) -> None:
    """A clear message instead of a page that waits for ever."""
    copy = root.path / "half"
    shutil.copytree(fashion.path, copy)
    (copy / "model.onnx").unlink()
    with tab(browser) as page:
        page.go(f"{root.at}/half/")
        page.wait("document.getElementById('said').classList.contains('error')")
        assert "model.onnx is not there: 404). Reload the page to try again." in said(page)
        early = "dispatchEvent(new DragEvent('drop', { cancelable: true }))"
        assert page.run(early) is False, "a dropped file would replace the page"
