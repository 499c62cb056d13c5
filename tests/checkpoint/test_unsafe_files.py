"""Files made to harm: nothing in them runs, and memory stays bounded; each gets one clear error."""

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from mixerkit.checkpoint.load import load
from mixerkit.errors import UserError
from tests.checkpoint import published
from tests.checkpoint.published import TINY


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    return tmp_path / "executed"


def npz_with(path: Path, name: str, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    """A good file with one more entry of our choice."""
    published.write(path, published.linen(TINY))
    with zipfile.ZipFile(path, "a", method) as archive:
        archive.writestr(name, content)
    return path


def header(description: str, shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file that promises `shape`."""
    buffer = io.BytesIO()
    text = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, text)
    return buffer.getvalue()


# -- code ---------------------------------------------------------------------------------


def test_the_payload_would_run(trap):
    pickle.loads(pickle.dumps(Payload(trap)))
    assert trap.exists()


def object_array(trap: Path) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(trap)], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def test_object_arrays_are_not_loaded(trap, tmp_path):
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", object_array(trap))
    with pytest.raises(UserError, match="Python objects"):
        load(path)
    assert not trap.exists()


def test_a_pickle_under_an_arrays_name_is_not_loaded(trap, tmp_path):
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", pickle.dumps(Payload(trap)))
    with pytest.raises(UserError, match="not a NumPy array"):
        load(path)
    assert not trap.exists()


@pytest.mark.parametrize("place", ["beside", "inside", "instead"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_pth_files_run_no_code(trap, tmp_path, place, suffix):
    path = tmp_path / f"x{suffix}"
    content = {
        "beside": {"state_dict": {"w": torch.zeros(2)}, "args": Payload(trap)},
        "inside": {"state_dict": {"w": Payload(trap)}},
        "instead": Payload(trap),
    }[place]
    torch.save(content, path)
    with pytest.raises(UserError, match="Python objects"):
        load(path)
    assert not trap.exists()


def test_a_bare_pickle_called_pth_or_npz_runs_no_code(trap, tmp_path):
    for name in ("x.pth", "x.npz", "x.safetensors", "x.bin"):
        (tmp_path / name).write_bytes(pickle.dumps(Payload(trap)))
        with pytest.raises(UserError):
            load(tmp_path / name)
    assert not trap.exists()


def test_old_pth_files_that_are_one_pickle_are_refused(tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match=r"PyTorch 1\.6"):
        load(tmp_path / "x.pth")


# -- memory -------------------------------------------------------------------------------

CODE = """
import sys, torch
from mixerkit.benchmark.measure import peak_memory
from mixerkit.errors import UserError
from mixerkit.checkpoint.load import load
def once():
    try:
        load(sys.argv[1])
    except UserError as error:
        print("refused", str(error).replace("\\n", " "))
print(peak_memory(once) >> 20)
"""


def growth(path: Path) -> tuple[str, int]:
    """What loading in a fresh process printed, and by how many MiB the process grew."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(path)], capture_output=True, text=True, timeout=120
    )
    assert not done.returncode, done.stderr
    *said, grown = done.stdout.strip().splitlines()
    return "".join(said), int(grown)


def refused_within_memory(path: Path, most_mib: int = 64) -> str:
    """The error of a load that takes no more than `most_mib`."""
    said, grown = growth(path)
    assert said.startswith("refused") and grown < most_mib, (said, grown)
    return said


def test_growth_is_noticed(tmp_path):
    shape = published.Shape(P=4, C=1024, L=2, T=512, D=4096, S=9, K=3)
    said, grown = growth(published.write(tmp_path / "x.npz", published.linen(shape)))
    assert said == "" and 60 < grown < 150


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = published.write(tmp_path / "x.npz", published.linen(TINY))
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("head/extra.npy", "w", force_zip64=True) as entry,
    ):
        entry.write(header("<f4", (1 << 26,)))
        for _ in range(256):
            entry.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    assert "it was not unpacked" in refused_within_memory(path)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", header("<f4", (1 << 40,)) + bytes(64))
    assert "but holds 64" in refused_within_memory(path)


@pytest.mark.parametrize("shape", [(-1, 4), (1 << 62, 1 << 62), (0, 1 << 62)])
def test_impossible_shapes(tmp_path, shape):
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", header("<f4", shape) + bytes(64))
    with pytest.raises(UserError):
        load(path)


def test_tensors_larger_than_their_storage(tmp_path):
    torch.save({"head.weight": torch.zeros(1).expand(1 << 30)}, tmp_path / "x.pth")
    assert "say that they are" in refused_within_memory(tmp_path / "x.pth")


