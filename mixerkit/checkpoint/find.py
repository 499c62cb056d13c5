"""Which model a source names.

A source is, in this order: an existing path (run folder, model folder, folder of a checkpoint, file
of weights), `hf://org/name`, `zoo:NAME`, a checkpoint of a run (`RUN@newest`, `RUN@best`,
`RUN@STEP`), or a variant label (fresh weights).
"""

import shlex
from pathlib import Path

from mixerkit.checkpoint.checkpoint_model import (
    BEST,
    NEWEST,
    choose,
    is_checkpoint,
    split_name,
    stored_checkpoint,
)
from mixerkit.checkpoint.checkpoints import RECIPE, TENSORS
from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, read_json
from mixerkit.checkpoint.foreign import as_published, foreign, timm_folder, timm_weights
from mixerkit.checkpoint.manifest import (
    MANIFEST,
    OtherFormat,
    check_file,
    listed_entry,
    read_manifest,
    verify_folder,
    without_advice,
)
from mixerkit.checkpoint.mending import is_mendable
from mixerkit.checkpoint.opening import has_run
from mixerkit.checkpoint.stored import (
    CONFIG,
    NOTHING_TOLD,
    WEIGHTS,
    Stored,
    Told,
    must_not_be_told,
    ours,
)
from mixerkit.checkpoint.tensors import is_shard
from mixerkit.checkpoint.zoo import fetch_published, packaged
from mixerkit.errors import Unreadable, UserError, did_you_mean
from mixerkit.spec.mixer import VARIANTS, is_variant
from mixerkit.spec.zoo import PUBLISHED


def find(source: str | Path, told: Told = NOTHING_TOLD) -> Stored | None:
    """The stored model that `source` names, described but not loaded; None for a variant label.

    A published model is downloaded when it is not in the cache. `told`: what the caller knows of
    a file of weights.
    """
    path = _existing(source)
    if path and str(source):
        return at(path, told)
    if isinstance(source, Path):
        checkpoint = _checkpoint(source, told)
        if checkpoint:
            return checkpoint
        raise UserError(f"No file or folder {source}.")
    if source.startswith("hf://"):
        from mixerkit.checkpoint.hub import fetch_from_hub

        return at(fetch_from_hub(source), told)
    if source.startswith("zoo:"):
        return _from_zoo(source.removeprefix("zoo:"), told)
    checkpoint = _checkpoint(source, told)
    if checkpoint:
        return checkpoint
    if is_variant(source):
        if told.native_size is not None:
            raise UserError(f"{source} has no stored size: give image_size, not native_size.")
        return None
    raise _not_found(source)


def _existing(source: str | Path) -> Path | None:
    try:
        path = Path(source).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, an unknown ~user
        return None


def _from_zoo(name: str, told: Told) -> Stored:
    if name in packaged():
        return at(packaged()[name], told)
    known = PUBLISHED.get(name)
    if known is None:
        names = [*packaged(), *PUBLISHED]
        raise UserError(
            f"No model 'zoo:{name}'.{did_you_mean(name, names)} In the zoo: {', '.join(names)}."
        )
    path = fetch_published(known)
    if path.is_dir():
        return at(path, told)
    return as_published(path, known, told)


def _not_found(source: str) -> UserError:
    zoo = [*packaged(), *PUBLISHED]
    if source in zoo:
        return UserError(f"No file or folder '{source}'. Did you mean 'zoo:{source}'?")
    names = [*(f"zoo:{name}" for name in zoo), *VARIANTS]
    near = did_you_mean(source, names) or did_you_mean(f"zoo:{source}", names)
    return UserError(
        f"No model '{source}'.{near} Expected an existing path (run folder, model folder or file "
        f"of weights), RUN@{NEWEST} or RUN@{BEST}, hf://ORG/NAME, zoo:NAME (`mixer zoo` lists "
        f"them), or a variant: {', '.join(VARIANTS)}."
    )


# -- paths --------------------------------------------------------------------------------


def at(path: Path, told: Told = NOTHING_TOLD) -> Stored:
    """The model at an existing path: a run folder, a checkpoint, a model folder of ours or of
    timm's, or a file of weights in any known layout. Inside a folder of ours the manifest vouches
    for the files.
    """
    if path.is_file():
        return _file(path, told)
    if is_checkpoint(path):
        must_not_be_told(path, told)
        return stored_checkpoint(path)
    if (path / CONFIG).exists() or (path / WEIGHTS).exists():
        return _model_folder(path, told)
    if (path / RECIPE).is_file() or has_run(path):
        return _of_run(path, told)
    raise UserError(
        f"{path} holds no model: expected a run folder, or a folder with {WEIGHTS} and {CONFIG}."
    )


def _model_folder(path: Path, told: Told) -> Stored:
    if _kind(path) == "timm":
        return timm_folder(path, timm_weights(path), told)
    if not (path / MANIFEST).exists():
        raise UserError(
            f"{path / MANIFEST} is missing, so the files beside it cannot be checked: restore "
            f"it, or give {path / WEIGHTS} itself to load it unchecked."
        )
    verify_folder(path, kind="model", must_list=(WEIGHTS, CONFIG))
    return ours(path / WEIGHTS, told)


def _of_run(path: Path, told: Told) -> Stored:
    """The model that the run in `path` has kept, or what to do where there is none."""
    model, resume = path / "model", f"`mixer train --resume {shlex.quote(str(path))}`"
    named = f" {path}@{NEWEST} and {path}@{BEST} name its checkpoints." if is_mendable(path) else ""
    if not model.exists():
        raise UserError(
            f"The run in {path} has not finished, so it has no model yet: wait for it, or go on "
            f"with {resume}.{named}"
        )
    try:
        verify_folder(model, kind="model", must_list=(WEIGHTS, CONFIG))
    except (Unreadable, OtherFormat):
        raise
    except UserError as error:
        raise UserError(f"{without_advice(error)} {resume} makes it again.{named}") from error
    return ours(model / WEIGHTS, told)


def _checkpoint(source: str | Path, told: Told) -> Stored | None:
    """The checkpoint of a run that `source` names, if it is such a name."""
    named = split_name(source)
    if named is None:
        return None
    must_not_be_told(named[0], told)
    return choose(*named)


def _file(path: Path, told: Told) -> Stored:
    """A file of weights, with the config.json beside it where that belongs to it."""
    if (path.name == TENSORS or is_shard(path.name)) and is_checkpoint(path.parent):
        return at(path.parent, told)
    kind = _kind(path.parent) if path.suffix in (".safetensors", ".bin") else ""
    if kind == "timm":
        return timm_folder(path.parent, path, told)
    if path.name != WEIGHTS or not kind:
        return foreign(path, told)
    if (path.parent / MANIFEST).exists():
        manifest = read_manifest(path.parent)
        for name in (path.name, CONFIG):
            check_file(path.parent, name, listed_entry(path.parent, name, manifest))
    return ours(path, told)


def _kind(folder: Path) -> str:
    """Whose config.json lies in a folder: "timm", "mixerkit" (or damaged), or nobody's."""
    path = folder / CONFIG
    if not path.is_file():
        return ""
    return "timm" if "architecture" in read_json(path, DESCRIPTION_LIMIT) else "mixerkit"
