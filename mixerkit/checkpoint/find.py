"""Which model a source names.

A source is, in this order: an existing path (run folder, model folder, file of weights),
`hf://org/name`, `zoo:NAME`, or a variant label (fresh weights).
"""

from pathlib import Path

from mixerkit.checkpoint.stored import NOTHING_TOLD, Stored, Told, as_published, at
from mixerkit.checkpoint.zoo import fetch_published, packaged
from mixerkit.errors import UserError, did_you_mean
from mixerkit.spec.mixer import VARIANTS, is_variant
from mixerkit.spec.zoo import PUBLISHED


def find(source: str | Path, told: Told = NOTHING_TOLD) -> Stored | None:
    """The stored model that `source` names, described but not loaded; None for a variant label.

    A published model is downloaded when it is not in the cache. `told`: what the caller knows of
    a file of weights.
    """
    path = _existing(source)
    if path:
        return at(path, told)
    if isinstance(source, Path):
        raise UserError(f"No file or folder {source}.")
    if source.startswith("hf://"):
        from mixerkit.checkpoint.hub import fetch_from_hub

        return at(fetch_from_hub(source), told)
    if source.startswith("zoo:"):
        return _from_zoo(source.removeprefix("zoo:"), told)
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
        f"of weights), hf://ORG/NAME, zoo:NAME (`mixer zoo` lists them), or a variant: "
        f"{', '.join(VARIANTS)}."
    )
