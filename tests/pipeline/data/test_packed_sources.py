"""Images packed with their labels: tars in WebDataset's layout and Parquet files, also bad ones."""

import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import photos
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from convline.images.decode import read_image
from PIL import Image
from webdataset import TarWriter

from pipeline.core.errors import StageError
from pipeline.data import image_sources, packed_sources, prepare, shard_writer
from pipeline.data.splits import Sample
from pipeline.params.schema import Camera, ImageData, ParquetSet, WebDatasetSet


def tars(path: Path, **keys: Any) -> WebDatasetSet:
    return WebDatasetSet(source="webdataset", path=str(path), licence="none", **keys)


def tables(path: Path, **keys: Any) -> ParquetSet:
    return ParquetSet(source="parquet", path=str(path), licence="none", **keys)


def pairs(count: int, first: int = 0) -> dict[str, bytes]:
    """Return members of so many samples of the classes 0 and 1."""
    members = {}
    for k in range(first, first + count):
        members |= {f"{k:06d}.jpg": photos.jpeg(k), f"{k:06d}.cls": str(k % 2).encode()}
    return members


def write_table(path: Path, count: int, first: int = 0, label: str = "label", **more: Any) -> None:
    """Write rows as Hugging Face's `datasets` does, four to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = range(first, first + count)
    images = [{"bytes": photos.jpeg(k), "path": f"{k}.jpg"} for k in rows]
    table = pa.table({"image": images, label: [k % 2 for k in rows]})
    pq.write_table(table.replace_schema_metadata(more.get("metadata")), path, row_group_size=4)


def ids(samples: list[Sample]) -> list[str]:
    return sorted(sample.id for sample in samples)


def test_a_folder_of_tars_is_split_by_the_seed(tmp_path: Path) -> None:
    """Written by the library whose layout it is. Every photo is read back with its label."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        with TarWriter(str(tmp_path / f"photos/{number:06d}.tar")) as writer:
            for k in range(10):
                seed = 10 * number + k
                row = {"jpg": photos.jpeg(seed), "cls": seed % 2, "json": {"seed": seed}}
                writer.write({"__key__": f"{k:04d}", **row})
    spec = tars(tmp_path / "photos", validation=4, test=4)
    splits, labels = image_sources.images(spec)
    assert labels == ["0", "1"]
    assert {split: len(samples) for split, samples in splits.items()} == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    every = [sample for samples in splits.values() for sample in samples]
    assert len({sample.id for sample in every}) == 20  # keys repeat from tar to tar
    for sample in every:
        name, key = sample.id.split("/")
        seed = 10 * int(name.removesuffix(".tar")) + int(key)
        assert sample.open() == photos.jpeg(seed) and sample.label == seed % 2


