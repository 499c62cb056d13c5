"""mixerkit: MLP-Mixer in PyTorch. What `__all__` lists is the public interface.

Names are looked up on first use, so that importing the package costs nothing.
"""

import importlib
from typing import Any

_HOME = {
    "MixerConfig": "mixerkit.spec.mixer",
    "variant": "mixerkit.spec.mixer",
    "Preprocess": "mixerkit.spec.preprocess",
    "Recipe": "mixerkit.spec.recipe",
    "recipe": "mixerkit.spec.recipes",
    "MlpMixer": "mixerkit.model.mixer",
    "cost": "mixerkit.model.cost",
    "load": "mixerkit.checkpoint.load",
    "open_source": "mixerkit.data.sources",
    "evaluate": "mixerkit.evaluation.accuracy",
    "train": "mixerkit.training.loop",
    "predict_files": "mixerkit.inference.predictor",
    "UserError": "mixerkit.errors",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixerkit' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
