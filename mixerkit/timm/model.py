"""Our Mixer with the interface that timm's scripts and feature extraction ask of a model."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mixerkit.checkpoint.load import load
from mixerkit.errors import UserError
from mixerkit.model.mixer import MlpMixer
from mixerkit.model.surgery import adapt
from mixerkit.spec.mixer import MixerConfig, Size, variant

Pool = Literal["avg", ""]


class TimmMixer(MlpMixer):
    """`MlpMixer` with timm's model interface; arguments have timm's names.

    With `dynamic_img_size` a forward pass takes images that are any whole number of times as
    large, each way, as `img_size`: tiles that share the token mixing (paper, appendix C). With
    `img_size` and `pretrained` the weights are resampled for that size; `tiles` beside it makes
    the tiles part of the model.
    """

    def __init__(
        self,
        label: str = "B/16",
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: Size | None = None,
        patch_size: Size | None = None,
        global_pool: Pool = "avg",
        drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        gelu: Literal["tanh", "erf"] = "tanh",
        dynamic_img_size: bool = False,
        **changes: Any,
    ) -> None:
        asked = {"image_size": img_size, "patch_size": patch_size} | changes
        super().__init__(
            variant(
                label,
                num_classes=num_classes,
                in_channels=in_chans,
                dropout=proj_drop_rate,
                drop_path=drop_path_rate,
                drop_path_kind="timm",
                gelu=gelu,
                **{name: value for name, value in asked.items() if value is not None},
            )
        )
        _check_pool(global_pool)
        self.global_pool, self.in_chans, self.dynamic_img_size = (
            global_pool,
            in_chans,
            dynamic_img_size,
        )
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = self.embed_dim = self.config.width
        self.head_drop = nn.Dropout(drop_rate)
        self.feature_info = [
            dict(module=f"blocks.{i}", num_chs=self.embed_dim, reduction=self.config.patch_hw[0])
            for i in range(self.config.depth)
        ]

    # -- forward, in timm's pieces ------------------------------------------------------------

    def forward_features(self, x: Tensor) -> Tensor:
        """Images → the tokens after the last norm, [B, S, C]."""
        return self._in_raster(self._tokens(self._tiled(x)), x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Tokens [B, S, C] → logits, or what the head would see."""
        if self.global_pool == "avg":
            x = x.mean(dim=1)
        x = self.head_drop(x)
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def _times(self, x_BIHW: Tensor) -> tuple[int, int]:
        """How many times larger than the model's the images are, down and across."""
        if not self.dynamic_img_size:
            return (1, 1)
        height, width = self.config.image_hw
        down, across = x_BIHW.shape[2] // height, x_BIHW.shape[3] // width
        fits = (down * height, across * width) == tuple(x_BIHW.shape[2:])
        return (down, across) if fits else (1, 1)

    def _tiled(self, x_BIHW: Tensor) -> Tensor:
        """Larger images as more samples of the native size."""
        (down, across), (height, width) = self._times(x_BIHW), self.config.image_hw
        if down * across == 1:
            return x_BIHW
        x = x_BIHW.reshape(*x_BIHW.shape[:2], down, height, across, width)
        return x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)

    def _in_raster(self, x_BSC: Tensor, x_BIHW: Tensor) -> Tensor:
        """Tokens tile by tile → [B, S, C] in raster order over the whole images."""
        x_BSC = self.stem.in_raster(x_BSC)
        (down, across), (rows, columns) = self._times(x_BIHW), self.config.grid
        if down * across == 1:
            return x_BSC
        x = x_BSC.reshape(len(x_BIHW), down, across, rows, columns, self.embed_dim)
        return x.transpose(2, 3).flatten(1, 4)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The tokens after chosen blocks (the last `indices`, or those), and the final ones."""
        from timm.models._features import feature_take_indices

        if output_fmt not in ("NCHW", "NLC"):
            raise UserError(f"output_fmt must be NCHW or NLC, found {output_fmt!r}.")
        taken, last = feature_take_indices(len(self.blocks), indices)
        kept: list[Tensor] = []
        tokens = self.stem(self._tiled(x))
        for i, block in enumerate(self.blocks):
            if stop_early and i > last:
                break
            tokens = self._through(block, tokens)
            if i in taken:
                stage = self._in_raster(self.norm(tokens) if norm else tokens, x)
                kept.append(stage if output_fmt == "NLC" else self._as_map(stage, x))
        if intermediates_only:
            return kept
        return self._in_raster(self.norm(tokens), x), kept

    def _as_map(self, x_BSC: Tensor, x_BIHW: Tensor) -> Tensor:
        """[B, S, C] → [B, C, rows, columns]."""
        (down, across), (rows, columns) = self._times(x_BIHW), self.config.grid
        grid = (down * rows, across * columns)
        return x_BSC.transpose(1, 2).unflatten(2, grid).contiguous()

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the blocks after the last one of `indices`; the indices that stay."""
        from timm.models._features import feature_take_indices

        taken, last = feature_take_indices(len(self.blocks), indices)
        self.blocks = self.blocks[: last + 1]  # type: ignore[assignment]
        self.config = replace(self.config, depth=last + 1)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.reset_classifier(0, "")
        return list(taken)

    # -- what timm's scripts ask of a model ---------------------------------------------------

    def get_classifier(self) -> nn.Module:
        """The head."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: Pool | None = None) -> None:
        """A fresh head for `num_classes`; 0 takes it away."""
        if global_pool is not None:
            _check_pool(global_pool)
            self.global_pool = global_pool
        like = self.stem.weight
        self.config = replace(self.config, num_classes=num_classes)
        self.num_classes = num_classes
        self.head = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.embed_dim, num_classes, device=like.device, dtype=like.dtype)
            nn.init.zeros_(self.head.weight)
            nn.init.constant_(self.head.bias, self.config.head_bias)
        self.head.train(self.training)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute the blocks in the backward pass instead of keeping their activations."""
        self.activation_checkpointing = enable

    def set_input_size(self, img_size: Size | None = None, patch_size: Size | None = None) -> None:
        """Change the model for another image or patch size (`mixerkit.load` says how)."""
        config, tensors = adapt(
            self.config,
            {name: tensor.detach() for name, tensor in self.state_dict().items()},
            image_size=img_size,
            patch_size=patch_size,
        )
        self._become(config, tensors)
        _remember_size(self)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups by depth, for layer-wise learning rates."""
        return dict(stem=r"^stem", blocks=[(r"^blocks\.(\d+)", None), (r"^norm", (99999,))])

    def no_weight_decay(self) -> set[str]:
        """Names besides biases and norms that are not decayed: none."""
        return set()

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """Take a published file's weights, for whatever size, classes and channels this has."""
        if prefix:
            raise UserError(f"A prefix is found without being told; leave out prefix={prefix!r}.")
        found = load(
            checkpoint_path,
            image_size=self.config.image_size,
            patch_size=self.config.patch_size,
            in_channels=self.config.in_channels,
            gelu=self.config.gelu,
            enlargement="shared" if self.config.tiles != 1 else "resample",
        )
        tensors = dict(found.state_dict())
        if found.config.num_classes != self.config.num_classes:
            own = self.state_dict()
            tensors = {n: t for n, t in tensors.items() if not n.startswith("head.")}
            tensors |= {n: t for n, t in own.items() if n.startswith("head.")}
        self.load_state_dict(tensors)

    def _become(self, config: MixerConfig, tensors: dict[str, Tensor]) -> None:
        """Be the model of `config` with `tensors`, keeping mode, device and precision."""
        with torch.device("meta"):
            fresh = MlpMixer(config)
        fresh.load_state_dict(tensors, strict=False, assign=True)  # the norm may be pruned
        fresh.requires_grad_(True).train(self.training)
        self.config, self.stem, self.blocks = config, fresh.stem, fresh.blocks
        for info in self.feature_info:
            info["reduction"] = config.patch_hw[0]


def _check_pool(global_pool: str) -> None:
    if global_pool not in ("avg", ""):
        raise UserError(f"global_pool must be 'avg' or '' (none), found {global_pool!r}.")


def _remember_size(model: TimmMixer) -> None:
    """Tell timm what `get_model_args` must give to build this model again."""
    try:
        from timm.models._input import update_model_input_size
    except ImportError:  # an older timm, which keeps no such record
        return
    config = model.config
    update_model_input_size(
        model, config.image_hw, patch_size=config.patch_size, tiles=config.tiles
    )
