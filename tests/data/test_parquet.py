"""Parquet files as the Hugging Face hub writes them: rows, labels, names, order, errors."""

import io
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mixerkit.data import parquet
from mixerkit.data.decode import BrokenImage, open_image
from mixerkit.data.draws import shuffled_in_blocks
from mixerkit.data.loader import TrainLoader
from mixerkit.data.parquet import Groups, has_parquet
from mixerkit.data.sources import hold_out, open_source
from mixerkit.errors import RunFailed, UserError
from mixerkit.spec.preprocess import Preprocess
from mixerkit.spec.recipe import Augment
from mixerkit.training import images

NAMES = ["ant", "bee", "wasp"]
PREPROCESS = Preprocess(image_size=4, channels=1)


def png(value):
    file = io.BytesIO()
    Image.new("L", (4, 4), value).save(file, "PNG")
    return file.getvalue()


def write(path, values, labels, *, group=7, label="label", image="image", names=NAMES, **changed):
    """A file whose image number i is of grey value `values[i]`, in groups of `group` rows."""
    images = [{"bytes": png(v), "path": f"{v}.png"} for v in values]
    features = {image: {"_type": "Image"}}
    if names is not None:
        features[label] = {"names": names, "_type": "ClassLabel"}
    images = pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    table = pa.table({image: images, "other": [0.5] * len(values), label: labels} | changed)
    told = json.dumps({"info": {"features": features}})
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.replace_schema_metadata({"huggingface": told} if names is not None else None)
    pq.write_table(table, path, row_group_size=group)


@pytest.fixture
def hub(tmp_path):
    """40 images in two training files, 9 for validation, 4 whose labels are hidden."""
    data = tmp_path / "insects" / "data"
    write(data / "train-00000-of-00002.parquet", range(25), [i % 3 for i in range(25)])
    write(data / "train-00001-of-00002.parquet", range(25, 40), [i % 3 for i in range(25, 40)])
    write(data / "validation-00000-of-00001.parquet", range(100, 109), [2] * 9)
    write(data / "test-00000-of-00001.parquet", range(200, 204), [-1] * 4)
    return tmp_path / "insects"


def values_of(split):
    return [int(np.asarray(open_image(place))[0, 0]) for place in split.paths]


def test_rows_labels_and_names(hub):
    splits = open_source(str(hub))
    assert splits.train.class_names == tuple(NAMES)
    assert values_of(splits.train) == list(range(40))
    assert splits.train.labels.tolist() == [i % 3 for i in range(40)]
    assert values_of(splits.validation) == list(range(100, 109))
    assert splits.test is None and "test: labels are hidden" in splits.origin
    assert "4 Parquet files, classes from 'label'" in splits.origin
    assert str(splits.train.paths[30]).endswith("train-00001-of-00002.parquet: row 5 of group 0")


def test_parts_of_a_split_are_the_same_rows(hub):
    train = open_source(str(hub)).train
    assert values_of(train.subset([39, 3, 26])) == [39, 3, 26]
    assert [place.row for place in train.paths[5:8]] == [5, 6, 0]
    held = hold_out(open_source(str(hub)), 6, 1)
    assert sorted(values_of(held.train) + values_of(held.validation)) == list(range(40))
    assert held.test is not None and len(held.test) == 9


@pytest.mark.parametrize("place", ["", "data", "train"])
def test_files_are_found_here_and_in_folders(tmp_path, place):
    assert not has_parquet(tmp_path)
    write(tmp_path / place / "0000.parquet", [1, 2], [0, 1])
    assert has_parquet(tmp_path) and values_of(open_source(str(tmp_path)).train) == [1, 2]


def test_a_table_beside_folders_of_images_is_no_source(tmp_path):
    write(tmp_path / "metadata.parquet", [1, 2], [0, 1])
    (tmp_path / "ant").mkdir()
    assert not has_parquet(tmp_path)


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([2, 0, 2], ("0", "1", "2")),
        (["bee", "ant", "bee"], ("ant", "bee")),
    ],
)
def test_classes_that_nobody_named(tmp_path, labels, names):
    write(tmp_path / "a.parquet", [1, 2, 3], labels, label="class", names=None)
    train = open_source(str(tmp_path)).train
    assert train.class_names == names
    assert [names[label] for label in train.labels] == list(map(str, labels))


def test_the_column_that_the_hub_calls_a_class_counts(tmp_path):
    write(tmp_path / "a.parquet", [1, 2], [2, 1], label="fine", image="img", class_=[7, 7])
    splits = open_source(str(tmp_path))
    assert splits.train.labels.tolist() == [2, 1] and "classes from 'fine'" in splits.origin


# -- order and reading ------------------------------------------------------------------------


