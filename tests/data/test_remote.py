"""Archives and Parquet files at an address: what braces stand for, fetched once, checked, kept."""

import shutil
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest

from mixerkit.data.remote import expanded, kept_in
from mixerkit.data.sources import open_source
from mixerkit.errors import UserError
from tests.data.test_parquet import values_of, write
from tests.loopback import serving
from tests.training.generated import make_shards


@pytest.fixture
def served(tmp_path, monkeypatch):
    """(folder, its address, the paths that were asked for); the cache is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MIXERKIT_OFFLINE", raising=False)
    folder, asked = tmp_path / "served", []
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    with serving(partial(Handler, directory=str(folder))) as address:
        yield folder, address, asked


@pytest.mark.parametrize(
    ("text", "stands_for"),
    [
        ("a.tar", ["a.tar"]),
        ("t-{08..11}.tar", ["t-08.tar", "t-09.tar", "t-10.tar", "t-11.tar"]),
        ("{8..10}", ["8", "9", "10"]),
        ("{train,val}-{0..1}", ["train-0", "train-1", "val-0", "val-1"]),
    ],
)
def test_what_braces_stand_for(text, stands_for):
    assert list(expanded(text)) == stands_for


@pytest.mark.parametrize(
    ("text", "said"),
    [("{9..1}.tar", "stands for no file"), ("{0..999999}.tar", "more than 100,000")],
)
def test_braces_that_stand_for_too_much_or_nothing(text, said):
    with pytest.raises(UserError, match=said):
        list(expanded(f"https://host/{text}"))


def test_archives_are_fetched_once_and_are_as_from_a_folder(served, tmp_path):
    folder, address, asked = served
    make_shards(folder / "photos")
    source = f"{address}/photos/train-{{0000..0001}}.tar"
    here, there = open_source(str(folder / "photos")), open_source(source)
    assert there.train.labels.tolist() == here.train.labels.tolist()
    assert there.train.paths[30].content() == here.train.paths[30].content()
    assert sorted(asked) == ["/photos/train-0000.tar", "/photos/train-0001.tar"]
    shutil.rmtree(folder / "photos")
    assert len(open_source(source).train) == 40 and len(asked) == 2
    assert {path.suffix for path in kept_in(source).iterdir()} == {".tar", ".npz"}


def test_parquet_files_are_fetched(served):
    folder, address, _ = served
    write(folder / "train-0.parquet", [1, 2], [0, 1])
    write(folder / "validation-0.parquet", [3], [2])
    splits = open_source(f"{address}/{{train,validation}}-0.parquet")
    assert (values_of(splits.train), values_of(splits.validation)) == ([1, 2], [3])


def test_a_file_that_is_not_whole_is_not_kept(served):
    folder, address, _ = served
    make_shards(folder / "photos")
    path = folder / "photos" / "train-0001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    source = f"{address}/photos/train-{{0000..0001}}.tar"
    with pytest.raises(UserError, match=r"no whole tar archive.*Nothing of it was kept"):
        open_source(source)
    assert not (kept_in(source) / "train-0001.tar").exists()
    path.write_bytes(whole)
    assert len(open_source(source).train) == 40


def test_nothing_is_fetched_that_cannot_be_read(served, monkeypatch):
    folder, address, asked = served
    write(folder / "train.parquet", [1], [0])
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match=r"needs pyarrow: .*-m pip install pyarrow"):
        open_source(f"{address}/train.parquet")
    assert not asked


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone-{0..1}.tar", "404"),
        ("photos.zip", r"expected addresses of \.tar or of \.parquet files, found \.zip"),
        ("{a.tar,b.parquet}", r"found \.parquet and \.tar"),
        ("{a,b}/x.tar", "have the same name"),
    ],
)
def test_other_addresses_are_refused(served, name, said):
    with pytest.raises(UserError, match=said):
        open_source(f"{served[1]}/{name}")


def test_offline_says_where_to_put_the_files(served, monkeypatch):
    monkeypatch.setenv("MIXERKIT_OFFLINE", "1")
    source = f"{served[1]}/a.tar"
    with pytest.raises(UserError, match="MIXERKIT_OFFLINE forbids") as error:
        open_source(source)
    assert str(Path(kept_in(source)) / "a.tar") in str(error.value)