def test_many_names_for_one_storage(tmp_path):
    one = torch.zeros(1 << 18)
    torch.save({f"blocks.{i}.norm1.bias": one for i in range(2000)}, tmp_path / "x.pth")
    assert "say that they are" in refused_within_memory(tmp_path / "x.pth")


def with_program(path: Path, program: bytes) -> Path:
    """A .pth file whose description of the tensors is `program`."""
    torch.save({"w": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        parts = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, program if name.endswith("data.pkl") else content)
    return path


def doubling(times: int) -> bytes:
    """A program that encodes bytes as hexadecimal again and again."""
    start = b"\x80\x02c_codecs\nencode\nX\x08\0\0\0aaaaaaaa"
    text = start + b"X\x06\0\0\0latin1\x86R"
    for _ in range(times):
        text = text + b"q\x010c_codecs\nencode\nh\x01X\x03\0\0\0hex\x86R"
    return text + b"."


def test_the_description_would_grow():
    assert len(pickle.loads(doubling(10))) == 8 * 2**10


def test_descriptions_that_grow(tmp_path):
    mebibyte = b"]" * ((1 << 20) - 10)
    for program in (doubling(40), b"\x80\x02" + mebibyte * 8 + b".", b"\x80\x02" + mebibyte + b"."):
        refused_within_memory(with_program(tmp_path / "x.pth", program))


@pytest.mark.parametrize("name", ["archive/DATA.PKL", "other/data.pkl"])
def test_a_second_description_is_refused_in_any_case(tmp_path, name):
    """PyTorch's reader of archives does not tell DATA.PKL from data.pkl."""
    torch.save({"w": torch.zeros(2)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "a") as archive:
        archive.writestr(name, doubling(2))
    with pytest.raises(UserError, match="expected one description of the tensors, found 2"):
        load(tmp_path / "x.pth")


def test_an_arrays_header_is_not_unpacked_whole(tmp_path):
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}" + b" " * (80 << 20)
    start = np.lib.format.magic(2, 0) + len(text).to_bytes(4, "little") + text
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", start)
    assert "not a NumPy array" in refused_within_memory(path)


def test_a_description_of_a_million_lists_is_not_read(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_bytes(b'{"a":[' + b"[]," * (1 << 20) + b"[]]}")
    assert "larger than the 2 MiB" in refused_within_memory(tmp_path / "model.safetensors")


def test_a_depth_of_thousands_from_one_name(tmp_path):
    arrays = published.linen(TINY)
    arrays["MixerBlock_9999/LayerNorm_0/bias"] = np.zeros(12, np.float32)
    path = published.write(tmp_path / "x.npz", arrays)
    assert "too few for the depth of 10000" in refused_within_memory(path)


def test_widths_that_no_memory_holds(tmp_path):
    arrays = published.linen(TINY)
    arrays["stem/kernel"] = np.zeros((4, 4, 3, 0), np.float32)
    with pytest.raises(UserError):
        load(published.write(tmp_path / "x.npz", arrays))


# -- damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path, suffix, share):
    from safetensors.torch import save_file

    path = tmp_path / f"x{suffix}"
    arrays = published.linen(TINY)
    state = {name: torch.from_numpy(array) for name, array in arrays.items()}
    if suffix == ".npz":
        published.write(path, arrays)
    elif suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError, match=str(path.name)):
        load(path)


def test_random_damage_never_crashes(tmp_path):
    """1 to 20 bytes changed anywhere: our error, or the model where they did not matter."""
    shape = published.Shape(P=8, C=64, L=1, T=48, D=64, S=36, K=40)  # parts above 4 KiB each
    path = published.write(tmp_path / "x.npz", published.linen(shape))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 21)):
            broken[at] = rng.integers(256)
        path.write_bytes(broken)
        try:
            load(path)
        except UserError:
            refused += 1
    assert refused > 290  # zip's checksums cover nearly all of the file


@pytest.mark.parametrize(
    "text",
    [
        b"{1: 2, 'a': 3}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (",
        b" x\n  y",
        b"\xff",
    ],
)
def test_headers_that_are_no_headers(tmp_path, text):
    start = np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text
    path = npz_with(tmp_path / "x.npz", "head/extra.npy", start + bytes(64))
    with pytest.raises(UserError, match="not a NumPy array"):
        load(path)


def test_folders_and_devices_are_not_files_of_weights(tmp_path):
    (tmp_path / "x.npz").mkdir()
    with pytest.raises(UserError):
        load(tmp_path / "x.npz")
    os.mkfifo(tmp_path / "y.npz")
    with pytest.raises(UserError):
        load(tmp_path / "y.npz")
