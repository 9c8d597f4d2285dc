"""A training split in shards: what is written, what is read, and what happens when it goes wrong."""

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import photos
import pytest
from convline.errors import InputError
from convline.images.decode import read_image
from PIL import Image
from recipes import ROOT
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.core.errors import StageError
from pipeline.data import __main__ as data_main
from pipeline.data import dataset, image_arrays, layout, prepare, shard_writer
from pipeline.data.shards import ShardIndex
from pipeline.data.splits import Sample
from pipeline.data.tasks import classification
from pipeline.params.schema import DataPart, ImageData


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write in this process, where tests can look: to start two takes a second."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})


@pytest.fixture
def recipe(tmp_path: Path) -> ImageData:
    root = photos.photo_folders(tmp_path / "photos", {"hat": 20, "shoe": 20})
    return photos.folder_recipe(root, layout="shards")


def shard_times(work: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted((work / "shards").glob("*.tar"))}


def damage(path: Path) -> None:
    path.write_bytes(b"no image")


@pytest.mark.parametrize("standardise", ["channel", "pixel", "mean", "imagenet"])
def test_shards_hold_what_the_arrays_hold(
    recipe: ImageData, tmp_path: Path, standardise: str
) -> None:
    """The oracle is the array layout: pixels, labels, counts and statistics are equal bit for bit."""
    recipe = recipe.updated(standardise=standardise)
    made, samples = prepare.make(recipe, tmp_path / "work")
    array, same = prepare.make(recipe.updated(layout="array"), tmp_path / "none")
    assert made.shards and not array.shards and not (tmp_path / "none").exists()
    assert len(made.shards.names) >= 3
    order = np.argsort(made.shards.key)
    pixels = np.stack([made.shards.decode(k, recipe.image_rule) for k in order.tolist()])
    np.testing.assert_array_equal(pixels, array.x["train"])
    np.testing.assert_array_equal(made.shards.label[order], array.y["train"])
    for split in ("validation", "test"):
        np.testing.assert_array_equal(made.x[split], array.x[split])
        np.testing.assert_array_equal(made.y[split], array.y[split])
    np.testing.assert_array_equal(made.mean, array.mean)
    np.testing.assert_array_equal(made.scale, array.scale)
    assert made.about["layout"] == "shards" and "layout" not in array.about
    changed = {"layout", "shards", "hash"}
    assert {k: v for k, v in made.about.items() if k not in changed} == {
        k: v for k, v in array.about.items() if k not in changed
    }
    assert {k: [s.id for s in v] for k, v in samples.items()} == {
        k: [s.id for s in v] for k, v in same.items()
    }


def test_a_shard_holds_the_photos_own_bytes_in_mixed_order(tmp_path: Path) -> None:
    data = photos.sharded(tmp_path)
    assert data.shards
    known = {
        path.read_bytes(): f"{path.parent.name}/{path.name}"
        for path in (tmp_path / "photos").rglob("*.jpg")
    }
    for sample in range(len(data.shards)):
        place = data.shards.place(sample)
        assert place.endswith(f"({known[data.shards.read(sample)]})"), place
        assert place.startswith(str(tmp_path / "data/shards/0000"))
    labels = [data.shards.label[data.shards.samples_of(k)] for k in range(len(data.shards.names))]
    assert sum(map(len, labels)) == len(data.shards) == data.about["train"] == 24
    assert sum(len(set(part.tolist())) == 2 for part in labels) >= len(labels) - 1  # classes mixed


def test_webdataset_reads_the_shards(tmp_path: Path) -> None:
    """The oracle is the library whose layout it is."""
    shards = photos.sharded(tmp_path).shards
    assert shards
    read = []
    for name in shards.names:
        with (shards.folder / name).open("rb") as stream:
            url = {"url": name, "stream": stream}
            rows = group_by_keys(tar_file_expander([url]))
            read += [(row["__key__"], row["jpg"], int(row["cls"])) for row in rows]
    assert read == [
        (f"{shards.key[k]:09d}", shards.read(k), int(shards.label[k])) for k in range(len(shards))
    ]


