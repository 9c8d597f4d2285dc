"""Stage data: arrays, statistics of the training split alone, and results/<entry>/data.json."""

import csv
import json
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convline.images.decode import read_image
from convline.model_file.document import ImageRule
from convline.timeseries.series import read_csv
from PIL import Image
from recipes import IMAGE_RECIPE, SERIES_RECIPE, SETS

from pipeline.core.errors import StageError
from pipeline.data import __main__ as data_main
from pipeline.data import dataset, image_arrays, image_sources, prepare, series_sources
from pipeline.data.normalization import image_statistics
from pipeline.data.splits import Sample
from pipeline.data.tasks import forecasting

Resolve = Callable[..., dict[str, Any]]


def test_channel_statistics(resolved: Resolve) -> None:
    """numpy's mean and std of the training pixels; 1e-4 is added to the std."""
    made, _ = prepare.make(resolved(IMAGE_RECIPE).data)
    x = made.x["train"].astype(np.float64)
    assert made.mean.shape == made.scale.shape == (1, 1, 1)
    np.testing.assert_allclose(made.mean.item(), x.mean(), rtol=1e-6)
    np.testing.assert_allclose(made.scale.item(), 1 / (x.std() + 1e-4), rtol=1e-6)


def test_pixel_statistics_and_constant_pixels() -> None:
    """numpy in float64. A pixel that is constant in training becomes 0 for any value."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (600, 5, 4, 3), np.uint8)
    x[:, 0, 0] = 200
    mean, scale = image_statistics(x, "pixel")
    assert mean.shape == scale.shape == (3, 5, 4)
    channels_first = x.transpose(0, 3, 1, 2).astype(np.float64)
    std = channels_first.std(0)
    np.testing.assert_allclose(mean, channels_first.mean(0), rtol=1e-6)
    changing = std > 0
    np.testing.assert_allclose(scale[changing], 1 / (std[changing] + 1e-4), rtol=1e-6)
    assert changing.sum() == 3 * 19 and (scale[~changing] == 0).all()


@pytest.mark.parametrize(("kind", "scale"), [("none", 1.0), ("unit", 1 / 255)])
def test_fixed_normalizations(kind: str, scale: float) -> None:
    mean, got = image_statistics(np.full((3, 2, 2, 3), 9, np.uint8), kind)
    assert mean.shape == got.shape == (3, 1, 1)
    assert not mean.any() and (got == np.float32(scale)).all()


def test_mean_and_imagenet_normalization() -> None:
    """Grey levels minus their mean; torchvision's Normalize of images in [0, 1]."""
    x = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), np.uint8)
    mean, scale = image_statistics(x, "mean")
    np.testing.assert_allclose(mean.ravel(), x.mean((0, 1, 2)), rtol=1e-6)
    assert (scale == 1).all() and scale.shape == (3, 1, 1)
    mean, scale = image_statistics(x, "imagenet")
    expected = (x / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(
        (x.transpose(0, 3, 1, 2) - mean) * scale, expected.transpose(0, 3, 1, 2), atol=1e-5
    )


@pytest.mark.parametrize("recipe", [IMAGE_RECIPE, SERIES_RECIPE], ids=["images", "series"])
def test_statistics_see_the_training_split_alone(
    resolved: Resolve, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other splits are set to extreme values: mean and scale stay bit-equal."""
    block = resolved(recipe).data
    before, _ = prepare.make(block)

    if before.task == "classification":
        real = image_arrays.decode

        def inverted(
            samples: Any, rule: ImageRule, split: str, *more: Any
        ) -> tuple[np.ndarray, int]:
            images, flat = real(samples, rule, split, *more)
            return (images if split == "train" else 255 - images), flat

        monkeypatch.setattr(image_arrays, "decode", inverted)
    else:
        real_series = series_sources.series

        def wild(*arguments: Any) -> Any:
            parts, facts = real_series(*arguments)
            for split in ("validation", "test"):
                for one in parts[split]:
                    one.values[:] += 1e6
            return parts, facts

        monkeypatch.setattr(series_sources, "series", wild)
    after, _ = prepare.make(block)
    assert not np.array_equal(before.x["test"], after.x["test"])
    np.testing.assert_array_equal(before.mean, after.mean)
    np.testing.assert_array_equal(before.scale, after.scale)
    assert before.about["hash"] != after.about["hash"]


def test_series_statistics(resolved: Resolve) -> None:
    """numpy over the training rows, each counted once."""
    made, _ = prepare.make(resolved(SERIES_RECIPE).data)
    np.testing.assert_allclose(made.mean, made.x["train"].mean(0), rtol=1e-6)
    np.testing.assert_allclose(made.scale, 1 / made.x["train"].std(0), rtol=1e-6)


def test_an_image_in_two_splits_is_an_error(
    resolved: Resolve, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = image_sources.images

    def leaking(spec: dict[str, Any], background: list[int]) -> Any:
        splits, labels = real(spec, background)
        return {**splits, "test": [*splits["test"], splits["train"][0]]}, labels

    monkeypatch.setattr(image_sources, "images", leaking)
    with pytest.raises(StageError, match="data: a split leaks, 1 images stand in two splits"):
        prepare.make(resolved(IMAGE_RECIPE).data)


def test_finding_duplicates_needs_little_memory() -> None:
    """24 MB of images; a set of their bytes would need as much again."""
    rng = np.random.default_rng(0)
    x = {split: rng.integers(0, 256, (40, 256, 256, 3), np.uint8) for split in dataset.SPLITS}
    x["test"][7], x["test"][9] = x["train"][3], x["validation"][39]
    tracemalloc.start()
    try:
        assert image_arrays.count_twins(x) == 2
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()


def test_duplicate_pixels_are_counted_and_recorded(
    resolved: Resolve, photo_folder: Callable[..., Path]
) -> None:
    """Two files with the same pixels, one of them for testing: not the same file in two splits, but
    it is recorded.
    """
    root = photo_folder(
        {"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1, "test/a": 2, "test/b": 2}
    )
    (root / "test/a/0-00.png").write_bytes((root / "train/a/0-00.png").read_bytes())
    (root / "test/b/twin.png").write_bytes((root / "train/a/0-00.png").read_bytes())
    sets = {"mine": {"source": "folder", "path": str(root), "licence": "own"}}
    recipe = {
        "arch": "cnn1",
        "data": {"set": "mine", "size": [6, 5], "colour": "rgb"},
        "train": {"epochs": 1},
    }
    made, _ = prepare.make(resolved(recipe, sets).data)
    assert made.about["notes"] == [
        "2 test images equal a training or validation image pixel by pixel"
    ]
    assert made.about["balance"] == {
        "train": {"a": 4, "b": 4},
        "validation": {"a": 1, "b": 1},
        "test": {"a": 3, "b": 3},
    }


def table(resolved: Resolve, folder: Path, text: str, **options: Any) -> dict[str, Any]:
    (folder / "mine.csv").write_text(text)
    sets = {
        "mine": {"source": "csv", "path": str(folder / "mine.csv"), "licence": "own", **options}
    }
    recipe = {**SERIES_RECIPE, "data": {"set": "mine", "context": 5, "horizon": 3}}
    return resolved(recipe, sets).data


def test_a_constant_column_is_an_error(resolved: Resolve, tmp_path: Path) -> None:
    """Ten times .1 has a std that is not exactly 0 in floating point."""
    text = "a,b\n" + "".join(f"{i},0.1\n" for i in range(60))
    with pytest.raises(
        StageError, match="data: column 'b' never changes in the training rows; leave it out: `col"
    ):
        prepare.make(table(resolved, tmp_path, text))


def test_a_season_longer_than_the_data_is_an_error(resolved: Resolve, tmp_path: Path) -> None:
    text = "a\n" + "".join(f"{i}\n" for i in range(60))
    with pytest.raises(
        StageError,
        match="data: expected season below the 42 rows of training, got 42; lower `season:`",
    ):
        prepare.make(table(resolved, tmp_path, text, season=42))


def make_stage(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str, recipe: dict[str, Any]
) -> dict[str, Any]:
    """Run stage data on a resolved recipe, as the command does."""
    folder = workspace / "out/params" / name
    folder.mkdir(parents=True)
    (folder / "data.json").write_text(recipe.model_dump_json(include={"data"}))
    monkeypatch.setattr(sys, "argv", ["data", name])
    data_main.main()
    return json.loads((workspace / "results" / name / "data.json").read_text())


def test_the_stage_writes_images(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, resolved: Resolve
) -> None:
    """`convline` decodes the written raw files to the test arrays; loading gives what was prepared;
    a second run is equal.
    """
    recipe = resolved(
        IMAGE_RECIPE, {**SETS, "digits": {"source": "digits", "validation": 900, "test": 500}}
    )
    about = make_stage(workspace, monkeypatch, "tiny", recipe)
    loaded = dataset.load("tiny")
    made, _ = prepare.make(recipe.data)
    for split in dataset.SPLITS:
        np.testing.assert_array_equal(loaded.x[split], made.x[split])
        assert about["balance"][split] == dict(
            zip("0123456789", np.bincount(made.y[split]).tolist(), strict=True)
        )
    assert (about["train"], about["validation"], about["test"]) == (397, 900, 500)
    assert about["hash"] == made.about["hash"] and len(about["hash"]) == 64
    folder = workspace / "out/tiny/data"
    with (folder / "raw.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == image_arrays.RAW
    for row in rows[::40]:
        np.testing.assert_array_equal(
            read_image(folder / row["file"], ImageRule.from_dict(about["input"])),
            loaded.x["test"][int(row["row"])],
        )
        assert row["label"] == about["labels"][loaded.y["test"][int(row["row"])]]
    names = json.loads((folder / "test_names.json").read_text())
    assert len(names) == 500 and {row["file"] for row in rows} < set(names)
    without_file = set(range(500)) - {int(row["row"]) for row in rows}
    assert {names[row] for row in without_file} == {f"test image {row}" for row in without_file}


def test_the_names_of_test_images_are_those_of_their_files(tmp_path: Path) -> None:
    """A file keeps its own name, beyond the 400 raw files too, and a name that is not UTF-8."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    samples = [Sample(f"{i}", tmp_path / "a.png", 0, f"my/hat/{i}.png") for i in range(500)]
    samples[7] = Sample("7", tmp_path / "a.png", 0, "my/hat/\udcff.png")
    image_arrays.write_raw_files(tmp_path / "raw", samples)
    names = json.loads((tmp_path / "test_names.json").read_text(encoding="utf-8"))
    assert names[:7] + names[8:] == [f"my/hat/{i}.png" for i in range(500) if i != 7]
    assert names[7] == "my/hat/?.png"


def test_the_stage_writes_series(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, resolved: Resolve
) -> None:
    """`convline` reads from the written CSV the test histories, bit for bit."""
    about = make_stage(workspace, monkeypatch, "wave", resolved(SERIES_RECIPE))
    loaded = dataset.load("wave")
    read = read_csv(workspace / "out/wave/data/raw/series.csv", time="ds", id="unique_id")
    history = loaded.served("test")
    assert len(read.series) == len(history) == about["test"] == 260
    for one in read.series:
        np.testing.assert_array_equal(one.values.astype(np.float32), history[int(one.id)])


def test_an_unknown_entry_is_an_error(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before any params stage, and after one."""
    monkeypatch.setattr(sys, "argv", ["data", "nobody"])
    with pytest.raises(
        StageError, match=r"data: no entry 'nobody' under `line:` .* it has nothing yet: run `dvc"
    ):
        data_main.main()
    (workspace / "out/params/tiny").mkdir(parents=True)
    with pytest.raises(
        StageError, match=r"data: no entry 'nobody' under `line:` of params.yaml; it has tiny$"
    ):
        data_main.main()
    monkeypatch.setattr(sys, "argv", ["data"])
    with pytest.raises(StageError, match=r"usage: python -m pipeline.data ENTRY"):
        data_main.main()


WNIDS = ("n01440764", "n02102040", "n02979186", "n03000684", "n03028079")
WNIDS += ("n03394916", "n03417042", "n03425413", "n03445777", "n03888257")


@pytest.mark.slow  # imports torchvision
def test_labels_are_read_without_decoding_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec_of: Callable[..., dict[str, Any]]
) -> None:
    """Imagenette in torchvision's layout, made here: 10 classes of 4 and 2 images; samples are
    files.
    """
    for split, each in (("train", 4), ("val", 2)):
        for k, wnid in enumerate(WNIDS):
            for i in range(each):
                path = tmp_path / "imagenette2" / split / wnid / f"{i}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((6, 8, 3), 20 * k, np.uint8)).save(path)
    monkeypatch.setenv("DATA_ROOT", str(tmp_path))
    splits, labels = image_sources.torchvision_set(
        spec_of("torchvision", name="Imagenette", validation=10)
    )
    assert {split: len(samples) for split, samples in splits.items()} == {
        "train": 30,
        "validation": 10,
        "test": 20,
    }
    assert len(labels) == 10 and labels[0] == "tench"
    for sample in splits["test"]:
        assert isinstance(sample.image, Path) and sample.image.parent.name == WNIDS[sample.label]


def test_values_far_from_the_others_are_counted_by_split() -> None:
    """Oracle: by hand, of two series; the context of 4 rows that validation and test begin with
    counts in the split before. Zeros with a few sales have none.
    """
    rng = np.random.default_rng(0)
    x = {split: 300 + 40 * rng.standard_normal((100, 2)) for split in dataset.SPLITS}
    x["train"][:, 1] = np.where(rng.random(100) < 0.8, 0, 50)
    starts = {split: np.array([0, 60, 100]) for split in dataset.SPLITS}
    assert forecasting.count_far(["y", "z"], x, starts, 4) == {}
    x["train"][[3, 70], 0] = 1e6
    x["validation"][[3, 60, 63], 0] = -1e6  # histories of either series
    x["test"][[4, 64, 99], 0] = 1e6
    x["test"][50, 1] = 1e6
    assert forecasting.count_far(["y", "z"], x, starts, 4) == {"y": {"train": 2, "test": 3}}
    mean, deviation = forecasting.moments(x["train"])  # numpy's: nothing is left out or changed
    np.testing.assert_allclose(mean, x["train"].mean(0), rtol=1e-12)
    np.testing.assert_allclose(deviation, x["train"].std(0), rtol=1e-12)


@pytest.mark.parametrize(
    ("level", "spread", "sentence"),
    [
        (1e8, 1.0, "float32 has no digits left for values up to 1000000"),
        (1e9, 1.0, "float32 has no digits left"),
        (1e23, 1e22, "expected magnitudes of 1e-18 to 1e18, got values up to 1"),
        (0.0, 1e-42, "expected magnitudes of 1e-18 to 1e18"),
        (5e4, 1.0, None),
        (0.0, 1e15, None),
    ],
)
def test_values_that_float32_cannot_tell_apart_are_refused(
    level: float, spread: float, sentence: str | None
) -> None:
    """float32 has 24 bits: at a level of 1e8 the last one is 8, at 5e4 it is .004."""
    values = level + spread * np.random.default_rng(0).standard_normal((500, 1))
    if sentence is None:
        return forecasting.require_float32(["y"], values)
    with pytest.raises(StageError, match=f"data: column 'y': .*{sentence}"):
        forecasting.require_float32(["y"], values)
