"""The loading study: fresh processes, the same weights on both sides."""

from mixerkit.benchmark.loading import CONTENDERS, study
from mixerkit.results import read_results


def test_quick_study_loads_the_same_model_in_every_way(tmp_path):
    rows = study(tmp_path / "loading.json", lambda _: None, quick=True)
    assert read_results(tmp_path / "loading.json")["rows"] == rows
    assert [row["contender"] for row in rows] == list(CONTENDERS)
    assert {row["parameters"] for row in rows} == {19_104_624}
    for row in rows:
        assert row["seconds"] > 0 and row["growth_over_file"] > 0.5
    *ours, peer = rows
    assert all(row["growth_over_file"] < peer["growth_over_file"] for row in ours)
