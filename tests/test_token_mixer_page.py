"""docs/token-mixers.md says what the tables and the closed forms say."""

import re
from math import log2

import pytest

from mixerkit.model.cost import TOKEN_MIXING
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.token_mixers import IN_GROUPS, KERNEL, POOL, TOKEN_MIXERS
from mixerkit.study.grid import read_study

ROW = re.compile(r"^\| `([a-z-]+)` \| (.+) \| `(.+)` \| `(.+)` \| (.+) \|$", re.MULTILINE)
FORMULA = re.compile(r"[SCTGHW0-9 .+*/()]|log2")


@pytest.fixture(scope="module")
def page(request: pytest.FixtureRequest) -> str:
    return (request.config.rootpath / "docs" / "token-mixers.md").read_text(encoding="utf-8")


def test_every_mixer_has_its_row(page: str) -> None:
    assert [row[0] for row in ROW.findall(page)] == list(TOKEN_MIXERS)


@pytest.mark.parametrize("grid", [(3, 5), (4, 4)])
def test_formulas_are_the_closed_forms(page: str, grid: tuple[int, int]) -> None:
    for name, _, parameters, macs, _ in ROW.findall(page):
        config = MixerConfig(
            image_size=grid, patch_size=1, width=12, depth=1, token_width=7, token_mixer=name,
            token_groups=3 if name in IN_GROUPS else 1,
        )  # fmt: skip
        letters = {"S": grid[0] * grid[1], "C": 12, "T": 7, "G": config.token_groups}
        letters |= {"H": grid[0], "W": grid[1], "log2": log2, "__builtins__": {}}
        assert not FORMULA.sub("", parameters + macs)
        found = TOKEN_MIXING[name](config)
        assert eval(parameters, letters) == found.parameters, name
        assert eval(macs, letters) == pytest.approx(found.macs, abs=2), name


def test_reach_is_said_as_in_the_table(page: str) -> None:
    near = {"pool": f"{POOL} × {POOL}", "depthwise": f"{KERNEL} × {KERNEL}"}
    near["shift"] = "four neighbours"
    said = {"all": "all", "none": "itself"}
    for name, *_, reach in ROW.findall(page):
        assert reach == said.get(TOKEN_MIXERS[name].reach, near.get(name)), name


def test_the_study_on_the_page_can_be_read(page: str, tmp_path) -> None:
    text = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "pooling.yaml").write_text(text)
    assert len(read_study(tmp_path / "pooling.yaml").configurations()) == 12
