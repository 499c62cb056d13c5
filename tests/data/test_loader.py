"""Loaders: what each batch must hold, that it depends on nothing else, and that threads end."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixerkit.data.decode import fit, open_image
from mixerkit.data.draws import shuffled
from mixerkit.data.loader import EvaluationLoader, TrainLoader
from mixerkit.data.sources import open_source
from mixerkit.data.splits import ImageSplit
from mixerkit.errors import UserError
from mixerkit.spec.preprocess import Preprocess, preprocess_for
from mixerkit.spec.recipe import Augment, Data, Recipe

PLAIN = Augment(flip=False)
ALL = Augment(flip=True, shift=2, mixup=0.2, cutmix=1.0, mix_group=4, erase=0.3)
GREY_28 = Preprocess(image_size=28, channels=1, resize="none")
PHOTO = Preprocess(image_size=16, resize="shortest", resize_to=20)


@pytest.fixture
def fashion(samples: Path) -> ImageSplit:
    return open_source("fashion-mnist", str(samples)).train


def save_all_kinds(folder: Path) -> None:
    """A class per half of the kinds of images that people have."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 30, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    rgb, rgba = Image.fromarray(pixels[..., :3]), Image.fromarray(pixels)
    deep = Image.fromarray(rng.integers(0, 65536, (50, 20), dtype=np.uint16))
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True)
        rgb.save(folder / name / "photo.jpg", exif=exif)
        rgb.save(folder / name / "photo.webp")
        rgb.resize((9, 70)).save(folder / name / "narrow.png")
        rgb.convert("L").save(folder / name / "grey.png")
        rgb.convert("P").save(folder / name / "palette.gif")
        rgba.save(folder / name / "rgba.png")
        rgb.convert("CMYK").save(folder / name / "cmyk.jpg")
        deep.save(folder / name / "deep.png")


@pytest.fixture
def photos(tmp_path: Path) -> ImageSplit:
    save_all_kinds(tmp_path / "photos")
    return open_source(str(tmp_path / "photos")).train


def collect(loader: TrainLoader, epoch: int = 0, start: int = 0) -> list[tuple]:
    return [(batch.images, batch.targets) for batch in loader.epoch(epoch, start)]