@pytest.mark.parametrize(
    "names",
    [("train-00.tar", "val-00.tar", "set-test-00.tar"), ("train/0.tar", "dev/0.tar", "Test/0.tar")],
)
def test_the_names_of_files_or_folders_say_the_splits(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for k, name in enumerate(names):
        photos.write_tar(tmp_path / name, pairs(4 + 2 * k, 10 * k))
    splits, _ = image_sources.images(tars(tmp_path))
    assert {split: len(samples) for split, samples in splits.items()} == {
        "train": 4,
        "validation": 6,
        "test": 8,
    }


def test_a_validation_split_that_no_file_has_is_drawn_from_train(tmp_path: Path) -> None:
    photos.write_tar(tmp_path / "train.tar", pairs(10))
    photos.write_tar(tmp_path / "test.tar", pairs(4, 10))
    splits, _ = image_sources.images(tars(tmp_path, validation=4))
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [6, 4, 4]
    assert all(sample.id.startswith("train.tar/") for sample in splits["validation"])


def test_labels_are_numbers_or_names(tmp_path: Path) -> None:
    """`names:` names the numbers; words are classes of their own; members in folders have keys."""
    photos.write_tar(tmp_path / "a/x.tar", {f"in/{k}": v for k, v in pairs(12).items()})
    spec = tars(tmp_path / "a", names=["hat", "shoe"], validation=2, test=2)
    splits, labels = image_sources.images(spec)
    assert labels == ["hat", "shoe"]
    assert ids([s for rows in splits.values() for s in rows])[0] == "x.tar/in/000000"
    words = {}
    for name, content in pairs(12).items():
        word = {b"0": b"shoe\n", b"1": b"hat\n"}.get(content, content)
        words[name.replace(".cls", ".txt")] = word
    photos.write_tar(tmp_path / "b/x.tar", words)
    splits, labels = image_sources.images(tars(tmp_path / "b", label="txt", validation=2, test=2))
    assert labels == ["hat", "shoe"]
    for sample in (s for rows in splits.values() for s in rows):
        assert sample.label == 1 - int(sample.id.rpartition("/")[2]) % 2


BAD_MEMBERS: dict[str, tuple[dict[str, bytes], str]] = {  # beside 000003.jpg; what is said of it
    "no label": (
        {},
        r"set.tar/000003: expected an image and a label \(.cls\), got an image alone; ",
    ),
    "two images": (
        {"000003.png": b"x", "000003.cls": b"1"},
        r"set.tar/000003: expected one image and one label of a key, got 000003.jpg and 000003.png; ",
    ),
    "empty label": (
        {"000003.cls": b" \n"},
        r"set.tar/000003.cls: expected the index or the name of a class, got nothing; copy the file",
    ),
    "mixed labels": (
        {"000003.cls": b"hat"},
        r"expected numbers or names as labels, got both \(0, 'hat'\); use one of them$",
    ),
    "unknown label": (
        {"000003.cls": b"7"},
        r"set.tar/000003: label 7 is none of the 2 classes; correct it or `names:`; ",
    ),
    "long label": (
        {"000003.cls": b"1" * 1025},
        r"set.tar/000003.cls: expected at most 1024 bytes, got 1,025; copy the file",
    ),
    "label of other bytes": (
        {"000003.cls": b"h\xfct"},
        r"set.tar/000003.cls: expected UTF-8, got invalid start byte; copy the file",
    ),
    "label beyond the images": (
        {"000003.cls": b"999999999999999"},
        r"expected labels below 6, the number of images, got 999999999999999; correct it, or set",
    ),
    "second dot": (
        {"000003.cls": b"1", "a/img_1.5x.jpg": b"x", "a/img_1.5x.cls": b"1"},
        r"set.tar/a/img_1: expected one dot, .* got a/img_1.5x.jpg; rename it and its label$",
    ),
    "negative label": (
        {"000003.cls": b"-1"},
        r"set.tar/000003: label -1 is none of the 2 classes; ",
    ),
}


@pytest.mark.parametrize("change", BAD_MEMBERS)
def test_a_bad_sample_is_one_sentence_with_its_place(tmp_path: Path, change: str) -> None:
    members, sentence = BAD_MEMBERS[change]
    sound = {name: content for name, content in pairs(6).items() if name != "000003.cls"}
    photos.write_tar(tmp_path / "set.tar", sound | members)
    names = ["hat", "shoe"] if "none of the 2" in sentence else None
    with pytest.raises(StageError, match=f"^data.webdataset: .*{sentence}") as error:
        image_sources.images(tars(tmp_path, names=names))
    assert "\n" not in str(error.value)


def test_a_label_without_an_image_is_an_error(tmp_path: Path) -> None:
    sound = {name: content for name, content in pairs(6).items() if name != "000003.jpg"}
    photos.write_tar(tmp_path / "set.tar", sound)
    with pytest.raises(StageError, match=r"set.tar/000003: expected .* got a label alone; "):
        image_sources.images(tars(tmp_path))


def test_two_samples_of_one_key_are_an_error(tmp_path: Path) -> None:
    file = photos.write_tar(tmp_path / "set.tar", pairs(6))
    with tarfile.open(file, "a") as tar:
        tar.addfile(tarfile.TarInfo("000003.cls"), io.BytesIO())
    with pytest.raises(
        StageError,
        match=r"set.tar/000003: expected one image and one label of a key, got 000003.cls and 000003.cls",
    ):
        image_sources.images(tars(tmp_path))


CUTS = {
    "in a photo": (7, 700, r"expected a uncompressed tar archive, got none \(unexpected end"),
    "between two": (
        6,
        0,
        r"expected an empty block at its end, got a tar that is cut off; copy the",
    ),
    "in a header": (
        6,
        100,
        r"expected an empty block at its end, got a tar that is cut off; copy the",
    ),
    "at the start": (0, 100, r"expected a uncompressed tar archive, got none \("),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_tar_that_is_cut_off_is_an_error(tmp_path: Path, cut: str) -> None:
    member, more, sentence = CUTS[cut]
    file = photos.write_tar(tmp_path / "set.tar", pairs(6))
    with tarfile.open(file) as tar:
        end = tar.getmembers()[member].offset + more
    file.write_bytes(file.read_bytes()[:end])
    with pytest.raises(StageError, match=f"^data.webdataset: .*set.tar: {sentence}"):
        image_sources.images(tars(tmp_path))


BAD_FOLDERS = [
    ([], r"holds no .tar file; give the folder of the .tar files, unpacked$"),
    (["a.tar.gz", "b.tar.gz"], r"holds no .tar file, but 2 .tar.gz files; give"),
    (["train.tar", "other.tar"], r"other.tar/000000 is in a file without a split's name beside"),
    (["val.tar", "test.tar"], r"files of test, validation but none of train; name"),
]


@pytest.mark.parametrize(("names", "sentence"), BAD_FOLDERS)
def test_a_folder_without_a_readable_set_is_an_error(
    tmp_path: Path, names: list[str], sentence: str
) -> None:
    for name in names:
        photos.write_tar(tmp_path / name, pairs(4))
    with pytest.raises(StageError, match=f"^data.webdataset: .*{sentence}"):
        image_sources.images(tars(tmp_path))
    with pytest.raises(
        StageError, match=r"^data.parquet: .*nowhere is not a folder; put the files"
    ):
        image_sources.images(tables(tmp_path / "nowhere"))


# Parquet


def test_parquet_files_as_hugging_face_writes_them(tmp_path: Path) -> None:
    """data/train-00000-of-00002.parquet ..., with the names of the classes in the metadata."""
    feature = {"label": {"names": ["hat", "shoe"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": feature}})}
    for k in range(2):
        file = tmp_path / f"data/train-{k:05d}-of-00002.parquet"
        write_table(file, 10, 10 * k, metadata=metadata)
    write_table(tmp_path / "data/test-00000-of-00001.parquet", 6, 20)
    splits, labels = image_sources.images(tables(tmp_path, validation=4))
    assert labels == ["hat", "shoe"]
    assert [len(splits[split]) for split in ("train", "validation", "test")] == [16, 4, 6]
    for sample in (s for rows in splits.values() for s in rows):
        name, _, row = sample.id.rpartition("#")
        seed = int(row) + (20 if "test" in name else 10 * int(name.split("-")[1]))
        assert sample.open() == photos.jpeg(seed) and sample.label == seed % 2
        assert sample.encoded()[1] == ".jpg"


def told(names: Any) -> dict[str, str]:
    """Return the metadata in which `datasets` names classes."""
    return {"huggingface": json.dumps({"info": {"features": names}})}


def test_parquet_files_that_name_other_classes_are_an_error(tmp_path: Path) -> None:
    for k, names in enumerate((["hat", "shoe"], ["shoe", "hat"])):
        metadata = told({"label": {"names": names}})
        write_table(tmp_path / f"{k}.parquet", 10, 10 * k, metadata=metadata)
    with pytest.raises(
        StageError,
        match=r"^data.parquet: 0.parquet names the classes hat, shoe, 1.parquet shoe, hat; write",
    ):
        image_sources.images(tables(tmp_path))
    assert image_sources.images(tables(tmp_path, names=["a", "b"]))[1] == ["a", "b"]


def test_features_that_are_null_name_no_class(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", 20, metadata=told(None))
    assert image_sources.images(tables(tmp_path))[1] == ["0", "1"]


def test_a_second_image_of_a_sample_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its mask, and a photo of another size whose name has a second dot: img_1.5x.jpg."""
    masks = {f"{k:06d}.mask.png": b"x" for k in range(12)}
    photos.write_tar(tmp_path / "a.tar", pairs(12) | masks)
    photos.write_tar(
        tmp_path / "b.tar", {"img_1.jpg": b"x", "img_1.cls": b"0", "img_1.5x.jpg": b"x"}
    )
    splits, _ = image_sources.images(tars(tmp_path))
    assert sum(map(len, splits.values())) == 13
    assert capsys.readouterr().err.splitlines() == [
        "left out: 13 images with a second dot in the name, beside an image of its key; the first:"
        " a.tar/000000.mask.png"
    ]


def test_the_bytes_of_a_row_are_those_of_the_file_by_its_rows(tmp_path: Path) -> None:
    write_table(tmp_path / "a.parquet", 20)
    found = packed_sources.read_parquet(tmp_path / "a.parquet", "a", "label").rows
    (size,) = shard_writer.estimate_bytes([Sample("a", found[0][1], 0)], None)
    assert size == (tmp_path / "a.parquet").stat().st_size // 20 + 2048


def test_labels_of_parquet_may_be_words(tmp_path: Path) -> None:
    images = [{"bytes": photos.jpeg(k)} for k in range(12)]
    words = ["shoe" if k % 2 else "hat" for k in range(12)]
    pq.write_table(pa.table({"image": images, "kind": words}), tmp_path / "a.parquet")
    spec = tables(tmp_path / "a.parquet", label="kind", validation=2, test=2)
    splits, labels = image_sources.images(spec)
    assert labels == ["hat", "shoe"]
    assert all(sample.label == int(sample.id.rpartition("#")[2]) % 2 for sample in splits["train"])


def bad_table(path: Path, change: str) -> None:
    images = [{"bytes": photos.jpeg(k)} for k in range(6)]
    labels: list[Any] = [k % 2 for k in range(6)]
    if change == "null":
        labels[3] = None
    if change == "other kind":
        labels = [k / 2 for k in range(6)]
    columns = {"image": images, "other" if change == "no column" else "label": labels}
    if change == "no image":
        del columns["image"]
    pq.write_table(pa.table(columns), path)
    if change == "cut off":
        path.write_bytes(path.read_bytes()[:300])


BAD_TABLES = {
    "null": r"a.parquet#3: expected a label in 'label', got null; ",
    "other kind": r"expected indices or names in 'label', got double; set `label:` to the column",
    "no column": r"a column 'label' of labels, got image, other; set `label:` to the column of .*$",
    "no image": r"a.parquet: expected one column `bytes` that holds image files, got label; ",
    "cut off": r"a.parquet: the file cannot be read: ",
}


@pytest.mark.parametrize("change", BAD_TABLES)
def test_a_bad_parquet_file_is_one_sentence_with_its_place(tmp_path: Path, change: str) -> None:
    bad_table(tmp_path / "a.parquet", change)
    with pytest.raises(StageError, match=f"^data.parquet: .*{BAD_TABLES[change]}") as error:
        image_sources.images(tables(tmp_path))
    assert "\n" not in str(error.value)


# both, as training data


@pytest.mark.parametrize("kept", ["array", "shards"])
@pytest.mark.parametrize("kind", ["webdataset", "parquet"])
def test_packed_images_are_training_data_in_either_layout(
    tmp_path: Path, kind: str, kept: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    if kind == "webdataset":
        photos.write_tar(tmp_path / "set/a.tar", pairs(30))
        spec: Any = tars(tmp_path / "set", validation=6, test=6)
    else:
        write_table(tmp_path / "set/a.parquet", 30)
        spec = tables(tmp_path / "set", validation=6, test=6)
    recipe = ImageData(set="set", spec=spec, layout=kept, **photos.SETTINGS)  # type: ignore[arg-type]
    made, samples = prepare.make(recipe, tmp_path / "work")
    assert [made.about[split] for split in ("train", "validation", "test")] == [18, 6, 6]

    def seed(sample: Sample) -> int:
        return int(sample.id.replace("#", "/").rpartition("/")[2])

    expected = [read_image(photos.jpeg(seed(s)), recipe.image_rule) for s in samples["train"]]
    if made.shards:
        order = np.argsort(made.shards.key).tolist()
        got = [made.shards.decode(k, recipe.image_rule) for k in order]
        assert made.shards.read(0) == photos.jpeg(seed(samples["train"][made.shards.key[0]]))
    else:
        got = list(made.x["train"])
    np.testing.assert_array_equal(got, expected)
    folder = tmp_path / "data/raw"
    folder.mkdir(parents=True)
    from pipeline.data.tasks import TASKS

    TASKS["classification"].write_raw(folder, made, samples)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) == 6
    assert {f.read_bytes() for f in files} == {photos.jpeg(seed(s)) for s in samples["test"]}
    names = json.loads((tmp_path / "data/test_names.json").read_text())
    assert names == [sample.id for sample in samples["test"]]


def test_a_broken_image_in_a_tar_is_named(tmp_path: Path) -> None:
    members = pairs(12) | {"000003.jpg": b"no image"}
    photos.write_tar(tmp_path / "a.tar", members)
    recipe = ImageData(set="set", spec=tars(tmp_path), **photos.SETTINGS)
    with pytest.raises(
        StageError, match=r"^data: a.tar/000003: expected an image, got bytes of no known image"
    ):
        prepare.make(recipe)


def test_a_broken_image_is_named_where_a_camera_decodes_it(tmp_path: Path) -> None:
    file = photos.write_tar(tmp_path / "a.tar", pairs(12) | {"000003.jpg": b"no image"})
    with pytest.raises(
        StageError, match=r"^data: a.tar/000003: expected an image, .*; repair or remove the file$"
    ):
        image_sources.images(tars(tmp_path, camera=Camera(noise=1.0)))
    splits, _ = image_sources.images(tars(tmp_path))
    file.write_bytes(file.read_bytes()[:600])
    with pytest.raises(StageError, match=r"^data: a.tar/0000\d\d: the archive is damaged: "):
        image_sources.pictured(splits, Camera(noise=1.0), 0, (0, 0, 0))


def test_rows_of_parquet_are_mixed_by_a_few_row_groups_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shard's rows come from few groups, each of which is decompressed once for it."""
    write_table(tmp_path / "a.parquet", 60)  # 15 groups
    found = packed_sources.read_parquet(tmp_path / "a.parquet", "a", "label").rows
    samples = [Sample(id, image, 0) for id, image, _ in found]
    whole = shard_writer.mixed(samples, 0)
    assert sorted(whole) == list(range(60)) and (np.diff(whole) != 1).sum() > 40
    monkeypatch.setattr(shard_writer, "ROW_GROUPS", 3)
    order = shard_writer.mixed(samples, 0)
    assert sorted(order) == list(range(60))
    for k in range(0, 60, 12):
        assert len({k // 4 for k in order[k : k + 12].tolist()}) == 3
    assert (shard_writer.mixed(samples, 1) != order).any()


def test_a_png_in_parquet_keeps_its_format(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(file, "PNG")
    table = pa.table({"bytes": [file.getvalue()] * 8, "label": [0, 1] * 4})
    pq.write_table(table, tmp_path / "a.parquet")
    splits, _ = image_sources.images(tables(tmp_path, validation=2, test=2))
    assert splits["train"][0].encoded() == (file.getvalue(), ".png")
