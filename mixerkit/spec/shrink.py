"""A recipe at toy size: the whole way of a run, before the real one is paid for."""

import math
from dataclasses import replace

from mixerkit.spec.recipe import Init, Recipe

DEPTH, WIDTH, BATCH, STEPS = 2, 64, 8, 4


def shrunk(recipe: Recipe) -> Recipe:
    """`recipe` with 2 blocks, 64 channels and batches of 8, for 4 steps, from random weights; it
    warms up for one step, and is measured on the held-out images and saved after every second.
    Everything else, such as image size, loss, augmentation and optimiser, stays as it is."""
    groups = math.gcd(recipe.model.token_groups, WIDTH)
    return replace(
        recipe,
        name=f"{recipe.name}-shrunk",
        model=replace(recipe.model, depth=DEPTH, width=WIDTH, token_groups=groups),
        init=Init(),
        schedule=replace(recipe.schedule, warmup="1 step"),
        evaluate=replace(recipe.evaluate, every="2 steps", test=False),
        save=replace(recipe.save, every="2 steps"),
        duration=f"{STEPS} steps",
        batch_size=BATCH,
        accumulation=math.gcd(recipe.accumulation, BATCH),
    )