def assert_same(found: list[tuple], wanted: list[tuple]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_plain_epoch_is_the_images_in_the_order_drawn(fashion):
    loader = TrainLoader(fashion, GREY_28, PLAIN, batch_size=64, seed=5)
    order = shuffled(5, 2, 600)
    assert loader.steps_per_epoch == 9
    for step, (images, targets) in enumerate(collect(loader, epoch=2)):
        chosen = order[step * 64 : (step + 1) * 64]
        wanted = fashion.images[chosen].transpose(0, 3, 1, 2).astype(np.float64) / 127.5 - 1
        np.testing.assert_allclose(images.numpy(), wanted, atol=1e-6)
        assert targets.argmax(1).tolist() == fashion.labels[chosen].tolist()
    assert step == 8


@pytest.mark.parametrize("source", ["fashion", "photos"])
@pytest.mark.parametrize("crop", ["none", "inception"])
def test_an_epoch_begun_later_is_the_tail_of_the_whole(request, source, crop):
    split = request.getfixturevalue(source)
    preprocess = GREY_28 if source == "fashion" else PHOTO
    make = {"batch_size": len(split) // 4, "seed": 3}
    augment = replace(ALL, crop=crop)
    whole = collect(TrainLoader(split, preprocess, augment, **make), epoch=1)
    assert len(whole) == 4
    for start in range(5):
        rest = collect(TrainLoader(split, preprocess, augment, **make), epoch=1, start=start)
        assert_same(rest, whole[start:])
    other = collect(TrainLoader(split, preprocess, augment, **make), epoch=2)
    assert not torch.equal(other[0][0], whole[0][0])


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_neither_workers_nor_memory_change_anything(photos, crop):
    make = {"batch_size": 5, "seed": 0}
    augment = replace(ALL, crop=crop)
    loader = TrainLoader(photos, PHOTO, augment, workers=1, **make)
    wanted = collect(loader)
    assert_same(collect(loader), wanted)  # the second time from memory
    for options in ({"workers": 3}, {"memory": 0.0}, {"workers": 2, "memory": 0.0}):
        assert_same(collect(TrainLoader(photos, PHOTO, augment, **make, **options)), wanted)


def test_images_are_decoded_once_when_they_fit_into_memory(photos, monkeypatch):
    calls, opened = [], Image.open

    def counted(file, **options):
        calls.append(file)
        return opened(file, **options)

    monkeypatch.setattr(Image, "open", counted)
    for memory, wanted in ((2.0, 16), (0.0, 32)):
        calls.clear()
        loader = TrainLoader(photos, PHOTO, PLAIN, batch_size=4, seed=0, memory=memory)
        collect(loader, 0), collect(loader, 1)
        assert len(calls) == wanted


def test_arrays_are_resized_when_asked(fashion):
    preprocess = Preprocess(image_size=16, channels=3, resize="squash", resize_to=20)
    images, _ = next(iter(EvaluationLoader(fashion, preprocess, batch_size=2)))
    first = fit(Image.fromarray(fashion.images[0, :, :, 0]), preprocess)
    np.testing.assert_allclose(images[0].numpy(), first / 127.5 - 1, atol=1e-6)
    for batch in TrainLoader(fashion, preprocess, ALL, batch_size=300, seed=0).epoch(0):
        assert batch.images.shape == (300, 3, 16, 16)


@pytest.mark.parametrize(
    "resize_to, shape", [(0, (28, 28)), (28, (20, 20)), (40, (20, 20)), (40, (28, 28))]
)
def test_evaluation_crops_the_centre_of_arrays(fashion, resize_to, shape):
    preprocess = Preprocess(shape, 1, "squash", resize_to)
    images, _ = next(iter(EvaluationLoader(fashion, preprocess, batch_size=1)))
    wanted = fit(Image.fromarray(fashion.images[0, :, :, 0]), preprocess)
    np.testing.assert_allclose(images[0].numpy(), wanted / 127.5 - 1, atol=1e-6)


def test_evaluation_gives_everything_once_in_order(photos, fashion):
    for split, preprocess, size in ((photos, PHOTO, 5), (fashion, GREY_28, 500)):
        loader = EvaluationLoader(split, preprocess, batch_size=size)
        for _ in range(2):
            batches = list(loader)
            assert len(batches) == len(loader)
            labels = torch.cat([labels for _, labels in batches])
            assert labels.dtype == torch.int64
            assert labels.tolist() == split.labels.tolist()
    images = torch.cat([images for images, _ in EvaluationLoader(photos, PHOTO, batch_size=5)])
    wanted = np.stack([fit(open_image(path), PHOTO) for path in photos.paths])
    np.testing.assert_allclose(images.numpy(), wanted / 127.5 - 1, atol=1e-6)
    picture = EvaluationLoader(photos, PHOTO, batch_size=5).picture(3)
    np.testing.assert_array_equal(picture, wanted[3])


def threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name == "mixerkit reader"}


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_no_thread_is_left_when_the_iterator_is_dropped(photos, crop):
    augment = replace(PLAIN, crop=crop)
    loader = TrainLoader(photos, PHOTO, augment, batch_size=2, seed=0, workers=3, memory=0.0)
    before = threads()
    batches = loader.epoch(0)
    next(batches)
    assert threads() > before
    del batches
    assert threads() == before
    evaluation = iter(EvaluationLoader(photos, PHOTO, batch_size=2, workers=3, memory=0.0))
    next(evaluation)
    del evaluation
    assert threads() == before


@pytest.mark.parametrize("crop", ["none", "inception"])
def test_a_broken_file_stops_the_epoch_and_is_named(photos, crop):
    path = photos.paths[6]
    path.write_bytes(path.read_bytes()[:100])
    before = threads()
    loader = TrainLoader(photos, PHOTO, replace(PLAIN, crop=crop), batch_size=4, seed=0)
    with pytest.raises(UserError, match=path.name):
        collect(loader)
    with pytest.raises(UserError, match=path.name):
        list(EvaluationLoader(photos, PHOTO, batch_size=4))
    assert threads() == before


def test_images_of_another_size_without_resizing(photos, fashion):
    exact = Preprocess(image_size=20, resize="none")
    with pytest.raises(UserError, match=r"28 × 28 px.*20 × 20 px.*data\.resize"):
        TrainLoader(fashion, replace(exact, channels=1), PLAIN, batch_size=4, seed=0)
    with pytest.raises(UserError, match=rf"{photos.paths[0].name}.*data\.resize"):
        list(EvaluationLoader(photos.subset([0]), exact, batch_size=4))


def test_a_batch_larger_than_the_split(fashion):
    with pytest.raises(UserError, match="batch_size 601 is larger than the 600 images"):
        TrainLoader(fashion, GREY_28, PLAIN, batch_size=601, seed=0)
    assert TrainLoader(fashion, GREY_28, PLAIN, batch_size=600, seed=0).steps_per_epoch == 1


def test_arrays_of_channels_that_the_model_does_not_take():
    images = np.zeros((4, 8, 8, 5), np.uint8)
    split = ImageSplit("five bands", ("a", "b"), np.array([0, 1, 0, 1]), images)
    five = Preprocess(image_size=8, channels=5, resize="none")
    assert next(TrainLoader(split, five, PLAIN, batch_size=4, seed=0).epoch(0)).images.shape == (
        4, 5, 8, 8,
    )  # fmt: skip
    with pytest.raises(UserError, match=r"5 channels.*takes 3.*model\.in_channels"):
        EvaluationLoader(split, replace(five, channels=3), batch_size=4)


def test_preprocess_for_takes_the_recipes_settings():
    data = Data(resize="squash", resize_to=300, interpolation="bicubic", mean=(0.1,), std=(0.3,))
    found = preprocess_for(Recipe(data=data), ["a", "b"])
    assert found == Preprocess(
        image_size=224,
        channels=3,
        resize="squash",
        resize_to=300,
        interpolation="bicubic",
        mean=(0.1,),
        std=(0.3,),
        class_names=("a", "b"),
    )
    with pytest.raises(UserError, match=r"data\.resize_to is 32, but data\.resize is 'none'"):
        preprocess_for(Recipe(data=Data(resize="none", resize_to=32)), [])


def test_the_examples_are_photographs_that_no_test_sample_holds(repository, samples):
    held = open_source("fashion-mnist", str(samples))
    names = [name.lower().replace("/", "-").replace(" ", "-") for name in held.train.class_names]
    paths = sorted((repository / "examples" / "fashion").glob("*.png"))
    assert [path.stem for path in paths] == sorted(names)
    known = {image.tobytes() for split in (held.train, held.test) for image in split.images}
    for path in paths:
        pixels = fit(open_image(path), GREY_28)
        assert pixels.tobytes() not in known and pixels.max() > 100
