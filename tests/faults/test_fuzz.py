"""What the fuzzer measures it sees, and every trial can be made again."""

from pathlib import Path
from random import Random

import pytest

from tests.faults import fuzz
from tests.faults.mutations import as_archive, as_bytes, as_json, as_safetensors


def test_memory_and_time_beyond_the_limits_are_seen(monkeypatch):
    with fuzz.measured():
        pass
    with pytest.raises(AssertionError, match="MiB"), fuzz.measured():
        bytearray(80 << 20)
    monkeypatch.setattr(fuzz, "SECONDS", 0.001)
    with pytest.raises(AssertionError, match=r" s$"), fuzz.measured():
        sum(range(1_000_000))


def test_the_same_numbers_change_a_file_in_the_same_way(tmp_path: Path):
    """Also after many other changes: nothing is left of them."""
    files = fuzz.seeds(tmp_path)
    seeds = (
        (as_bytes, files["ours"]["config.json"]),
        (as_json, files["ours"]["config.json"]),
        (as_safetensors, files["ours"]["model.safetensors"]),
        (as_archive, files["google"]["x.npz"]),
    )

    def changed() -> list[bytes]:
        return [change(content, Random(n)) for change, content in seeds for n in range(200)]

    first = changed()
    assert first == changed()
    assert len(set(first)) > 600 and all(content not in first[:200] for _, content in seeds)


def test_every_seed_is_sound(tmp_path: Path):
    """What is refused is refused for the change alone; timm's seed is for another model."""
    (tmp_path / "seeds").mkdir()
    files = fuzz.seeds(tmp_path / "seeds")
    for number, target in enumerate(fuzz.TARGETS):
        folder = tmp_path / str(number)
        fuzz.write_all(folder, files[target.seed])
        if target.sealed is not None:
            fuzz.vouch_if_readable(folder / target.sealed)
        if target.read is not fuzz.load_into_a_model or target.seed == "ours":
            with fuzz.quiet():
                target.read(folder)
