"""`mixer export --to web` in a real browser: who can use the page, and what it asks for."""

import shutil
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.browser import Pipe, Tab
from tests.inference.page.visit import BOOT, Site, opened, said, show, troubles

pytestmark = pytest.mark.slow


# -- who can use it --------------------------------------------------------------------------------


def focused(page: Tab) -> str:
    return str(page.run("document.activeElement.id || document.activeElement.tagName"))


def test_by_keyboard_alone(browser: Pipe, fashion: Site) -> None:
    """Every control is reached with Tab; a drawing is made with arrows and the space bar."""
    with opened(browser, fashion) as page:
        page.press("Tab")
        assert focused(page) == "file"
        kinds = "image/jpeg,image/png,image/webp,image/bmp,image/gif"
        assert page.run("document.getElementById('file').accept") == kinds
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
        stroke(page, "right")
        assert max(middle_row(page)) == 0
        stroke(page, "left")
        page.wait("document.getElementById('seen').ariaLabel.startsWith('your drawing')")


def on_board(page: Tab, share: float) -> dict[str, float]:
    """A place in the middle of the drawing's height, at a share of its width."""
    left, top, width, height = page.run(
        "(b => [b.left, b.top, b.width, b.height])"
        "(document.getElementById('board').getBoundingClientRect())"
    )
    return {"x": left + share * width, "y": top + height / 2}


def stroke(page: Tab, button: str) -> None:
    pressed = 1 if button == "left" else 2
    for kind, share in (("mousePressed", 0.3), ("mouseMoved", 0.7), ("mouseReleased", 0.7)):
        buttons = 0 if kind == "mouseReleased" else pressed
        page.ask(
            "Input.dispatchMouseEvent", type=kind, **on_board(page, share), button=button,
            buttons=buttons, clickCount=1,
        )  # fmt: skip


def middle_row(page: Tab) -> list[int]:
    """How light the drawing is, from left to right."""
    script = (
        "(c => [...c.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data])"
        "(document.getElementById('board'))"
    )
    return list(page.run(script)[::4])


def test_a_finger_draws_a_dot(browser: Pipe, fashion: Site) -> None:
    """A second one draws nothing, and no line leads to it."""
    with opened(browser, fashion) as page:
        page.run("document.querySelector('details').open = true")
        first, second = ({**on_board(page, share), "id": share * 10} for share in (0.2, 0.8))
        for kind, fingers in (
            ("touchStart", [first]),
            ("touchStart", [first, second]),
            ("touchMove", [first, {**second, "y": second["y"] + 30}]),
            ("touchEnd", []),
        ):
            page.ask("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
        page.wait("document.getElementById('seen').ariaLabel?.startsWith('your drawing')")
        row = middle_row(page)
    width = len(row)
    assert row[width // 5] > 100 and max(row[2 * width // 5 :]) == 0


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


# -- what it asks for ------------------------------------------------------------------------------


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
    """Influence that would take long has a button."""
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


TWO_AT_ONCE = """(async () => {
  const { look, model } = await import("./page.js");
  const blob = await (await fetch("../files/boot.png")).blob();
  const counts = [];
  const run = model.run.bind(model);
  model.run = (pixels, count, units) => {
    counts.push(count);
    return run(pixels, count, units);
  };
  await Promise.all(["first.png", "second.png"].map((name) => look(new File([blob], name))));
  return counts;
})()"""


def test_a_new_image_drops_the_old_one(browser: Pipe, root: Site, fashion: Site) -> None:
    """The model does not run for the one that nobody waits for any more."""
    shutil.copy(BOOT, root.path / "files" / "boot.png")
    with opened(browser, fashion) as page:
        counts = page.run(TWO_AT_ONCE)
        assert counts[0] == 1 and sum(counts[1:]) == 16
        assert page.run("document.getElementById('seen').ariaLabel").startswith("second.png")
