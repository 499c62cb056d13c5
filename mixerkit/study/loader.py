"""`mixer bench loader`: training images a second from JPEG files, ours against timm's loader.

The same files and the same transforms: a box of 5–100 % of the area scaled to 224 px, mirroring,
normalised float32 batches of 64. Images a second of processor time, in one process without helpers,
are the loaders' own cost; images a second on the clock use all cores. The files are made from the
photographs that come with scikit-learn, at ImageNet's typical size and at a camera's.
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from PIL import Image

from mixerkit.checkpoint.run import RunFolder
from mixerkit.data.loader import TrainLoader
from mixerkit.data.sources import open_source
from mixerkit.errors import UserError, how_to_install
from mixerkit.results import usable_cores, write_results
from mixerkit.spec.mixer import variant
from mixerkit.spec.preprocess import preprocess_for
from mixerkit.spec.recipe import Augment, Data, Evaluate, Optimizer, Recipe
from mixerkit.timer import compare, interleave
from mixerkit.training.loop import train

Say = Callable[[str], None]

SIZES = {"ImageNet's size": (500, 375), "a camera's, made smaller": (1600, 1200)}
COUNT, QUICK_COUNT, CLASSES, QUALITY = 512, 128, 4, 95
BATCH, ROUNDS, QUICK_ROUNDS = 64, 9, 3
TRAINING_STEPS, TRAINING_BATCH = 20, 32
REFERENCE = "timm"


def study(out: Path, say: Say, quick: bool = False) -> list[dict[str, Any]]:
    """Both loaders on files of each size, and the waiting share of a run, written to `out`."""
    rows: list[dict[str, Any]] = []
    images, rounds = (QUICK_COUNT, QUICK_ROUNDS) if quick else (COUNT, ROUNDS)
    with tempfile.TemporaryDirectory() as temporary:
        for name, size in SIZES.items():
            folder = Path(temporary) / f"{size[0]}"
            mean_bytes = make_photographs(folder, images, size)
            beside = {"files": name, "width": size[0], "height": size[1], "mean_bytes": mean_bytes}
            for row in _measure(folder, rounds):
                rows.append(beside | row)
                say(
                    f"{size[0]} × {size[1]} px, {row['loader']:26} "
                    f"{row['images_per_processor_second']:6,.0f} images per processor second "
                    f"({row['speedup_over_timm']:.2f}× timm), "
                    f"{row['images_per_second']:6,.0f} images/s on all cores"
                )
            difference = pixel_difference(folder)
            rows[-1] |= difference
            say(f"  scaled decoding changes a pixel by {difference['mean_difference']:.2f} of 255")
        smallest = min(SIZES.values())
        waiting = _waiting(Path(temporary) / f"{smallest[0]}", Path(temporary))
    say(f"a run of S/16 waits {waiting:.1%} of its time for images")
    write_results(
        out,
        name="loader",
        command="mixer bench loader" + (" --quick" if quick else ""),
        settings={"images": images, "batch_size": BATCH, "rounds": rounds, "quality": QUALITY,
                  "waiting_share_of_S16": waiting},
        rows=rows,
    )  # fmt: skip
    return rows


def make_photographs(folder: Path, number_of: int, size: tuple[int, int]) -> int:
    """Write JPEG files of (width, height) `size`, every fourth upright, cut from real photographs;
    their mean bytes. The same ones every time."""
    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise UserError(
            f"The photographs come with scikit-learn: {how_to_install('scikit-learn')}."
        ) from error
    sources = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    draws = np.random.default_rng(0).random((number_of, 4))
    total = 0
    for number, (which, share, across, down) in enumerate(draws):
        source = sources[int(which * len(sources))]
        wanted = size if number % 4 else size[::-1]
        scale = (0.6 + 0.4 * share) * min(source.width / wanted[0], source.height / wanted[1])
        width, height = wanted[0] * scale, wanted[1] * scale
        left, top = across * (source.width - width), down * (source.height - height)
        box = (left, top, left + width, top + height)
        path = folder / f"class-{number % CLASSES}" / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = source.resize(wanted, Image.Resampling.BICUBIC, box=box)
        image.save(path, quality=QUALITY)
        total += path.stat().st_size
    return total // number_of


def recipe_for(folder: Path, scaled: bool = False) -> Recipe:
    """S/16 on the files, as the paper crops them; nothing decoded is kept."""
    return Recipe(
        name="loader",
        model=variant("S/16", num_classes=CLASSES),
        data=Data(
            source=str(folder),
            holdout=8,
            resize="shortest",  # of those that are measured
            resize_to=256,
            memory=0.0,
            scaled_decoding=scaled,
            workers=1,
        ),
        augment=Augment(crop="inception"),
        optimizer=Optimizer(name="adamw"),
        evaluate=Evaluate(every="100000 steps", test=False),
        batch_size=BATCH,
    )


def our_loader(folder: Path, workers: int, scaled: bool = False) -> TrainLoader:
    """Ours."""
    recipe = recipe_for(folder, scaled)
    split = open_source(str(folder)).train
    preprocess = preprocess_for(recipe, split.class_names)
    return TrainLoader(
        split,
        preprocess,
        recipe.augment,
        batch_size=BATCH,
        seed=0,
        workers=workers,
        memory=0.0,
        scaled=scaled,
    )


def _ours(folder: Path, workers: int, scaled: bool = False) -> Callable[[], None]:
    """Take all batches of an epoch: nothing is read ahead into another's time."""
    loader, epochs = our_loader(folder, workers, scaled), count()

    def epoch() -> None:
        for batch in loader.epoch(next(epochs)):
            assert len(batch.images) == BATCH

    return epoch


