"""Predictions from files, held against the same in a straight line."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.data import decode
from mixerkit.errors import RunFailed, UserError
from mixerkit.inference.predictor import images_in, predict_files
from mixerkit.model.mixer import MlpMixer
from mixerkit.spec.mixer import MixerConfig
from mixerkit.spec.preprocess import Preprocess

NAMES = ("zero", "one", "two", "three", "four", "five", "six")
CONFIG = MixerConfig(
    image_size=8,
    patch_size=4,
    in_channels=1,
    num_classes=len(NAMES),
    width=8,
    depth=1,
    token_width=4,
    channel_width=8,
)


@pytest.fixture
def model():
    model = MlpMixer(CONFIG)
    torch.nn.init.normal_(model.head.weight)  # its own start is all zero
    model.preprocess = Preprocess(image_size=8, channels=1, resize="none", class_names=NAMES)
    return model


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(10)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return paths


def expected(model, path):
    """The same in a straight line: pixels → [-1, 1] → logits → softmax → sorted."""
    pixels = np.asarray(Image.open(path), dtype=np.float32)
    with torch.no_grad():
        logits = model.eval()(torch.tensor(pixels / 127.5 - 1)[None, None])[0].double().numpy()
    shares = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-shares)
    return [NAMES[i] for i in order], shares[order]


@pytest.mark.parametrize("batch_size", [1, 3, 10, 100])
def test_classes_probabilities_and_order(model, files, batch_size):
    found = list(predict_files(model, files, batch_size=batch_size, workers=3))
    assert [prediction.path for prediction in found] == files
    for prediction in found:
        names, shares = expected(model, prediction.path)
        assert [name for name, _ in prediction.classes] == names[:5]
        np.testing.assert_allclose([p for _, p in prediction.classes], shares[:5], rtol=1e-4)


def test_top_is_bounded_by_the_number_of_classes(model, files):
    assert len(next(predict_files(model, files, top=99)).classes) == len(NAMES)
    assert len(next(predict_files(model, files, top=1)).classes) == 1


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_broken_file_is_named_after_all_before_it(model, files, batch_size):
    files[4].write_bytes(b"GIF89a")
    seen = []
    with pytest.raises(UserError, match=r"4\.png"):
        for prediction in predict_files(model, files, batch_size=batch_size):
            seen.append(prediction.path)
    assert seen == files[:4]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("workers", [1, 3])
def test_with_keep_going_the_others_follow(model, files, batch_size, workers):
    wanted = {one.path: one.classes for one in predict_files(model, files, top=7)}
    broken = {0: "broken", 4: "none of", 5: "No such file", 9: "not a regular file"}
    files[0].write_bytes(files[0].read_bytes()[:60])
    files[4].write_bytes(b"hello")
    files[5].unlink()
    files[9].unlink()
    files[9].mkdir()
    options = {"batch_size": batch_size, "workers": workers, "top": 7, "keep_going": True}
    found = list(predict_files(model, files, **options))
    assert [one.path for one in found] == files
    for i, one in enumerate(found):
        if i in broken:
            assert one.classes == () and f"{i}.png" in one.error and broken[i] in one.error
        else:
            assert one.error == ""
            assert [name for name, _ in one.classes] == [name for name, _ in wanted[one.path]]
            np.testing.assert_allclose(
                [p for _, p in one.classes], [p for _, p in wanted[one.path]], rtol=1e-5
            )


def test_a_folder_that_may_not_be_read_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "a" / "closed").mkdir(parents=True)
    (tmp_path / "a" / "x.png").touch()
    really = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return really(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"Cannot read the folder .*closed: Permission denied"):
        images_in(tmp_path)


def test_images_in_folders_in_order_of_their_names(tmp_path):
    names = ["b/1.png", "b/10.JPG", "a.png", "b-c/0.tiff", "b/c/2.webp"]
    others = ["notes.txt", ".hidden.png", ".git/a.png", "b/.cache/c.png"]
    for name in names + others:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert images_in(tmp_path) == sorted(tmp_path / name for name in names)


def test_too_many_tiles_are_told_as_such(model, files):
    with pytest.raises(UserError, match=r"1000 tiles of 8 px .* give fewer tiles"):
        predict_files(model, files, tiles=1000)


def test_nothing_but_broken_files(model, files):
    for path in files:
        path.write_bytes(b"")
    found = list(predict_files(model, files, batch_size=3, keep_going=True))
    assert [bool(one.error) for one in found] == [True] * 10


@pytest.mark.parametrize("tiles", [0, 2])
def test_a_stuck_disk_is_told_after_the_predictions_before(model, files, monkeypatch, tiles):
    files[6].unlink()
    os.mkfifo(files[6])
    monkeypatch.setattr(decode, "stat", SimpleNamespace(S_ISREG=lambda mode: True))
    options = {"batch_size": 3, "workers": 2, "tiles": tiles, "patience": 0.3, "keep_going": True}
    seen = []
    with pytest.raises(RunFailed, match=r"Waited 0\.3 s for .*6\.png in vain"):
        for prediction in predict_files(model, files, **options):
            seen.append(prediction.path)
    assert seen == files[:6]
    with files[6].open("wb"):  # lets the reader go
        pass


def test_image_of_another_size_is_not_resized_in_silence(model, files):
    Image.new("L", (9, 8)).save(files[0])
    with pytest.raises(UserError, match=r"0\.png"):
        next(predict_files(model, files))


def test_training_flag_is_put_back(model, files):
    model.train()
    list(predict_files(model, files))
    assert model.training


def test_stopping_early_leaves_no_thread_behind(model, files):
    import threading

    before = threading.active_count()
    predictions = predict_files(model, files * 20, batch_size=2, workers=4)
    next(predictions)
    predictions.close()
    assert threading.active_count() == before


def test_models_that_cannot_name_classes_are_refused(model, files):
    with pytest.raises(UserError, match="cannot name classes"):
        predict_files(MlpMixer(CONFIG), files)


def test_bad_arguments_are_refused_before_the_first_prediction(model, files):
    with pytest.raises(UserError, match="at least 1"):
        predict_files(model, files, top=0)
    with pytest.raises(UserError, match=r"must be a list of files, found .*0\.png"):
        predict_files(model, str(files[0]))


def test_paths_may_be_strings(model, files):
    found = predict_files(model, [str(path) for path in files])
    assert list(found) == list(predict_files(model, files))


def test_labels_stand_in_for_missing_names(model, files):
    model.preprocess = Preprocess(image_size=8, channels=1, resize="none")
    names = {name for name, _ in next(predict_files(model, files, top=7)).classes}
    assert names == set("0123456")
