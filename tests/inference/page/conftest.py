"""A browser, a folder that is served, and the page of the shipped model in it.

The browser and onnxruntime-web are fetched by `make test` before the tests (`tests/browser.py`).
"""

from collections.abc import Iterator
from functools import partial

import pytest

from mixerkit.checkpoint.load import load
from mixerkit.model.mixer import MlpMixer
from tests.browser import BY_HAND, Pipe, browsing, find_browser
from tests.inference.page.visit import Quiet, Site, published
from tests.loopback import serving


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipe]:
    program = find_browser()
    if program is None:
        pytest.fail(f"There is no browser: run `python -m tests.browser`, or {BY_HAND}")
    with browsing(program, tmp_path_factory.mktemp("browser") / "log") as pipe:
        yield pipe


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """What is served: the pages, and files/ for images."""
    path = tmp_path_factory.mktemp("served")
    (path / "files").mkdir()
    with serving(partial(Quiet, directory=str(path))) as address:  # type: ignore[arg-type]
        yield Site(address, path)


@pytest.fixture(scope="module")
def fashion_model() -> MlpMixer:
    return load("zoo:fashion-demo")


@pytest.fixture(scope="module")
def fashion(root: Site, fashion_model: MlpMixer) -> Site:
    return published(root, "fashion-demo", fashion_model)