def _timms(folder: Path, workers: int) -> Callable[[], None]:
    """The same of timm's, without its helper for GPUs, which on a processor only copies."""
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    create: Any = create_loader  # its types say less than it takes
    loader = create(
        create_dataset("", root=str(folder)),
        input_size=(3, 224, 224),
        batch_size=BATCH,
        is_training=True,
        scale=(0.05, 1.0),
        ratio=(3 / 4, 4 / 3),
        hflip=0.5,
        color_jitter=None,
        interpolation="bilinear",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        num_workers=workers,
        use_prefetcher=False,
        persistent_workers=workers > 0,
    )

    def epoch() -> None:
        for images, _ in loader:
            assert len(images) == BATCH

    return epoch


def _measure(folder: Path, rounds: int) -> list[dict[str, Any]]:
    """A row for each loader; timm's first."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = len(open_source(str(folder)).train) // BATCH * BATCH
    seconds = []
    for workers, clock in ((0, process_time), (usable_cores(), perf_counter)):
        loaders = {
            REFERENCE: _timms(folder, workers),
            "mixerkit": _ours(folder, workers or 1),
            "mixerkit, scaled decoding": _ours(folder, workers or 1, scaled=True),
        }
        found = interleave(loaders, rounds=rounds, warmup=1, clock=clock)
        seconds.append(compare(found, REFERENCE))
    torch.set_num_threads(threads)
    own, together = seconds
    return [
        {
            "loader": name,
            "images_per_processor_second": images / own[name].seconds,
            "speedup_over_timm": own[name].speedup,
            "images_per_second": images / together[name].seconds,
            "speedup_over_timm_all_cores": together[name].speedup,
        }
        for name in own
    ]


def pixel_difference(folder: Path) -> dict[str, float]:
    """How far the values of a batch are from those that whole decoding gives, out of 255."""
    (exact, scaled) = (
        next(iter(our_loader(folder, 0, scaled).epoch(0))).images for scaled in (False, True)
    )
    levels = (exact - scaled).abs().mul(127.5).numpy()
    return {
        "mean_difference": float(levels.mean()),
        "difference_99_percent": float(np.quantile(levels, 0.99)),
    }


def _waiting(folder: Path, out: Path) -> float:
    """The share of its time that a run waits for images, after its first steps."""
    recipe = recipe_for(folder)
    recipe = replace(
        recipe,
        data=replace(recipe.data, workers=0),
        duration=f"{TRAINING_STEPS} steps",
        batch_size=TRAINING_BATCH,
        compile="off",
    )
    result = train(recipe, out / "run")
    with RunFolder.open(result.run) as run:
        shares = [row["waiting"] for row in run.timings() if "waiting" in row]
    return median(shares[2:])
