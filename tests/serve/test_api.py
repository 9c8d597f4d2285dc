"""`import convline`: its public names, no side effects of the import, and what the models accept
and return.
"""

import hashlib
import importlib.metadata
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import convline
import numpy as np
import pandas as pd
import pytest
from convline.errors import ModelFileError
from infer_command import infer, rows_of
from PIL import Image


def test_the_public_names_are_importable_and_sorted() -> None:
    """`__all__` is sorted and importable, the version is that of the distribution, and py.typed is
    there.
    """
    assert convline.__all__ == sorted(convline.__all__)
    assert all(getattr(convline, name) is not None for name in convline.__all__)
    assert convline.__version__ == importlib.metadata.version("convline")
    assert (
        issubclass(convline.InputError, convline.ServeError)
        and convline.Forecaster.__module__ == "convline.timeseries.forecaster"
    )
    assert Path(convline.__file__).with_name("py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        convline.nonesuch  # noqa: B018


def test_a_loaded_package_states_its_variant_and_the_reason(
    classifier_bytes: bytes, tmp_path: Path
) -> None:
    """The variant is the one in the manifest that this test writes.

    A wrong hash is refused, be it the user's or the manifest's.
    """
    digest = hashlib.sha256(classifier_bytes).hexdigest()
    for file in ("model.onnx", "model.int8.onnx"):
        (tmp_path / file).write_bytes(classifier_bytes)
    files = {"model.onnx": digest, "model.int8.onnx": digest}
    (tmp_path / "manifest.json").write_text(
        json.dumps({"files": files, "recommended": {"cpu": "int8"}})
    )
    assert (
        convline.load(tmp_path, "cpu", sha256=digest.upper()).variant == "int8, recommended for cpu"
    )
    assert convline.load(tmp_path, "cpu", "fp32").variant == "fp32, as asked"
    assert convline.load(tmp_path / "model.onnx", "cpu").variant == "as in the file"
    with pytest.raises(
        ModelFileError, match=r"expected the sha256 1{64} as asked, got .* in manifest\.json"
    ):
        convline.load(tmp_path, "cpu", sha256="1" * 64)


SIDE_EFFECTS = """
import csv, os, signal, sys, threading, warnings
import numpy, PIL.Image, PIL.ImageFile
def state():
    return (
        dict(os.environ), csv.field_size_limit(), PIL.Image.MAX_IMAGE_PIXELS, PIL.ImageFile.LOAD_TRUNCATED_IMAGES,
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)], warnings.filters[:],
        threading.active_count(), sys.getrecursionlimit(), numpy.geterr(), os.getcwd(), sys.path[:],
    )
before = state()
import convline, convline.loading, convline.runtime.streaming, convline.report.evaluate, convline.jobs.image_job, convline.jobs.series_job
import convline.timeseries.predict, convline.timeseries.online, convline.cli.main
assert state() == before, [(a, b) for a, b in zip(before, state()) if a != b]
print("onnxruntime" in sys.modules)
"""


def test_the_import_changes_no_global_state(tmp_path: Path) -> None:
    """Environment, signal handlers, limits of csv and Pillow, warning filters and threads are the
    same before and after the import.
    """
    command = [sys.executable, "-W", "error", "-c", SIDE_EFFECTS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_every_kind_of_image_input_gives_the_same_prediction(
    classifier: Path, tmp_path: Path
) -> None:
    """One picture as a path, bytes, an open file, a Pillow image and arrays has one prediction.

    What is no image is an error that names it.
    """
    model = convline.load(classifier, "cpu")
    assert isinstance(model, convline.Classifier)
    array = np.full((20, 30), 120, np.uint8)
    Image.fromarray(array).save(path := tmp_path / "a.png")
    with path.open("rb") as file:
        given = [
            path,
            str(path),
            path.read_bytes(),
            file,
            Image.open(path),
            array,
            array[..., None],
        ]
        found = model.predict_proba(given)
        file.seek(0)
        assert (model.predict_proba(file) == found[:1]).all()
    assert (found == found[0]).all() and (model.predict_proba(array[..., None]) == found[:1]).all()
    for wrong, message in (
        (np.zeros((4, 4, 2), np.uint8), r"expected uint8 \(H, W\), \(H, W, 1\)"), (array / 255, "got float64"),
        (io.StringIO("text"), "opened in binary mode, got text"), ([3], "or an array, got int"),
    ):  # fmt: skip
        with pytest.raises(convline.InputError, match=message):
            model.predict_proba(wrong)


def test_one_image_starts_no_thread(classifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread pool is created for one image; several images create one."""
    model = convline.load(classifier, "cpu")
    pools = []
    monkeypatch.setattr(
        "convline.images.image_model.ThreadPoolExecutor",
        lambda count: pools.append(count) or ThreadPoolExecutor(count),
    )
    image = np.zeros((8, 8), np.uint8)
    model.predict(image)
    model.predict_table([image])
    assert pools == []
    model.predict([image, image])
    assert len(pools) == 1


def test_predict_table_equals_infer_images(classifier: Path, tmp_path: Path) -> None:
    """The rows equal those of `infer images` on the same paths.

    Images without a path are named by their position.
    """
    for n, grey in enumerate((0, 255)):
        Image.new("L", (9, 9), grey).save(tmp_path / f"{n}.png")
    (tmp_path / "1-cut.png").write_bytes(b"no image")
    paths = sorted(map(str, tmp_path.glob("*.png")))
    model = convline.load(classifier, "cpu")
    rows = model.predict_table(paths, top_k=2)
    shown = rows_of(infer("images", classifier, *paths, "--top-k", "2"))
    assert [[*row] for row in rows] == [[*row] for row in shown] and len(rows) == 3
    for row, line in zip(rows, shown, strict=True):
        for name, cell in line.items():
            assert row[name] == (
                pytest.approx(float(cell), rel=1e-5) if "score" in name and cell else cell or None
            )
    array = np.zeros((8, 8), np.uint8)
    with Path(paths[0]).open("rb") as file:
        named = model.predict_table([array, file, b"", array.astype(float)])
    assert [row["path"] for row in named] == ["image 0", paths[0], "image 2", "image 3"]
    assert [row["status"] for row in named] == [
        "ok",
        "ok",
        "error",
        "error",
    ] and "zero bytes" in str(named[2]["error"])
    assert (
        model.predict_table([]) == []
        and len(model.predict_table(np.zeros((2, 8, 8, 1), np.uint8))) == 2
    )
    with pytest.raises(ValueError, match="top_k: expected 1 to the model's 3 labels, got 4"):
        model.predict_table(array, top_k=4)


DAYS = pd.date_range("2024-03-01", periods=6, freq="D")


def frames() -> dict[str, pd.DataFrame]:
    """The same two series, the second too short, as DataFrames of many kinds."""
    base = pd.DataFrame(
        {
            "unique_id": ["a"] * 6 + ["b"] * 2,
            "ds": [*DAYS, *DAYS[:2]],
            "y": [0.5, 1, 2, 3, 4, 5, 0, 1],
        }
    )
    return {
        "plain": base,
        "text": base.assign(ds=base["ds"].dt.strftime("%Y-%m-%d"), y=base["y"].astype(str)),
        "zone": base.assign(ds=base["ds"].dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
        "dates": base.assign(ds=base["ds"].dt.date, unique_id=base["unique_id"].astype("category")),
        "nullable": base.convert_dtypes(),
        "indexed": base.set_index(["unique_id", "ds"]),
        "more": base.assign(note="x")[["y", "note", "ds", "unique_id"]],
    }


@pytest.mark.parametrize("kind", [*frames()])
def test_dataframes_are_forecast_like_csv_files(
    make_forecaster: Callable[..., Path], kind: str, tmp_path: Path
) -> None:
    """The forecast is the last value + 1, 2, 3 on the days after the last one, as `infer series`
    forecasts the CSV that pandas writes. A midnight of UTC in Tokyo is 9 o'clock, and is written
    with that zone's offset.
    """
    model = convline.load(make_forecaster(), "cpu")
    assert isinstance(model, convline.Forecaster)
    frame = frames()[kind]
    rows = model.predict_table(frame)
    if kind == "zone":
        assert [row["ds"] for row in rows[:3]] == [
            f"2024-03-0{7 + s}T09:00:00+09:00" for s in range(3)
        ]
        rows = [row | {"ds": row["ds"] and str(row["ds"])[:10]} for row in rows]
    frames()["plain"].to_csv(tmp_path / "x.csv", index=False)
    assert rows == model.predict_table(tmp_path / "x.csv")
    shown = rows_of(infer("series", make_forecaster(), tmp_path / "x.csv"))
    text = [
        {k: "" if v is None else f"{v:g}" if isinstance(v, float) else v for k, v in row.items()}
        for row in rows
    ]
    assert text == shown
    assert [(r["unique_id"], r["ds"], r["yhat"], r["yhat-lo-80"]) for r in rows[:3]] == [
        ("a", f"2024-03-0{7 + s}", 6.0 + s, 5.0 + s) for s in range(3)
    ]
    assert (
        rows[3]["unique_id"] == "b"
        and rows[3]["status"] == "error"
        and "got 2 rows" in str(rows[3]["error"])
    )
    own = frame[frame["unique_id"] == "a"] if kind != "indexed" else frame.loc[["a"]]
    assert (model.predict(own) == [[[6], [7], [8]]]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"y": ["1", "2", "x", "4", "5", "6"]},
            "DataFrame: row 3, column 'y': expected a number, got 'x'",
        ),
        (
            {"y": [1, 2, None, 4, 5, 6]},
            "DataFrame: row 3, column 'y': expected a number, got a missing value",
        ),
        ({"y": [1, 2, 3, 4, 5, math.inf]}, "row 6, column 'y': expected a finite number, got inf"),
        ({"ds": [*DAYS[:5], pd.NaT]}, "row 6, column 'ds': expected a time, got a missing value"),
        ({"ds": DAYS + pd.Timedelta("1ms")}, "row 1, column 'ds': expected whole seconds"),
        ({"ds": [DAYS[0]] * 6}, "row 2: expected times in rising order, got a duplicate"),
        ({"ds": ["day"] * 6}, "row 1, column 'ds': expected a time such as"),
    ],
)
def test_a_wrong_cell_of_a_dataframe_is_named(
    make_forecaster: Callable[..., Path], change: dict, message: str
) -> None:
    """One cell is wrong; the error names its row and column."""
    frame = pd.DataFrame({"ds": DAYS, "y": np.arange(6.0)} | change)
    with pytest.raises(convline.InputError, match=re.escape(message)):
        convline.load(make_forecaster(), "cpu").predict(frame)


def test_open_files_and_parquet_give_the_forecast_of_the_path(
    make_forecaster: Callable[..., Path], tmp_path: Path
) -> None:
    """Files opened as text, as bytes and as Parquet, and columns under other names, give the
    numbers of the path.
    """
    frame = pd.DataFrame({"day": DAYS, "sales": np.arange(6.0)})
    frame.to_csv(path := tmp_path / "shop.csv", index=False)
    frame.to_parquet(tmp_path / "shop.parquet")
    model, names = convline.load(make_forecaster(), "cpu"), {"time": "day", "target": "sales"}
    expected = model.predict_table(path, **names)
    assert [row["yhat"] for row in expected] == [6, 7, 8] and expected[0]["unique_id"] == "shop"
    for file in (
        path.open(),
        path.open("rb"),
        (tmp_path / "shop.parquet").open("rb"),
        io.StringIO(path.read_text()),
    ):
        with file:
            rows = model.predict_table(file, **names)
            assert [row["yhat"] for row in rows] == [6, 7, 8]
            assert rows[0]["unique_id"] == ("series" if isinstance(file, io.StringIO) else "shop")
    assert (model.predict(frame, **names) == model.predict(np.arange(6.0))).all()
    counted = model.predict_table(np.arange(12.0).reshape(2, 6, 1))
    first = [(row["unique_id"], row["ds"], row["yhat"]) for row in counted[::3]]
    assert first == [("series 0", "6", 6), ("series 1", "6", 12)]
    with pytest.raises(ValueError, match="time: expected with a file or DataFrame, got ndarray"):
        model.predict(np.arange(6.0), time="day")
    with pytest.raises(ValueError, match=r"delimiter: expected one of , ; tab \| auto, got '\\t'"):
        model.predict(path, delimiter="\t")
    with pytest.raises(ValueError, match="target: expected 1 names"):
        model.predict(frame, target=["a", "b"])


@pytest.mark.parametrize("horizon", [0, -1, 1.5, "3", True, 1_000_001])
def test_a_horizon_must_be_a_positive_integer(
    make_forecaster: Callable[..., Path], horizon: object
) -> None:
    """0 and True are refused; a numpy integer is accepted."""
    model = convline.load(make_forecaster(), "cpu")
    for ask in (model.predict, model.predict_quantiles, model.predict_table):
        with pytest.raises(
            ValueError, match="horizon: expected a whole number from 1 to 1,000,000"
        ):
            ask(np.arange(6.0), horizon)
    with pytest.raises(ValueError, match="horizon: expected"):
        model.run(np.zeros((1, 4, 1)), horizon)
    assert model.predict(np.arange(6.0), np.int64(2)).shape == (1, 2, 1)
