"""`import mixerkit.timm` registers our Mixers with timm, under names such as `mixerkit_b16_224`.

timm's own scripts and `timm.create_model` then take them: any image size, square or not, the
authors' weights with the GELU that they were trained with, and timm's whole model interface.
"""

from mixerkit.timm.model import TimmMixer
from mixerkit.timm.registry import NAMES, register

__all__ = ["NAMES", "TimmMixer", "register"]
register()
