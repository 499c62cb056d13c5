"""Reading the .mat files that some data sets keep their lists in."""

from pathlib import Path
from typing import Any

from mixerkit.errors import UserError, how_to_install


def read_mat(path: Path, key: str) -> Any:
    """One variable of a MATLAB file, without its singleton dimensions."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(f"Reading {path.name} needs SciPy: {how_to_install('scipy')}") from error
    try:
        return loadmat(path, squeeze_me=True, variable_names=[key])[key]
    except KeyError as error:
        raise UserError(f"{path} has no variable '{key}'.") from error
    except Exception as error:  # SciPy meets broken bytes with many kinds of exceptions
        raise UserError(f"Cannot read {path}: {error}.") from error
