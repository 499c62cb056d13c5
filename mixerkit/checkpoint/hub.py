"""The Hugging Face hub: fetching a model's folder from it, and putting one there."""

import re
from pathlib import Path
from typing import Any

from mixerkit.checkpoint.documents import DESCRIPTION_LIMIT, read_json
from mixerkit.checkpoint.manifest import MANIFEST
from mixerkit.checkpoint.stored import CONFIG, WEIGHTS
from mixerkit.download import is_offline
from mixerkit.errors import UserError, how_to_install

HUB = "hf://"
REPOSITORY = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
REVISION = r"(@[\w./-]+)?"


def fetch_from_hub(source: str) -> Path:
    """The folder with config.json and model.safetensors of `hf://org/name[@revision]`.

    Raises `UserError` when huggingface_hub is not installed, the repository has no such files,
    or MIXERKIT_OFFLINE forbids to ask and they are not in the cache.
    """
    name = source.removeprefix(HUB)
    if not re.fullmatch(REPOSITORY + REVISION, name):
        raise UserError(f"Expected hf://ORG/NAME or hf://ORG/NAME@REVISION, found '{source}'.")
    hub = _library(source)
    repository, _, revision = name.partition("@")
    options = {"revision": revision or None, "local_files_only": is_offline()}

    def fetched(file: str) -> Path:
        try:
            return Path(hub.hf_hub_download(repository, file, **options))
        except Exception as error:  # the library has a class of its own for every mishap
            raise UserError(f"{source}: {file} could not be fetched: {reason(error)}") from error

    config = fetched(CONFIG)
    if "architecture" not in read_json(config, DESCRIPTION_LIMIT):
        fetched(MANIFEST)  # timm's folders have none, ours must
    fetched(WEIGHTS)
    return config.parent


def check_repository(repository: str) -> None:
    """Raise `UserError` unless one can publish at `repository`: ORG/NAME."""
    if not re.fullmatch(REPOSITORY, repository):
        raise UserError(f"Expected ORG/NAME, found '{repository}'.")


def put_on_hub(folder: Path, repository: str, *, private: bool, message: str) -> str:
    """Put the files of a model folder into `org/name`, which is made if need be; the address."""
    check_repository(repository)
    if is_offline():
        raise UserError(f"MIXERKIT_OFFLINE forbids to publish {repository}: unset it.")
    library = _library(f"{HUB}{repository}")
    try:
        library.create_repo(repository, private=private, exist_ok=True)
        done = library.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message=message
        )
    except Exception as error:  # as above
        raise UserError(f"{repository} could not be published: {reason(error)}") from error
    return str(done)


def reason(error: BaseException) -> str:
    """The first line of an error of the library, and that of the error behind it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    behind = f" ({reason(error.__cause__)})" if error.__cause__ else ""
    return f"{lines[0]:.300}{behind}"


def _library(source: str) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"{source} needs the hub's library: {how_to_install('huggingface_hub')}"
        ) from error
    return huggingface_hub
