"""mixerkit: MLP-Mixer in PyTorch. What `__all__` lists is the public interface.

Names are looked up on first use, so that importing the package costs nothing; type checkers
read the imports below.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixerkit.checkpoint.load import load as load, load_weights as load_weights
    from mixerkit.checkpoint.pretrained import (
        from_pretrained as from_pretrained,
        push_to_hub as push_to_hub,
        save_pretrained as save_pretrained,
    )
    from mixerkit.data.sources import open_source as open_source
    from mixerkit.errors import RunFailed as RunFailed, UserError as UserError
    from mixerkit.evaluation.accuracy import evaluate as evaluate
    from mixerkit.inference.engine import Predictor as Predictor
    from mixerkit.inference.predictor import predict_files as predict_files
    from mixerkit.inference.tiles import tiled_logits as tiled_logits
    from mixerkit.model.cost import cost as cost
    from mixerkit.model.mixer import MlpMixer as MlpMixer
    from mixerkit.spec.mixer import MixerConfig as MixerConfig, variant as variant
    from mixerkit.spec.preprocess import Preprocess as Preprocess
    from mixerkit.spec.recipe import (
        Augment as Augment,
        Data as Data,
        Evaluate as Evaluate,
        Loss as Loss,
        Optimizer as Optimizer,
        Recipe as Recipe,
        Save as Save,
        Schedule as Schedule,
    )
    from mixerkit.spec.recipes import recipe as recipe
    from mixerkit.training.loop import train as train
    from mixerkit.training.result import TrainingResult as TrainingResult

_HOME = {
    "RunFailed": "mixerkit.errors",
    "UserError": "mixerkit.errors",
    "MixerConfig": "mixerkit.spec.mixer",
    "variant": "mixerkit.spec.mixer",
    "Preprocess": "mixerkit.spec.preprocess",
    "Augment": "mixerkit.spec.recipe",
    "Data": "mixerkit.spec.recipe",
    "Evaluate": "mixerkit.spec.recipe",
    "Loss": "mixerkit.spec.recipe",
    "Optimizer": "mixerkit.spec.recipe",
    "Recipe": "mixerkit.spec.recipe",
    "Save": "mixerkit.spec.recipe",
    "Schedule": "mixerkit.spec.recipe",
    "recipe": "mixerkit.spec.recipes",
    "MlpMixer": "mixerkit.model.mixer",
    "cost": "mixerkit.model.cost",
    "load": "mixerkit.checkpoint.load",
    "load_weights": "mixerkit.checkpoint.load",
    "from_pretrained": "mixerkit.checkpoint.pretrained",
    "push_to_hub": "mixerkit.checkpoint.pretrained",
    "save_pretrained": "mixerkit.checkpoint.pretrained",
    "open_source": "mixerkit.data.sources",
    "evaluate": "mixerkit.evaluation.accuracy",
    "TrainingResult": "mixerkit.training.result",
    "train": "mixerkit.training.loop",
    "Predictor": "mixerkit.inference.engine",
    "predict_files": "mixerkit.inference.predictor",
    "tiled_logits": "mixerkit.inference.tiles",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mixerkit' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
