"""Tensors come back bit for bit, in memory of their own; bad files are named."""

import errno
import resource
import struct
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mixerkit.benchmark.measure import peak_memory
from mixerkit.checkpoint.tensors import not_finite, open_safetensors, read_tensors, write_tensors
from mixerkit.errors import UserError

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.uint8)


def bits(tensor: Tensor) -> bytes:
    """The bytes of a tensor in row-major order, by another road than safetensors."""
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).tolist())


def random_bits(dtype: torch.dtype, size: list[int], seed: int) -> Tensor:
    """Any bit pattern at all: NaNs with payloads, infinities, subnormals, −0."""
    generator = torch.Generator().manual_seed(seed)
    count = torch.Size(size).numel() * torch.empty(0, dtype=dtype).element_size()
    raw = torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(size)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dtype=st.sampled_from(DTYPES),
    size=st.lists(st.integers(0, 4), max_size=4),
    seed=st.integers(0, 2**31),
)
def test_round_trip_is_exact_for_any_bits(tmp_path: Path, dtype, size, seed):
    tensor = random_bits(dtype, size, seed)
    write_tensors(tmp_path / "x.safetensors", {"x": tensor})
    back = read_tensors(tmp_path / "x.safetensors")["x"]
    assert back.dtype == dtype and back.shape == tensor.shape and bits(back) == bits(tensor)


def test_bool_views_strides_and_shared_storage_round_trip(tmp_path: Path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "bool": torch.tensor([[True, False], [False, True]]),
        "scalar": torch.tensor(3),
        "transposed": base.t(),
        "strided": base[::2, 1::2],
        "expanded": torch.ones(1).expand(3, 2),
        "whole": base,
        "same": base,
        "parameter": torch.nn.Parameter(base[1]),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    write_tensors(tmp_path / "x.safetensors", tensors)
    back = read_tensors(tmp_path / "x.safetensors")
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    with open_safetensors(tmp_path / "x.safetensors") as file:
        assert file.shapes["strided"].size == (2, 3)


def test_what_was_read_outlives_the_file(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.ones(1000), "y": torch.ones(3)})
    back = read_tensors(path)
    path.write_bytes(bytes(path.stat().st_size))
    back["y"] += 1
    assert bool((back["x"] == 1).all()) and bool((back["y"] == 2).all())
    assert back["y"].untyped_storage().nbytes() == 12


def test_the_same_tensors_make_the_same_bytes(tmp_path: Path):
    tensors = {name: torch.randn(3) for name in "cab"}
    write_tensors(tmp_path / "1", tensors)
    write_tensors(tmp_path / "2", dict(sorted(tensors.items())))
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


@pytest.mark.parametrize("damage", ["empty", "short", "cut", "grown", "header", "huge header"])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, damage: str):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.randn(5)})
    whole = path.read_bytes()
    broken = {
        "empty": b"",
        "short": b"abc",
        "cut": whole[:-1],
        "grown": whole + b"x",
        "header": whole[:8] + b"[" + whole[9:],
        "huge header": struct.pack("<Q", 2**40) + whole[8:],
    }
    path.write_bytes(broken[damage])
    with pytest.raises(UserError, match=r"x\.safetensors is not a whole"):
        read_tensors(path)


def with_header(path: Path, header: str, data: bytes = bytes(16)) -> Path:
    """A safetensors file of our own making."""
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + data)
    return path


def test_what_safetensors_takes_in_silence_is_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    one = '"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}'
    assert read_tensors(with_header(path, f"{{{one}}}"))["a"].shape == (4,)
    with_header(path, f"{{{one},{one.replace('[4]', '[2,2]')}}}")
    with pytest.raises(UserError, match=r"header of .*x\.safetensors.* a key is given twice"):
        read_tensors(path)
    with_header(path, f"{{{one}}}" + " " * (9 << 20))
    with pytest.raises(UserError, match=r"x\.safetensors is not a whole"):
        read_tensors(path)


def test_a_side_that_pytorch_cannot_count_is_a_user_error(tmp_path: Path):
    none = f'"a":{{"dtype":"F32","shape":[0,{2**64 - 1}],"data_offsets":[0,0]}}'
    path = with_header(tmp_path / "x.safetensors", f"{{{none}}}", b"")
    with pytest.raises(UserError, match=r"x\.safetensors: cannot read 'a'"):
        read_tensors(path)


def test_numbers_that_pytorch_does_not_know_are_a_user_error(tmp_path: Path):
    six_bits = '"a":{"dtype":"F6_E2M3","shape":[16],"data_offsets":[0,12]}'
    rest = '"b":{"dtype":"U8","shape":[4],"data_offsets":[12,16]}'
    path = with_header(tmp_path / "x.safetensors", f"{{{six_bits},{rest}}}")
    with pytest.raises(UserError, match=r"x\.safetensors: cannot read 'a'"):
        read_tensors(path)


def test_a_file_that_goes_while_it_is_opened_is_a_user_error(tmp_path: Path, monkeypatch):
    """As when a run's writer prunes a checkpoint that somebody reads."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.ones(1)})

    def gone_meanwhile(name, framework):
        path.unlink()
        return safe_open(name, framework)

    monkeypatch.setattr("mixerkit.checkpoint.tensors.safe_open", gone_meanwhile)
    with pytest.raises(UserError, match=r"Cannot read .*x\.safetensors"):
        read_tensors(path)


def test_missing_files_and_folders_are_named(tmp_path: Path):
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(UserError, match="missing, or not a plain file"):
            read_tensors(path)


def test_a_failed_write_is_an_oserror(tmp_path: Path):
    with pytest.raises(OSError, match="No such file"):
        write_tensors(tmp_path / "absent" / "x", {"x": torch.ones(1)})


def test_not_finite_names_the_tensors():
    tensors = {"good": torch.ones(2), "nan": torch.tensor([1, torch.nan]), "count": torch.tensor(1)}
    assert not_finite(tensors | {"inf": torch.tensor(-torch.inf)}) == ["nan", "inf"]
    assert not_finite({"empty": torch.ones(0), "plane": torch.ones(3, 0)}) == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_seen_wherever_it_stands(dtype, broken):
    for place in range(0, 70, 3):
        values = torch.randn(70).to(dtype)
        values[place] = broken
        grid = values.reshape(7, 10).T
        assert not_finite({"row": values, "transposed": grid}) == ["row", "transposed"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from Linux")
def test_looking_for_what_is_not_finite_takes_no_memory_of_the_tensors_size():
    values = torch.ones(1 << 24)
    grown = peak_memory(lambda: not_finite({"values": values}))
    assert grown is not None and grown < values.numel() * 4 // 8


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I/O error: Disk quota exceeded (os error 122)", errno.EDQUOT),
        ("I/O error: File too large (os error 27)", errno.EFBIG),
        ("I/O error: Read-only file system (os error 30)", errno.EROFS),
        ("I/O error: No space left on device", errno.ENOSPC),
        ("something else", errno.EIO),
    ],
)
def test_an_error_of_the_system_keeps_its_number(tmp_path, monkeypatch, text, number):
    def refuse(*_):
        raise SafetensorError(text)

    monkeypatch.setattr("mixerkit.checkpoint.tensors.save_file", refuse)
    with pytest.raises(OSError) as raised:
        write_tensors(tmp_path / "x", {"a": torch.ones(1)})
    assert raised.value.errno == number


def test_a_file_that_may_not_grow_says_so(tmp_path):
    """The system's own refusal, as `ulimit -f` and quotas make it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError) as raised:
            write_tensors(tmp_path / "x", {"a": torch.ones(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert raised.value.errno == errno.EFBIG
