"""Features of a frozen model, and keeping them: what makes a new key, and what happens to files
that are damaged."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mixerkit.data.files import Member
from mixerkit.data.loader import EvaluationLoader
from mixerkit.data.parquet import Row
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.evaluation.feature_cache import (
    checksum_of,
    features_folder,
    kept_or_computed,
    key_of,
    names_of,
)
from mixerkit.evaluation.features import features_of
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

TINY = MixerConfig(
    image_size=8, patch_size=4, in_channels=1, num_classes=2, width=6, depth=1, token_width=3,
    channel_width=5,
)  # fmt: skip
PREPARED = Preprocess(image_size=8, channels=1, resize="none")


def images(count: int = 5) -> ImageSplit:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ImageSplit("tiny test", ("a", "b"), np.arange(count) % 2, pixels)


def tiny() -> MlpMixer:
    torch.manual_seed(0)
    return MlpMixer(TINY).eval()


def key(model: MlpMixer | None = None, prepared: Preprocess = PREPARED) -> str:
    return key_of(checksum_of(model or tiny()), prepared, "tiny test")


def test_features_are_what_the_head_sees() -> None:
    model, told = tiny(), []
    torch.nn.init.normal_(model.head.weight)
    found = features_of(model, EvaluationLoader(images(), PREPARED, batch_size=2), told.append)
    whole = torch.cat([x for x, _ in EvaluationLoader(images(), PREPARED, batch_size=5)])
    assert found.shape == (5, 6) and found.dtype == torch.float32 and told == [2, 4, 5]
    assert torch.allclose(model.head(found), model(whole), atol=1e-6)


def test_features_that_are_not_finite_or_of_no_image_are_refused() -> None:
    model = tiny()
    with torch.no_grad():
        model.stem.bias[0] = torch.nan
    with pytest.raises(UserError, match="NaN or infinite for 5 of 5 images"):
        features_of(model, EvaluationLoader(images(), PREPARED, batch_size=2))
    with pytest.raises(UserError, match="the split is empty"):
        features_of(tiny(), [])


def test_the_same_things_have_the_same_name() -> None:
    assert key() == key() and len(key()) == 64
    assert key(prepared=replace(PREPARED, class_names=("a", "b"))) == key()
    labelled = replace(images(), labels=np.zeros(5, np.int64), name="other")
    assert names_of(labelled) == names_of(images()) and len(set(names_of(images()))) == 5
    assert names_of(images().subset([3, 1])) == [names_of(images())[i] for i in (3, 1)]


def changed(model: MlpMixer, name: str) -> MlpMixer:
    """The model with the smallest possible change of one number."""
    with torch.no_grad():
        weight = model.get_parameter(name).view(-1)
        weight[-1] = torch.nextafter(weight[-1], torch.tensor(torch.inf))
    return model


def test_another_model_has_another_key() -> None:
    with_exact_gelu = MlpMixer(replace(TINY, gelu="erf"))
    with_exact_gelu.load_state_dict(tiny().state_dict())
    models = [tiny(), changed(tiny(), "stem.bias"), changed(tiny(), "norm.weight")]
    models += [with_exact_gelu, tiny().double()]
    assert TINY.gelu == "tanh" and len({key(model) for model in models}) == len(models)


def test_other_preparation_has_another_key() -> None:
    others = [{"mean": (0.4,)}, {"resize": "squash"}, {"interpolation": "bicubic"}]
    assert len({key(prepared=replace(PREPARED, **other)) for other in others} | {key()}) == 4


def test_another_image_has_another_name() -> None:
    split = images()
    pixels = split.images.copy()
    pixels[3, 2, 1] += 1
    same = np.array(names_of(split)) == np.array(names_of(replace(split, images=pixels)))
    assert same.tolist() == [True, True, True, False, True]
    turned = replace(split, images=split.images.reshape(5, 4, 16, 1))
    assert not set(names_of(turned)) & set(names_of(split))


def files(folder: Path) -> ImageSplit:
    paths = tuple(folder / name for name in ("a.png", "b.png"))
    for path in paths:
        path.write_bytes(path.name.encode())
    return ImageSplit("files", ("a", "b"), np.arange(2), None, paths)


def test_files_are_told_apart_by_path_size_and_time(tmp_path: Path) -> None:
    split = files(tmp_path)
    first, second = names_of(split)
    assert names_of(split) == [first, second] != names_of(split.subset([1, 0]))
    seen = {second}
    os.utime(split.paths[1], ns=(1, 1))
    seen.add(names_of(split)[1])
    split.paths[1].write_bytes(b"longer than it was")
    os.utime(split.paths[1], ns=(1, 1))
    seen.add(names_of(split)[1])
    split.paths[1].unlink()
    seen.add(names_of(split)[1])
    assert len(seen) == 4 and names_of(split)[0] == first


def test_a_path_means_what_it_means_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files(tmp_path)
    names = []
    for folder in (tmp_path, tmp_path / "other"):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        here = ImageSplit("here", ("a", "b"), np.arange(1), None, (Path("a.png"),))
        shutil.copy2(tmp_path / "a.png", folder / "a.png") if folder != tmp_path else None
        names += names_of(here)
    assert names[0] != names[1]


def test_images_inside_files_are_told_apart_by_these(tmp_path: Path) -> None:
    archive = tmp_path / "x.bin"
    archive.write_bytes(b"1234")
    kinds = [
        (Member(archive, "a", 0, 2), Member(archive, "b", 2, 2)),
        (Row(archive, 0, 0, "image"), Row(archive, 0, 1, "image")),
    ]
    for time, places in enumerate(kinds):
        split = ImageSplit("inside", ("a", "b"), np.arange(2), None, places)
        before = names_of(split)
        os.utime(archive, ns=(time, time))
        assert len({*before, *names_of(split)}) == 4


class Computed:
    """Features that note of which images they were computed."""

    def __init__(self) -> None:
        self.of, self.said = [], []

    def __call__(self, indices: np.ndarray) -> Tensor:
        self.of.append(indices.tolist())
        return torch.arange(12.0).reshape(4, 3)[indices]


NAMES = [bytes([i]) * 32 for i in range(4)]


def look_up(
    folder: Path, computed: Computed, name: str = "key", which: tuple[int, ...] = (0, 1, 2, 3)
) -> tuple[list, int]:
    """The features of some images, of which the computed ones are told apart by their place."""

    def compute(missing: np.ndarray) -> Tensor:
        return computed(np.array(which)[missing])

    wanted = [NAMES[i] for i in which]
    found, kept = kept_or_computed(folder, name, wanted, compute, computed.said.append)
    return found.tolist(), kept


def test_features_are_computed_once(tmp_path: Path) -> None:
    folder, computed = tmp_path / "cache" / "features", Computed()
    first, second = look_up(folder, computed), look_up(folder, computed)
    assert first[1] == 0 and second == (first[0], 4) and computed.of == [[0, 1, 2, 3]]
    assert look_up(folder, computed, "other") == (first[0], 0) and computed.said == []
    assert sorted(path.name for path in folder.iterdir()) == ["key", "other"]


def test_only_images_that_were_not_looked_at_are_computed(tmp_path: Path) -> None:
    computed = Computed()
    some, _ = look_up(tmp_path, computed, which=(2, 0))
    every, kept = look_up(tmp_path, computed)
    assert kept == 2 and computed.of == [[2, 0], [1, 3]] and [every[2], every[0]] == some
    assert every == Computed()(np.arange(4)).tolist()
    assert look_up(tmp_path, computed, which=(3, 1, 1)) == ([every[3], every[1], every[1]], 3)
    assert computed.of == [[2, 0], [1, 3]]


def cut_short(path: Path) -> None:
    os.truncate(path / "features.safetensors", 60)


def one_bit(path: Path) -> None:
    file = path / "features.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def without_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def without_features(path: Path) -> None:
    (path / "features.safetensors").unlink()


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("what is this?")


def a_link_to_nothing(path: Path) -> None:
    shutil.rmtree(path)
    path.symlink_to("nowhere")


@pytest.mark.parametrize(
    "damage",
    [cut_short, one_bit, without_manifest, without_features, a_file, a_link_to_nothing],
)
def test_damaged_features_are_computed_again(tmp_path: Path, damage) -> None:
    computed = Computed()
    expected, _ = look_up(tmp_path, computed)
    damage(tmp_path / "key")
    assert look_up(tmp_path, computed) == (expected, 0)
    (said,) = computed.said
    assert said.startswith("note: ") and "key" in said and said.endswith("computed again.")
    assert "Restore" not in said
    assert look_up(tmp_path, computed) == (expected, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_what_cannot_be_kept_is_said(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    computed = Computed()
    for _ in range(2):
        assert look_up(tmp_path / "cache", computed)[1] == 0
    assert len(computed.said) == 2 and "the features are not kept" in computed.said[0]


def test_they_are_kept_in_the_user_s_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "somewhere")
    assert features_folder() == Path("somewhere/mixerkit/features")
