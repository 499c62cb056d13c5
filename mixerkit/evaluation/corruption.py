"""Images spoiled by known degrees: gaussian blur, gaussian noise, JPEG, patches that change places.

The first three are ImageNet-C's (Hendrycks and Dietterich 2019, "Benchmarking neural network
robustness to common corruptions and perturbations"), with the numbers of their programs
(github.com/hendrycks/robustness, ImageNet-C/create_c/make_{cifar,tinyimagenet,imagenet}_c.py).
Images are as the model sees them before normalisation, uint8 [H, W, I]. What is random is a pure
function of (seed, index of the image).

    H, W height and width   I image channels   S patches
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image

from mixerkit.data.decode import from_array
from mixerkit.data.draws import uniforms
from mixerkit.errors import unknown

KINDS = ("blur", "noise", "jpeg", "shuffle")
PUBLISHED: dict[int, dict[str, tuple[float, ...]]] = {
    32: {
        "blur": (0.4, 0.6, 0.7, 0.8, 1),
        "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "jpeg": (80, 65, 58, 50, 40),
    },
    64: {
        "blur": (0.5, 0.75, 1, 1.25, 1.5),
        "noise": (0.04, 0.08, 0.12, 0.15, 0.18),
        "jpeg": (65, 58, 50, 40, 25),
    },
    224: {
        "blur": (1, 2, 3, 4, 6),
        "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "jpeg": (25, 18, 15, 10, 7),
    },
}
"""Side of the images in pixels (CIFAR-10-C, Tiny ImageNet-C, ImageNet-C) → strengths of severities
1 to 5: σ in pixels, σ as a share of the range of pixel values, Pillow's quality."""
SHARES = (0.25, 0.5, 1.0)
"""Of the patches that change places, for severities 1 to 3."""
NOISE, SHUFFLE = 101, 102  # streams of random numbers that nothing else draws from
TRUNCATE = 4
"""σ at which the blur's kernel ends, as in scipy and scikit-image."""


def strengths(kind: str, image_hw: tuple[int, int]) -> tuple[float, ...]:
    """What severities 1, 2, … of `kind` (one of `KINDS`) are for images of that size.

    From the published table whose side is nearest to the image's shorter side, as a ratio; σ of the
    blur is scaled with the side. Images of 28 px get CIFAR-10-C's noise and quality, and 28/32 of
    its σ. (ImageNet-C's own σ, scaled down to 28 px, would be 1/8 px, which changes no pixel.)
    """
    if kind == "shuffle":
        return SHARES
    side = min(image_hw)
    nearest = min(PUBLISHED, key=lambda published: abs(np.log(published / side)))
    if kind not in PUBLISHED[nearest]:
        raise unknown("kind", kind, KINDS)
    scale = side / nearest if kind == "blur" else 1
    return tuple(scale * strength for strength in PUBLISHED[nearest][kind])


def corrupt(
    image_HWI: np.ndarray,
    kind: str,
    severity: int,
    *,
    index: int,
    seed: int = 0,
    patch_hw: tuple[int, int] = (1, 1),
) -> np.ndarray:
    """The image, uint8 [H, W, I], spoiled to that severity; severity 0 is the image itself.

    `index`: of the image in its split. `patch_hw`: of the patches that "shuffle" moves, which
    must divide the image.
    """
    if severity == 0:
        return image_HWI
    strength = strengths(kind, image_HWI.shape[:2])[severity - 1]
    if kind == "blur":
        return blurred(image_HWI, strength)
    if kind == "noise":
        return noisy(image_HWI, strength, seed, index)
    if kind == "jpeg":
        return compressed(image_HWI, int(strength))
    return shuffled(image_HWI, patch_hw, strength, seed, index)


def blurred(image_HWI: np.ndarray, sigma: float) -> np.ndarray:
    """Convolved with a gaussian of `sigma` pixels; beyond its edges the image goes on with their
    pixels."""
    down_HH, across_WW = (_blur_matrix(side, sigma) for side in image_HWI.shape[:2])
    rows_HWI = np.tensordot(down_HH, image_HWI.astype(np.float64), 1)
    return _as_uint8(np.einsum("vw,hwi->hvi", across_WW, rows_HWI, optimize=True))


@lru_cache(maxsize=64)
def _blur_matrix(side: int, sigma: float) -> np.ndarray:
    """[side, side]: the convolution along one axis."""
    radius = int(TRUNCATE * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    source = np.clip(np.arange(side)[:, None] + offsets, 0, side - 1)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], source), weights / weights.sum())
    return matrix


def noisy(image_HWI: np.ndarray, std: float, seed: int, index: int) -> np.ndarray:
    """Plus gaussian noise of `std` times 255, cut off at 0 and 255. Severities differ by a factor:
    the noise of an image is always the same."""
    noise_HWI = _normals(seed, index, image_HWI.size).reshape(image_HWI.shape)
    return _as_uint8(image_HWI + 255 * std * noise_HWI)


def _normals(seed: int, index: int, count: int) -> np.ndarray:
    """float64 [count] of the standard normal distribution (Box and Muller 1958)."""
    half = -(-count // 2)
    draws = uniforms(seed, 0, np.array([index]), 2 * half, NOISE)[0]
    radius, angle = np.sqrt(-2 * np.log1p(-draws[:half])), 2 * np.pi * draws[half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def _as_uint8(image_HWI: np.ndarray) -> np.ndarray:
    """Rounded; ImageNet-C cuts off what is behind the point, half a level darker."""
    return np.rint(np.clip(image_HWI, 0, 255)).astype(np.uint8)


def compressed(image_HWI: np.ndarray, quality: int) -> np.ndarray:
    """Through a JPEG file of that quality (1 to 95) as Pillow writes it, colours at half the
    resolution; grey and RGB only."""
    file = io.BytesIO()
    from_array(np.ascontiguousarray(image_HWI)).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return np.asarray(image).reshape(image_HWI.shape)


def shuffled(
    image_HWI: np.ndarray, patch_hw: tuple[int, int], share: float, seed: int, index: int
) -> np.ndarray:
    """With `moved` patches, drawn at random, in each other's places: none of them stays where it
    was. The patches of a smaller share are among those of a larger one."""
    (height, width), (P, Q) = image_HWI.shape[:2], patch_hw
    assert height % P == 0 and width % Q == 0, "patches that do not divide the image"
    rows, columns = height // P, width // Q
    patches_SPQI = (
        image_HWI.reshape(rows, P, columns, Q, -1).swapaxes(1, 2).reshape(rows * columns, P, Q, -1)
    )
    draws = uniforms(seed, 0, np.array([index]), len(patches_SPQI), SHUFFLE)[0]
    chosen = np.argsort(draws, kind="stable")[: moved(len(patches_SPQI), share)]
    result_SPQI = patches_SPQI.copy()
    result_SPQI[chosen] = patches_SPQI[np.roll(chosen, 1)]  # one cycle: every one of them moves
    return result_SPQI.reshape(rows, columns, P, Q, -1).swapaxes(1, 2).reshape(image_HWI.shape)


def moved(patches: int, share: float) -> int:
    """How many of the patches change places: the nearest to the share, but never a single one."""
    count = round(share * patches)
    return min(2, patches) if count == 1 else count