def test_blocks_come_in_any_order_and_their_items_too():
    blocks = np.repeat(np.arange(50), 20)
    order = shuffled_in_blocks(3, 1, blocks, 100)
    assert sorted(order) == list(range(1000))
    assert order.tolist() == shuffled_in_blocks(3, 1, blocks, 100).tolist()
    assert order.tolist() != shuffled_in_blocks(3, 2, blocks, 100).tolist()
    for window in range(10):
        visited = order[window * 100 : (window + 1) * 100]
        assert len(set(blocks[visited])) == 5  # five blocks of twenty, and no other
        assert len(set(blocks[visited[:20]])) > 2  # mixed
    firsts = [blocks[shuffled_in_blocks(seed, 0, blocks, 100)[0]] for seed in range(40)]
    assert len(set(firsts)) > 15


def test_one_block_is_shuffled_like_items_without_blocks():
    order = shuffled_in_blocks(3, 1, np.zeros(100, int), 10)
    assert sorted(order) == list(range(100)) and order.tolist() != list(range(100))


def test_an_epoch_reads_each_group_once(hub, monkeypatch):
    read = Counter()

    def counted(file, group, column):
        read[file, group] += 1
        return original(file, group, column)

    original = parquet.read_group
    monkeypatch.setattr(parquet, "read_group", counted)
    monkeypatch.setattr(parquet, "GROUPS", Groups(2**20))
    train = open_source(str(hub)).train
    settings = dict(batch_size=8, seed=0, workers=4, memory=0.0)
    loader = TrainLoader(train, PREPROCESS, Augment(flip=False), **settings)
    whole = [batch.images for batch in loader.epoch(0)]
    assert len(whole) == 5 and len(read) == 7 and set(read.values()) == {1}
    later = [batch.images for batch in loader.epoch(0, 3)]
    assert all((a == b).all() for a, b in zip(whole[3:], later, strict=True))


@pytest.mark.parametrize("size", [20, 60])
def test_what_is_kept_is_enough_for_what_is_visited_together(tmp_path, monkeypatch, size):
    """Half of the data fits, or a quarter: each group is still read once."""
    count = 200
    write(tmp_path / "a.parquet", range(count), [i % 3 for i in range(count)], group=10)
    total = sum(
        pq.ParquetFile(tmp_path / "a.parquet").metadata.row_group(g).total_byte_size
        for g in range(20)
    )
    monkeypatch.setattr(parquet, "KEPT", total * 20 // size)
    monkeypatch.setattr(parquet, "GROUPS", Groups(parquet.KEPT))
    read, original = Counter(), parquet.read_group

    def counted(file, group, column):
        read[group] += 1
        return original(file, group, column)

    monkeypatch.setattr(parquet, "read_group", counted)
    train = open_source(str(tmp_path)).train
    assert 1 <= train.together < count / 2
    settings = dict(batch_size=8, seed=0, workers=2, memory=0.0)
    assert len(list(TrainLoader(train, PREPROCESS, Augment(), **settings).epoch(0))) == count // 8
    assert len(read) == 20 and max(read.values()) == 1


@pytest.mark.parametrize(
    ("rows", "megabytes", "together"),
    [(100, 11, 4096), (100, 100, 924), (1000, 1000, 24), (10, 1024, 1)],
)
def test_how_many_are_visited_together(rows, megabytes, together):
    found = parquet.together_of(np.full(50, rows), np.full(50, megabytes * 2**20))
    assert found == together
    windows = 1 + -(-found // rows)  # groups, with the one that it ends in
    assert windows * megabytes * 2**20 <= parquet.KEPT or found == 1


def test_groups_that_are_not_used_are_let_go():
    groups = Groups(100)
    arrays = {}

    def read(file, group, column):
        arrays[group] = np.zeros(60, np.uint8)
        return arrays[group]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "read_group", read)
        for group in (0, 1, 1, 2):
            assert groups.get("a", group, "image") is arrays[group]
    assert [key[1] for key in groups.found] == [2]


def test_threads_that_want_a_group_wait_for_the_one_that_reads_it(monkeypatch):
    reads = []

    def read(file, group, column):
        reads.append(group)
        return np.zeros(8)

    monkeypatch.setattr(parquet, "read_group", read)
    groups = Groups(10**6)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda i: groups.get("a", i % 2, "image"), range(200)))
    assert sorted(reads) == [0, 1] and len({id(array) for array in found}) == 2


def test_a_group_that_could_not_be_read_is_tried_again(monkeypatch):
    answers = [UserError("gone"), np.zeros(3)]

    def read(*_):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(parquet, "read_group", read)
    groups = Groups(100)
    with pytest.raises(UserError, match="gone"):
        groups.get("a", 0, "image")
    assert len(groups.get("a", 0, "image")) == 3


