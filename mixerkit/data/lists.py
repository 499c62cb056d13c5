"""The text files in which data sets list their images, labels and names."""

from pathlib import Path

from mixerkit.errors import UserError


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 file; `UserError` names a file that cannot be read as one."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a text file in UTF-8 ({error}).") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from error
