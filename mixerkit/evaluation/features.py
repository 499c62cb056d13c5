"""What a frozen model makes of images: the features that its head would see.

Letters: N images, B images in a batch, C channels.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer


def features_of(
    model: MlpMixer,
    batches: Iterable[tuple[Tensor, Tensor]],
    watch: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """float32 [N, C] of all images, in their order, on the processor; labels are passed over.

    The model must be in evaluation mode; images go to its device. `watch` is told how many images
    are done. No image at all, and features that are NaN or infinite, are a `UserError`.
    """
    assert not any(module.training for module in model.modules()), "features of a model in training"
    like = next(model.parameters())
    found_BC: list[Tensor] = []
    done = 0
    with torch.inference_mode():
        for images_BIHW, _ in batches:
            x_BC = model.features(images_BIHW.to(like.device, like.dtype))
            found_BC.append(x_BC.float().cpu())
            done += len(x_BC)
            watch(done)
    if not found_BC:
        raise UserError("There are no images to look at: the split is empty.")
    features_NC = torch.cat(found_BC)
    check_finite(features_NC.numpy())
    return features_NC


def check_finite(x_NC: np.ndarray) -> None:
    """`UserError` where features are NaN or infinite: no probe could be trusted."""
    bad = np.flatnonzero(~np.isfinite(x_NC).all(axis=1))
    if len(bad):
        raise UserError(
            f"The model's features are NaN or infinite for {len(bad)} of {len(x_NC)} images, first "
            f"for image {bad[0]}: check its weights and that its input is normalised."
        )