def test_a_run_compares_images_of_a_few_groups_only(hub, monkeypatch):
    splits = open_source(str(hub))
    monkeypatch.setattr(images, "BLOCKS", 3)
    chosen = images.compared(splits)
    places = [
        (splits.train.paths[n] if n < 40 else splits.validation.paths[n - 40]) for n in chosen
    ]
    groups = {(place.file, place.group) for place in places}
    assert len(groups) == 3 and len(chosen) > 10
    assert {place.file for place in places} >= {splits.train.paths[0].file}
    monkeypatch.setattr(images, "BLOCKS", 100)
    assert images.compared(splits).tolist() == list(range(49))


# -- what cannot be used ----------------------------------------------------------------------


def test_an_image_without_bytes_is_broken(tmp_path):
    write(tmp_path / "a.parquet", [1], [0], image="image")
    table = pq.read_table(tmp_path / "a.parquet")
    images = pa.array([{"bytes": None, "path": "a.png"}], table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", images), tmp_path / "a.parquet")
    train = open_source(str(tmp_path)).train
    with pytest.raises(BrokenImage, match=r"a\.parquet: row 0 of group 0: the row has no bytes"):
        open_image(train.paths[0])


def test_broken_bytes_are_named_by_their_row(tmp_path):
    write(tmp_path / "a.parquet", [1], [0])
    table = pq.read_table(tmp_path / "a.parquet")
    images = pa.array([{"bytes": b"no image", "path": ""}], table.schema.field("image").type)
    pq.write_table(table.set_column(0, "image", images), tmp_path / "a.parquet")
    with pytest.raises(BrokenImage, match=r"row 0 of group 0"):
        open_image(open_source(str(tmp_path)).train.paths[0])


@pytest.mark.parametrize("cut", [0, 8, -1])
def test_a_cut_file_is_named(hub, cut):
    path = hub / "data" / "train-00001-of-00002.parquet"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match=r"train-00001.* is no whole Parquet file"):
        open_source(str(hub))


def test_a_file_that_is_gone_while_training_stops_the_run(hub, monkeypatch):
    monkeypatch.setattr(parquet, "GROUPS", Groups(2**20))
    train = open_source(str(hub)).train
    (hub / "data" / "train-00001-of-00002.parquet").unlink()
    loader = TrainLoader(
        train, PREPROCESS, Augment(), batch_size=8, seed=0, memory=0.0, skip_broken=True
    )
    with pytest.raises((UserError, RunFailed), match="train-00001"):
        list(loader.epoch(0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: write(p, [1], [0], label="kind", names=None), "no column of classes"),
        (
            lambda p: write(p, [1], [3]),
            "none of the 3 classes, the first at row 0",
        ),
        (lambda p: write(p, [1, 2], [0, None]), "1 rows have no label"),
        (lambda p: write(p, [1], [0.5], names=None), "must hold whole numbers or texts"),
        (lambda p: write(p, [1, 2], [-1, -1]), "the training images have no labels"),
        (lambda p: write(p, [1], [0], image="x", x=[1]), "no column of images"),
        (lambda p: write(p, [], pa.array([], pa.int64()), names=None), "no rows"),
        (lambda p: write(p, [1], [10**12], names=None), "A label of 1,000,000,000,000 is no class"),
    ],
)
def test_other_forms_are_refused(tmp_path, make, said):
    make(tmp_path / "a.parquet")
    with pytest.raises(UserError, match=said):
        open_source(str(tmp_path))


@pytest.mark.parametrize("column", ["image", "label"])
def test_a_file_that_lacks_what_the_others_have_is_named(hub, column):
    path = hub / "data" / "validation-00000-of-00001.parquet"
    table = pq.read_table(path)
    pq.write_table(
        table.rename_columns([f"x{n}" if n == column else n for n in table.column_names]), path
    )
    with pytest.raises(UserError, match=rf"validation.* has no .*'{column}', as others have"):
        open_source(str(hub))


def test_names_may_be_missing_and_hidden_files_do_not_count(hub):
    for path in (hub / "data").iterdir():
        table = pq.read_table(path)
        told = json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": None}}}})
        pq.write_table(table.replace_schema_metadata({"huggingface": told}), path)
    (hub / "data" / "._train-00000-of-00002.parquet").write_bytes(b"macOS")
    (hub / "data" / "other.parquet").mkdir()
    assert open_source(str(hub)).train.class_names == ("0", "1", "2")


def test_an_empty_split_is_not_one_whose_labels_are_hidden(hub):
    write(hub / "data" / "test-00000-of-00001.parquet", [], pa.array([], pa.int64()))
    assert len(open_source(str(hub)).test) == 0


def test_a_group_that_is_too_large_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.parquet", [1, 2], [0, 1])
    monkeypatch.setattr(parquet, "MOST_OF_A_GROUP", 50)
    with pytest.raises(UserError, match=r"group 0 of 2 rows has .*smaller row groups"):
        open_source(str(tmp_path))