def test_the_seed_alone_decides_which_photo_is_in_which_shard(
    recipe: ImageData, tmp_path: Path
) -> None:
    made = [
        prepare.make(recipe.updated(spec={"seed": seed}), tmp_path / str(k))[0]
        for k, seed in enumerate((0, 0, 1))
    ]
    first, again, other = (data.about["hash"] for data in made)
    assert first == again != other


@pytest.mark.slow  # starts processes
def test_several_processes_write_the_same_bytes(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = prepare.make(recipe, tmp_path / "one")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    two, _ = prepare.make(recipe, tmp_path / "two")
    assert one.about == two.about
    for name in ("index.npz", "index.json", "ids.txt", "000001.tar"):
        files = (tmp_path / k / "shards" / name for k in ("one", "two"))
        assert len({file.read_bytes() for file in files}) == 1, name


def test_the_stage_leaves_the_shards_and_no_other_file(
    recipe: ImageData, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (workspace / "out/params/tiny").mkdir(parents=True)
    block = DataPart(data=recipe).model_dump_json()
    (workspace / "out/params/tiny/data.json").write_text(block)
    monkeypatch.setattr(sys, "argv", ["data", "tiny"])
    data_main.main()
    folder = workspace / "out/tiny/data"
    names = {path.name for path in (folder / "shards").iterdir()}
    loaded = dataset.load("tiny")
    assert loaded.shards and names == {"index.json", "index.npz", "ids.txt", *loaded.shards.names}
    assert not list((workspace / "out/checkpoints").iterdir())
    assert loaded.x["train"].shape == (24, 8, 8, 3)  # the sample: fewer than 512 are all
    np.testing.assert_array_equal(loaded.y["train"], loaded.shards.label)
    raw = (folder / "raw.csv").read_text().splitlines()
    assert len(raw) == 1 + loaded.about["test"]


@pytest.mark.parametrize("place", ["arrays", "raw files"])
def test_a_full_disk_at_the_end_leaves_the_shards_alone(
    recipe: ImageData, workspace: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (workspace / "out/params/tiny").mkdir(parents=True)
    block = DataPart(data=recipe).model_dump_json()
    (workspace / "out/params/tiny/data.json").write_text(block)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "argv", ["data", "tiny"])
    if place == "arrays":
        monkeypatch.setattr(np, "save", full)
    else:
        monkeypatch.setattr(classification, "write_raw_files", full)
    with pytest.raises(OSError, match="No space left"):
        data_main.main()
    assert not list((workspace / "out/tiny").iterdir())
    assert not (workspace / "results").exists()
    assert shard_times(workspace / "out/checkpoints/tiny@shards")  # for the next run


def test_an_index_is_pickled_without_its_names(tmp_path: Path) -> None:
    """What a worker of the loader gets: arrays, no open file."""
    shards = photos.sharded(tmp_path).shards
    assert shards
    again = pickle.loads(pickle.dumps(shards))
    assert again.read(3) == shards.read(3) and again.place(3) == shards.place(3)
    assert b"hat/0" not in pickle.dumps(shards)


# sizes


def test_a_photo_beyond_the_longest_side_is_scaled_down(tmp_path: Path) -> None:
    """80 x 40 becomes 20 x 10; a small one keeps its bytes, also where it stands upright by EXIF."""
    root = photos.photo_folders(tmp_path / "photos", {"hat": 4, "shoe": 4})
    for k, name in enumerate(("hat", "shoe")):
        (root / name / "wide.jpg").write_bytes(photos.jpeg(90 + k, (80, 40)))
        turned = Image.open(io.BytesIO(photos.jpeg(95 + k, (80, 40))))
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(root / name / "turned.jpg", exif=exif)
    recipe = photos.folder_recipe(root, layout="shards", longest_side=20, shard_mb=1)
    recipe = recipe.updated(spec={"validation": 2, "test": 2})
    shards = prepare.make(recipe, tmp_path / "work")[0].shards
    assert shards
    for k in range(len(shards)):
        name = shards.place(k).rpartition("(")[2].rstrip(")")
        content = shards.read(k)
        size = Image.open(io.BytesIO(content)).size
        if "wide" in name:
            assert size == (20, 10)
        elif "turned" in name:
            assert size == (10, 20)
        else:  # 24 x 16
            assert size == (20, 13)
        kept = recipe.updated(longest_side=100)
    shards = prepare.make(kept, tmp_path / "work")[0].shards
    assert shards
    for k in range(len(shards)):
        name = shards.place(k).rpartition("(")[2].rstrip(")")
        assert shards.read(k) == (root / name).read_bytes()


def test_a_scaled_photo_is_compared_as_the_others_are(tmp_path: Path) -> None:
    """Every test photo is also a training photo; what training reads is the scaled one."""
    root = photos.photo_folders(tmp_path / "photos", {"hat": 1, "shoe": 1})
    for name in ("hat", "shoe"):
        for k in range(1, 6):
            shutil.copy(root / name / "000.jpg", root / name / f"{k:03d}.jpg")
    recipe = photos.folder_recipe(root, layout="shards", longest_side=12, shard_mb=1)
    recipe = recipe.updated(spec={"validation": 1, "test": 2})  # validation has one of the two
    made, _ = prepare.make(recipe, tmp_path / "work")
    assert "2 test images equal a training or validation image" in made.about["notes"][0]
    assert made.shards
    read = [made.shards.decode(k, recipe.image_rule) for k in range(len(made.shards))]
    np.testing.assert_allclose(made.mean[:, 0, 0], np.mean(read, (0, 1, 2)), rtol=1e-6)


@pytest.mark.parametrize("longest", [None, 12])
def test_a_photo_too_large_to_be_read_from_a_tar_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest: int | None
) -> None:
    monkeypatch.setattr(shard_writer, "MAX_BYTES", 500)
    settings = shard_writer.Settings(photos.folder_recipe(tmp_path).image_rule, "n", longest, None)
    if longest:  # becomes small
        assert shard_writer.stored(photos.jpeg(1), ".jpg", settings)[1] == ".jpg"
    else:
        with pytest.raises(InputError, match="expected at most 500 bytes of a photo in a shard"):
            shard_writer.stored(photos.jpeg(1), ".jpg", settings)


def test_pictures_in_memory_become_png(tmp_path: Path) -> None:
    from pipeline.params.schema import DigitsSet

    spec = DigitsSet(source="digits", validation=1000, test=700, classes=["0", "1"])
    spec = spec.updated(validation=300)
    recipe = ImageData(set="digits", spec=spec, size=(8, 8), colour="grey", layout="shards")
    made, _ = prepare.make(recipe, tmp_path / "work")
    array, _ = prepare.make(recipe.updated(layout="array"))
    assert made.shards
    order = np.argsort(made.shards.key).tolist()
    pixels = np.stack([made.shards.decode(k, recipe.image_rule) for k in order])
    np.testing.assert_array_equal(pixels, array.x["train"])
    with tarfile.open(made.shards.folder / "000000.tar") as tar:
        assert tar.getnames()[0].endswith(".png")


# runs that were stopped, and disks that are full


def test_a_stopped_run_continues_with_the_shards_that_are_missing(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = prepare.make(recipe, tmp_path / "whole")
    real, calls = shard_writer.write_shard, []

    def stopped(job: shard_writer.Job) -> None:
        calls.append(job)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(job)

    monkeypatch.setattr(shard_writer, "write_shard", stopped)
    with pytest.raises(KeyboardInterrupt):
        prepare.make(recipe, tmp_path / "work")
    before = shard_times(tmp_path / "work")
    assert len(before) == 2
    (tmp_path / "work/shards/000002.part.tar").write_bytes(b"half a shard")
    made, _ = prepare.make(recipe, tmp_path / "work")
    assert shard_times(tmp_path / "work").items() >= before.items()
    assert made.about == whole.about
    np.testing.assert_array_equal(made.mean, whole.mean)
    names = {path.name for path in (tmp_path / "work/shards").iterdir()}
    assert names == {path.name for path in (tmp_path / "whole/shards").iterdir()}


@pytest.mark.parametrize("change", ["bytes", "photo", "size", "plan", "empty plan", "half a plan"])
def test_a_shard_that_is_not_what_it_should_be_is_written_again(
    recipe: ImageData, tmp_path: Path, change: str
) -> None:
    work = tmp_path / "work"
    prepare.make(recipe, work)
    before = shard_times(work)
    stale = set(before)
    if change == "bytes":
        content = bytearray((work / "shards/000001.tar").read_bytes())
        content[600] ^= 1
        (work / "shards/000001.tar").write_bytes(content)
        before, stale = shard_times(work), {"000001.tar"}
    elif change == "photo":
        with tarfile.open(work / "shards/000002.tar") as tar:
            key = int(tar.getnames()[0].partition(".")[0])
        name = (work / "shards/ids.txt").read_text().splitlines()[key]
        (tmp_path / "photos" / name).write_bytes(photos.jpeg(999))
        stale = {"000002.tar"}
    elif change == "size":
        recipe = recipe.updated(size=(6, 6))
    else:
        part = work / "parts/000000.npz"
        whole = part.read_bytes()
        cut = {"plan": b"cut off", "empty plan": b"", "half a plan": whole[: len(whole) // 2]}
        part.write_bytes(cut[change])
        stale = {"000000.tar"}
    prepare.make(recipe, work)
    after = shard_times(work)
    assert {name for name in before if before[name] != after[name]} == stale


def test_a_disk_without_room_is_refused_before_anything_is_written(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=20_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(
        StageError, match=r"work: expected 0.0\d GB for the shards, got 0.00 GB free on its disk; "
    ):
        prepare.make(recipe, tmp_path / "work")
    assert not list((tmp_path / "work/shards").iterdir())


FILL = """
import resource, signal, sys
from pathlib import Path
import photos
from pipeline.core.errors import StageError
from pipeline.data import prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
root = Path(sys.argv[1])
try:
    prepare.make(photos.folder_recipe(root / "photos", layout="shards", shard_mb=1), root / "work")
except StageError as error:
    print(error)
"""


def test_a_disk_that_fills_leaves_nothing_half_written(recipe: ImageData, tmp_path: Path) -> None:
    """The kernel stops the file in the middle of a shard, as a quota does."""
    command = [sys.executable, "-c", FILL, str(tmp_path), "15000"]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "serve")))
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout == (
        f"data: {tmp_path}/work: expected room for the shards, got a full disk (File too large);"
        " free some space or set data.longest_side; finished shards are kept\n"
    ), done.stderr
    assert not [path for path in (tmp_path / "work").rglob("*") if path.is_file()]


# writers that die


@pytest.mark.slow  # starts processes
def test_a_writer_that_dies_is_one_sentence_with_the_sample(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    settings = shard_writer.Settings(recipe.image_rule, "channel", None, None)
    files = sorted((tmp_path / "photos/hat").iterdir())
    samples = [Sample(file.name, file, 0) for file in files]
    samples[7] = replace(samples[7], image=photos.Deadly(str(files[7]), "x", 0, 1, 1))
    (tmp_path / "shards").mkdir()
    (tmp_path / "parts").mkdir()
    jobs = [
        shard_writer.Job(tmp_path / f"shards/{k}.tar", list(range(10)), part, settings)
        for k, part in enumerate((samples[:10], samples[10:]))
    ]
    with pytest.raises(
        StageError, match=r"data: a process that writes shards was ended by a signal at .*007.jpg"
    ) as error:
        shard_writer.write_jobs(jobs, None)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.rglob("*.part*"))


def test_the_sample_is_named_by_the_last_number_in_the_file(
    recipe: ImageData, tmp_path: Path
) -> None:
    """Of 10 samples 0 was skipped, and 1 to 3 are in the file."""
    settings = shard_writer.Settings(recipe.image_rule, "channel", None, None)
    samples = [Sample(f"photo {k}", tmp_path, 0) for k in range(10)]
    job = shard_writer.Job(tmp_path / "0.tar", list(range(20, 30)), samples, settings)
    members = {f"{k:09d}.{kind}": b"1" for k in (21, 22, 23) for kind in ("jpg", "cls")}
    photos.write_tar(job.unfinished, members)
    assert " at photo 4 (" in str(shard_writer.writer_ended([job]))


# bad images and damaged shards


def test_an_image_that_cannot_be_decoded_is_an_error_with_its_place(
    recipe: ImageData, tmp_path: Path
) -> None:
    for name in ("hat", "shoe"):
        for k in range(20):
            if k % 2:
                damage(tmp_path / f"photos/{name}/{k:03d}.jpg")
    with pytest.raises(
        StageError, match=r"^data: (hat|shoe)/\d+.jpg: expected an image, .*; repair or remove"
    ) as error:
        prepare.make(recipe, tmp_path / "work")
    assert "\n" not in str(error.value) and not list((tmp_path / "work").rglob("*.part*"))


@pytest.mark.parametrize("kept", ["array", "shards"])
def test_images_that_cannot_be_decoded_are_skipped_and_counted(
    recipe: ImageData, tmp_path: Path, kept: str
) -> None:
    """Of each split one; what is left is what a folder without them gives."""
    _, samples = prepare.make(recipe.updated(layout="array"))
    for split in dataset.SPLITS:
        damage(tmp_path / "photos" / samples[split][1].id)
    skipping = recipe.updated(layout=kept, on_undecodable="skip", max_skipped=0.1)
    made, left = prepare.make(skipping, tmp_path / "work")
    assert [made.about[split] for split in dataset.SPLITS] == [23, 7, 7] and made.about[
        "skipped"
    ] == 3
    (note,) = made.about["notes"]
    assert note.startswith("left out: 3 images that cannot be decoded; the first: ")
    assert {k: [s.id for s in v] for k, v in left.items()} == {
        k: [s.id for j, s in enumerate(v) if j != 1] for k, v in samples.items()
    }
    for split in ("validation", "test"):
        expected = [read_image(sample.open(), recipe.image_rule) for sample in left[split]]
        np.testing.assert_array_equal(made.x[split], expected)
        assert made.y[split].tolist() == [sample.label for sample in left[split]]
    assert sum(made.about["balance"]["train"].values()) == 23
    if made.shards:
        assert len(made.shards) == 23
        for k in range(23):
            assert samples["train"][made.shards.key[k]].id in made.shards.place(k)


@pytest.mark.parametrize("kept", ["array", "shards"])
def test_too_many_skipped_images_are_an_error(recipe: ImageData, tmp_path: Path, kept: str) -> None:
    damage(tmp_path / "photos/hat/003.jpg")
    skipping = recipe.updated(layout=kept, on_undecodable="skip")
    with pytest.raises(
        StageError,
        match=r"^data: at least 1 of 40 images cannot be decoded, hat/003.jpg \(.*\) among them;"
        r" repair or remove them, or raise data.max_skipped, which is 0.01$",
    ):
        prepare.make(skipping, tmp_path / "work")


@pytest.mark.parametrize("kept", ["array", "shards"])
def test_no_image_is_decoded_once_too_many_are_skipped(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    """Every image is damaged; of 40 one may be left out, so the second one ends it."""
    for file in (tmp_path / "photos").rglob("*.jpg"):
        damage(file)
    tried, real = list[object](), image_arrays.read_image

    def read(*arguments: Any) -> Any:
        tried.append(arguments)
        return real(*arguments)

    monkeypatch.setattr(image_arrays, "read_image", read)
    monkeypatch.setattr(shard_writer, "read_image", read)
    skipping = recipe.updated(layout=kept, on_undecodable="skip", max_skipped=0.025)
    with pytest.raises(StageError, match=r"^data: at least 2 of 40 images cannot be decoded, "):
        prepare.make(skipping, tmp_path / "work")
    assert len(tried) == 2 and not [*tmp_path.glob("work/shards/*.part.tar")]


@pytest.mark.parametrize("kept", ["array", "shards"])
def test_a_split_without_an_image_that_can_be_decoded_is_an_error(
    recipe: ImageData, tmp_path: Path, kept: str
) -> None:
    _, samples = prepare.make(recipe.updated(layout="array"))
    for sample in samples["test"]:
        damage(tmp_path / "photos" / sample.id)
    skipping = recipe.updated(layout=kept, on_undecodable="skip", max_skipped=0.5)
    with pytest.raises(StageError, match=r"^data: none of the 8 test images can be decoded; "):
        prepare.make(skipping, tmp_path / "work")


def test_a_shard_that_is_cut_off_or_missing_is_an_error(tmp_path: Path) -> None:
    shards = photos.sharded(tmp_path).shards
    assert shards
    file = shards.folder / "000001.tar"
    whole = file.read_bytes()
    file.write_bytes(whole[:5000])
    with pytest.raises(
        StageError,
        match=r"000001.tar: expected [\d,]+ bytes, got 5,000: it is cut off or missing; ",
    ):
        ShardIndex.load(shards.folder)
    with pytest.raises(
        StageError, match=r"000001.tar/\d{9} \((hat|shoe)/\d+.jpg\): the archive is"
    ):
        shards.read(shards.samples_of(1)[-1])
    file.unlink()
    with pytest.raises(
        StageError, match=r"000001.tar: expected .* got 0: it is cut off or missing"
    ):
        ShardIndex.load(shards.folder)
    index = (shards.folder / "index.npz").read_bytes()
    for content in (b"", index[: len(index) // 2]):
        (shards.folder / "index.npz").write_bytes(content)
        with pytest.raises(StageError, match=r"shards: the index of the shards: .*; run stage"):
            ShardIndex.load(shards.folder)
    (shards.folder / "index.npz").unlink()
    with pytest.raises(StageError, match=r"shards: the index of the shards: .*index.npz"):
        ShardIndex.load(shards.folder)


def test_a_damaged_photo_in_a_shard_is_an_error_with_its_place(tmp_path: Path) -> None:
    data = photos.sharded(tmp_path)
    shards = data.shards
    assert shards
    with (shards.folder / shards.names[0]).open("r+b") as file:
        file.seek(int(shards.start[2]))
        file.write(bytes(64))
    rule = photos.folder_recipe(tmp_path).image_rule
    with pytest.raises(
        StageError, match=r"000000.tar/\d+ \((hat|shoe)/\d+.jpg\): expected an image, .*; run stage"
    ):
        shards.decode(2, rule)


def test_shards_of_another_format_are_an_error(tmp_path: Path) -> None:
    shards = photos.sharded(tmp_path).shards
    assert shards
    about = json.loads((shards.folder / "index.json").read_text())
    (shards.folder / "index.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(StageError, match="expected shards of format 1, got 99; run stage data"):
        ShardIndex.load(shards.folder)


# auto


def test_auto_takes_shards_where_the_arrays_exceed_a_quarter_of_the_memory(
    recipe: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """40 images of 8 x 8 x 3 are 7,680 bytes."""
    auto = recipe.updated(layout="auto")
    monkeypatch.setattr(layout, "memory_limit", lambda: 4 * 7680)
    assert prepare.make(auto, tmp_path / "work")[0].shards is None
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(layout, "memory_limit", lambda: 4 * 7680 - 1)
    assert prepare.make(auto, tmp_path / "work")[0].shards
    assert capsys.readouterr().err == (
        "layout: shards, since 40 images of 8 x 8 x 3 are 0.0 GiB, more than 25% of 0.0 GiB of memory\n"
    )
    assert prepare.make(auto)[0].shards is None  # of a study


def test_the_memory_of_a_container_is_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(layout, "CGROUP_LIMIT", limit)
    whole = layout.memory_limit()
    assert whole > 2**28
    limit.write_text("max\n")
    assert layout.memory_limit() == whole
    limit.write_text("1000000\n")
    assert layout.memory_limit() == 1_000_000
