from pathlib import Path

import pytest

from mixerkit.training.loop import train
from tests.training.runs import RECIPE


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that the others must equal: trained straight through."""
    out = tmp_path_factory.mktemp("straight") / "run"
    result = train(RECIPE, out)
    assert result.steps == 30
    return out
