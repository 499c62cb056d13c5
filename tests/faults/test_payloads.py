"""The payloads are live: whoever trusts them runs their code. And bombs go off."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults import pickles


@pytest.mark.parametrize("kind", pickles.programs(Path("x")))
def test_a_reader_that_trusts_them_runs_their_code(tmp_path: Path, kind: str):
    trap = tmp_path / "executed"
    program = pickles.programs(trap)[kind]
    pickle.loads(program)
    assert trap.exists()
    for wrap in (pickles.pth, pickles.legacy_pth):
        trap.rmdir()
        torch.load(io.BytesIO(wrap(program)), weights_only=False)
        assert trap.exists()


def test_an_array_of_objects_runs_its_code_where_pickles_are_allowed(tmp_path: Path):
    np.load(io.BytesIO(pickles.object_array(tmp_path / "executed")), allow_pickle=True)
    assert (tmp_path / "executed").exists()


def test_a_doubling_program_doubles():
    assert len(pickle.loads(pickles.doubling(10))) == 8 * 2**10
    with zipfile.ZipFile(io.BytesIO(pickles.pth(b"."))) as archive:
        assert b"." in [archive.read(entry) for entry in archive.infolist()]
