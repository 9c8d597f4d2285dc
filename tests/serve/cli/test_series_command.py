"""`infer series` on tables as users have them: column names, backtests, plots; and the same from
Python.
"""

import csv
import gzip
import io
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from convline.cli.main import main
from convline.errors import InputError
from convline.jobs.series_job import SeriesJob, forecast_files
from convline.loading import load_file
from convline.model_file.document import Step
from convline.runtime.sources import Source
from convline.timeseries.backtest import backtest_batches, cutoff_batches
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.model import WINDOWS_PER_RUN
from convline.timeseries.predict import ForecastTask
from convline.timeseries.read_options import ReadOptions
from convline.timeseries.series import Series, Table, read_csv
from infer_command import rows_of

Make = Callable[..., Path]
INDEX = {"unit": "index", "count": 1}


def infer(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["series", *map(str, arguments)])


def table(*lengths: int, columns: int = 1) -> Table:
    """Series a, b, ... of rising rows: value 10 * row + column."""
    series = [
        Series(chr(97 + n), np.arange(rows), 10.0 * np.arange(rows)[:, None] + np.arange(columns))
        for n, rows in enumerate(lengths)
    ]
    return Table(series, ["y"], Step("index", 1), 0, [])


def forecaster(path: Path) -> Forecaster:
    model = load_file(path, "cpu")
    assert isinstance(model, Forecaster)
    return model


LONG = "unique_id,ds,y,z\n" + "".join(f"{u},{t},{t},{-t}\n" for t in range(6) for u in "ba")


@pytest.mark.parametrize(
    ("rule", "header", "options", "said"),
    [
        ({"id": "shop", "time": "week"}, "shop,week,sales,z", (), ""),
        (
            {"id": "shop", "time": "week"},
            "unique_id,ds,y,z",
            (),
            "columns by the usual names: unique_id, ds, y",
        ),
        (
            {"id": "shop", "time": "week"},
            "unique_id,ds,sales,y",
            (),
            "columns by the usual names: unique_id, ds\n",
        ),
        (
            {"id": None, "time": "ds"},
            "unique_id,ds,sales,z",
            (),
            "columns by the usual names: unique_id\n",
        ),
        (
            {"id": "shop", "time": "week"},
            "k,w,v,y",
            ("--id", "k", "--time", "w", "--target", "v"),
            "",
        ),
        (
            {"id": "shop", "time": "week"},
            "unique_id,w,v,z",
            ("--time", "w", "--target", "v"),
            "names: unique_id\n",
        ),
        (
            {"id": "shop", "time": None},
            "unique_id,ds,sales,z",
            (),
            "columns by the usual names: unique_id\n",
        ),
    ],
)
def test_columns_are_chosen_by_option_model_or_usual_name(
    make_forecaster: Make,
    tmp_path: Path,
    rule: dict,
    header: str,
    options: tuple[str, ...],
    said: str,
) -> None:
    """Both series end at 5, whatever the columns are called; stderr names those that were assumed."""
    (tmp_path / "x.csv").write_text(LONG.replace("unique_id,ds,y,z", header))
    result = infer(make_forecaster("sales", step=INDEX, **rule), tmp_path / "x.csv", *options)
    found = [(row["unique_id"], row["ds"], row["yhat"]) for row in rows_of(result)]
    assert found == [(u, str(6 + s), str(6 + s)) for u in "ba" for s in range(3)]
    assert said in result.stderr and ("usual" in result.stderr) is bool(said)


@pytest.mark.parametrize(
    ("header", "options", "error"),
    [
        (
            "unique_id,ds,v,z",
            (),
            "expected a column 'sales', got unique_id, ds, v, z; name one of these",
        ),
        (
            "unique_id,w,y,z",
            (),
            "expected a column 'week', got unique_id, w, y, z; name one of these",
        ),
        (
            "k,week,y,z",
            (),
            "expected times in rising order",
        ),  # read as one series, which two are not
        (
            "k,ds,y,z",
            ("--id", "shop"),
            "expected a column 'shop', got k, ds, y, z; name one of these",
        ),
        ("unique_id,ds,y,z", ("--id", ""), "expected times in rising order"),
        ("unique_id,ds,y,z", ("--target", "q"), "expected a column 'q'"),
    ],
)
def test_missing_columns_are_errors(
    make_forecaster: Make, tmp_path: Path, header: str, options: tuple[str, ...], error: str
) -> None:
    """One name is missing or refused; the row names it and those that exist."""
    (tmp_path / "x.csv").write_text(LONG.replace("unique_id,ds,y,z", header))
    model = make_forecaster("sales", id="shop", time="week", step=INDEX)
    [row] = rows_of(infer(model, tmp_path / "x.csv", *options))
    assert row["status"] == "error" and error in row["error"]


def test_the_form_of_the_file_does_not_change_the_rows(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """Semicolons with decimal commas, and Parquet, give the rows of the comma file.

    With a time zone, which Parquet keeps in UTC, times are marked Z.
    """
    times = pd.date_range("2024-03-29", periods=6, tz="UTC")
    frame = pd.DataFrame({"ds": times.strftime("%Y-%m-%d"), "y": np.arange(6) + 0.5})
    frame.to_csv(tmp_path / "x.csv", index=False)
    (tmp_path / "semi").mkdir()
    frame.to_csv(tmp_path / "semi/x.csv", index=False, sep=";", decimal=",")
    frame.assign(ds=times.tz_convert("Asia/Tokyo")).to_parquet(tmp_path / "x.parquet")
    model = make_forecaster()
    first, semi, parquet = (
        infer(model, tmp_path / name) for name in ("x.csv", "semi/x.csv", "x.parquet")
    )
    assert first.stdout == semi.stdout == parquet.stdout.replace("T00:00:00Z", "")
    assert (
        "2024-04-04,6.5,5.5,7.5,ok" in first.stdout and "2024-04-04T00:00:00Z,6.5" in parquet.stdout
    )
    assert "x.csv: delimiter ';'\n" in semi.stderr and "x.csv: decimal ','\n" in semi.stderr
    given = infer(model, tmp_path / "semi/x.csv", "--delimiter", ";", "--decimal", ",")
    assert (
        given.stdout == first.stdout
        and "delimiter" not in given.stderr
        and "decimal" not in given.stderr
    )


@pytest.mark.parametrize(
    ("trained", "zone", "error"),
    [
        (
            "none",
            "+05:00",
            "without an offset from UTC, got +05:00; write the local times without it",
        ),
        ("none", "Z", "without an offset from UTC, got Z; write"),
        (
            "utc",
            "",
            "with an offset from UTC, got none; write them with theirs, such as "
            "2024-01-31T12:00+01:00",
        ),
        ("none", "", None),
        ("utc", "Z", None),
        ("utc", "+05:00", None),
        (None, "Z", None),
        (None, "", None),
    ],
)  # fmt: skip
def test_the_offset_must_be_as_in_training(
    make_forecaster: Make, tmp_path: Path, trained: str | None, zone: str, error: str | None
) -> None:
    """For a file and for a stream; a model file without the key accepts both."""
    model = make_forecaster(**({} if trained is None else {"offset": trained}))
    (tmp_path / "x.csv").write_text(
        "ds,y\n" + "".join(f"2024-03-0{t}T00:00{zone},{t}\n" for t in range(1, 7))
    )
    rows = rows_of(infer(model, tmp_path / "x.csv"))
    command = ["series", str(model), "--follow"]
    stream = CliRunner().invoke(main, command, input=(tmp_path / "x.csv").read_text()).stdout
    if error:
        assert error in rows[0]["error"] and error in stream and ",ok," not in stream
    else:
        assert rows[0]["status"] == "ok" and ",ok," in stream


def test_a_model_of_days_refuses_counted_rows(make_forecaster: Make, tmp_path: Path) -> None:
    """Rows numbered 0 to 5 are refused, and read with --time ""."""
    (tmp_path / "x.csv").write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(6)))
    [row] = rows_of(infer(make_forecaster(), tmp_path / "x.csv"))
    assert (
        "expects a row every 86400 seconds, got whole numbers in column 'ds'; write them as dates"
        in row["error"]
    )
    assert rows_of(infer(make_forecaster(), tmp_path / "x.csv", "--time", ""))[0]["yhat"] == "6"


@pytest.mark.parametrize(
    ("unit", "scale"), [("seconds", 1), ("milliseconds", 1000), ("microseconds", 10**6)]
)
def test_seconds_since_1970_are_recognised(
    make_forecaster: Make, tmp_path: Path, unit: str, scale: int
) -> None:
    """1,709,251,200 s are midnight of 2024-03-01; the cure is that date, and it works."""
    stamps = [1_709_251_200 + 86400 * t for t in range(6)]
    (tmp_path / "x.csv").write_text(
        "ds,y\n" + "".join(f"{stamp * scale},{t}\n" for t, stamp in enumerate(stamps))
    )
    [row] = rows_of(infer(make_forecaster(), tmp_path / "x.csv"))
    assert row["error"].endswith(
        f"if they are {unit} since 1970, write {stamps[0] * scale} as 2024-03-01T00:00:00"
    )
    result = CliRunner().invoke(
        main, ["series", str(make_forecaster()), "--follow"], input=(tmp_path / "x.csv").read_text()
    )
    assert f"if they are {unit} since 1970" in result.stdout


def test_another_step_of_whole_numbers_is_an_error(make_forecaster: Make, tmp_path: Path) -> None:
    """A model of steps of 1 refuses rows numbered 0, 7, 14, ...; counted, they are accepted."""
    (tmp_path / "x.csv").write_text("ds,y\n" + "".join(f"{7 * t},{t}\n" for t in range(6)))
    model = make_forecaster(step=INDEX)
    [row] = rows_of(infer(model, tmp_path / "x.csv"))
    assert row["error"].endswith(
        "got one every 7 (whole numbers); resample it, or count rows with --time ''"
    )
    assert rows_of(infer(model, tmp_path / "x.csv", "--time", ""))[0]["yhat"] == "6"


def test_a_model_of_counted_rows_refuses_dates(make_forecaster: Make, tmp_path: Path) -> None:
    """It accepts the rows if the user says so."""
    (tmp_path / "x.csv").write_text("ds,y\n" + "".join(f"2024-03-0{t + 1},{t}\n" for t in range(6)))
    model = make_forecaster(step=INDEX)
    [row] = rows_of(infer(model, tmp_path / "x.csv"))
    cure = "name a column of whole numbers, or count rows with --time ''"
    assert row["error"].endswith(f"got dates in column 'ds'; {cure}")
    assert rows_of(infer(model, tmp_path / "x.csv", "--time", ""))[0]["yhat"] == "6"


def test_a_file_of_one_series_needs_no_id(make_forecaster: Make, tmp_path: Path) -> None:
    """The numbers equal those of the file with the id, and stderr says so.

    Without times several series could not be told apart.
    """
    rows = [f"{t},{t}" for t in range(6)]
    (tmp_path / "one.csv").write_text("ds,y\n" + "\n".join(rows) + "\n")
    result = infer(make_forecaster(id="shop", step=INDEX), tmp_path / "one.csv")
    assert [(r["unique_id"], r["yhat"]) for r in rows_of(result)] == [
        ("one", "6"),
        ("one", "7"),
        ("one", "8"),
    ]
    assert "one.csv: no column 'shop', so the file is one series\n" in result.stderr
    followed = ["series", str(make_forecaster(id="shop", step=INDEX)), "--follow"]
    stream = CliRunner().invoke(main, followed, input="ds,y\n" + "\n".join(rows) + "\n")
    assert "series,6,5,6,5,7,ok," in stream.stdout
    [row] = rows_of(infer(make_forecaster(id="shop", time=None), tmp_path / "one.csv"))
    cure = "name one of these with --id, or say --id '' if there is none"
    assert row["error"] == f"expected a column 'shop', got ds, y; {cure}"


def test_folders_and_globs_of_series(make_forecaster: Make, tmp_path: Path) -> None:
    """By name; other suffixes are counted, and an empty folder or a pattern without a match is a
    row.
    """
    model, good = make_forecaster(step=INDEX), "ds,y\n" + "".join(f"{t},{t}\n" for t in range(6))
    for name in ("in/b.csv", "in/a/deep.csv", "in/notes.txt", "in/.hidden.csv", "empty/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(good)
    pd.DataFrame({"ds": range(6), "y": range(6)}).to_parquet(tmp_path / "in/c.parquet")
    result = infer(
        model, tmp_path / "in", tmp_path / "empty", f"{tmp_path}/in/*.csv", f"{tmp_path}/no*"
    )
    found = [(Path(row["unique_id"]).name, row["status"]) for row in rows_of(result)]
    names = ["deep", "b", "c", "empty", "b", "no*"]
    assert list(dict.fromkeys(found)) == [
        (n, "error" if n in ("empty", "no*") else "ok") for n in dict.fromkeys(names)
    ]
    assert len(found) == 4 * 3 + 2 and "skipped 3 files in folders" in result.stderr
    (tmp_path / "in/out.csv").write_text("")
    refused = infer(model, tmp_path / "in", "-o", tmp_path / "in/out.csv")
    assert refused.exit_code == 1 and "expected a file that is not read" in refused.stderr


@pytest.mark.parametrize(
    ("name", "data", "error"),
    [
        (
            "x.csv",
            "ds,y\n".encode("utf-16"),
            "got UTF-16 or a binary file; save it as UTF-8 (iconv -f UTF-16",
        ),
        (
            "x.csv",
            "ds,y\n0,1\n".encode("utf-16-le"),
            "got UTF-16 or a binary file; save it as UTF-8",
        ),
        (
            "x.csv",
            "ds,y\n0,ä\n".encode("latin-1"),
            "got the byte 0xe4 in line 2; save it as UTF-8 (of Latin-1: iconv",
        ),
        (
            "x.csv",
            gzip.compress(b"ds,y\n0,1\n", mtime=0),
            "got a gzip file; decompress it first (gunzip)",
        ),
        (
            "x.csv.gz",
            gzip.compress(b"ds,y\n0,1\n", mtime=0),
            "got a compressed file; decompress it first",
        ),
        (
            "x.csv",
            b"PK\x03\x04\xff\xfe\xfa",
            "got a zip or Excel file; unpack it, or save it as CSV",
        ),
    ],
)
def test_bytes_that_are_no_csv_are_named(
    make_forecaster: Make, tmp_path: Path, name: str, data: bytes, error: str
) -> None:
    """The bytes are Python's own encodings; the message says what the file is and how it becomes a
    CSV.
    """
    (tmp_path / name).write_bytes(data)
    [row] = rows_of(infer(make_forecaster(), tmp_path / name))
    assert error in row["error"]


def test_every_forecasts_from_every_kth_row(make_forecaster: Make, tmp_path: Path) -> None:
    """With context 4, of rows 0 to 8 every third from the last: 8 and 5.

    Each forecast is its own row + 1, 2, 3, the third fed back; a short series is one error row.
    """
    lines = [f"{u},{t},{t}" for u, rows in (("a", 9), ("short", 3), ("b", 5)) for t in range(rows)]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(lines) + "\n")
    result = infer(
        make_forecaster(step=INDEX), tmp_path / "x.csv", "--every", "3", "--horizon", "4"
    )
    rows = rows_of(result)
    assert [*rows[0]][:4] == ["unique_id", "ds", "cutoff", "yhat"]
    good = [
        (r["unique_id"], r["cutoff"], r["ds"], r["yhat"], r["status"])
        for r in rows
        if not r["error"]
    ]
    assert good == [
        (u, str(c), str(c + s), str(c + s), "ok" if s < 4 else "recursive")
        for u, c in (("a", 5), ("a", 8), ("b", 4)) for s in range(1, 5)
    ]  # fmt: skip
    assert [(r["unique_id"], r["cutoff"], r["status"]) for r in rows if r["error"]] == [
        ("short", "2", "error")
    ]


@pytest.mark.parametrize(("every", "held"), [(1, 0), (2, 3), (7, 1), (None, 0), (None, 3)])
def test_a_cutoff_uses_no_later_row(make_forecaster: Make, every: int | None, held: int) -> None:
    """The tiny network forecasts the value at the cutoff + 1, 2, 3; the cutoffs are those of
    Python's range.
    """
    model, series = forecaster(make_forecaster("p", "q")), table(300, 4, columns=2)
    batches = list(backtest_batches(model, series, 3, every, held))
    forecasts = [forecast for batch in batches for forecast in batch]
    cutoffs = [*range(299 - held, 2, -(every or 300))][::-1]
    assert [o.cutoff for o in forecasts if o.series.id == "a"] == cutoffs and max(
        map(len, batches)
    ) <= WINDOWS_PER_RUN
    for forecast in forecasts[: len(cutoffs)]:
        expected = forecast.series.values[forecast.cutoff] + np.array([[1], [2], [3]])
        assert (
            (forecast.forecast == expected).all()
            and forecast.quantiles.shape == (3, 2, 3)
            and not forecast.error
        )
        assert forecast.times.tolist() == [forecast.cutoff + s for s in (1, 2, 3)]
    assert [bool(o.error) for o in forecasts if o.series.id == "b"] == [held > 0]


def test_a_value_beyond_float32_spoils_only_its_own_windows(make_forecaster: Make) -> None:
    """Of windows of 4 rows, the four that hold row 5, which is beyond float32; the others are
    forecast.
    """
    values = np.arange(12.0)[:, None]
    values[5] = 1e39
    one = Table([Series("a", np.arange(12), values)], ["y"], Step("index", 1), 0, [])
    forecasts = [
        forecast
        for batch in backtest_batches(forecaster(make_forecaster()), one, 3, 1)
        for forecast in batch
    ]
    assert [o.cutoff for o in forecasts if o.error] == [5, 6, 7, 8] and len(forecasts) == 9
    assert all("float32" in o.error for o in forecasts if o.error)


def test_memory_is_bounded_in_long_backtests(make_forecaster: Make) -> None:
    """20,000 forecasts of 30 steps are 14 MB, a batch of 128 is 0.1; long ones run fewer at a time."""
    model, series = forecaster(make_forecaster(time=None)), table(20_000)
    tracemalloc.start()
    assert sum(len(batch) for batch in backtest_batches(model, series, 30, every=1)) == 19_997
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6
    assert max(map(len, cutoff_batches(model, series, 5000, every=1))) * 5000 * 4 <= 2**18
    source, reading = (
        io.StringIO("y\n" + "1\n" * 9),
        ReadOptions(model.name, model.document.input),
    )
    output = io.BytesIO()
    done = forecast_files(
        SeriesJob(ForecastTask(model, reading, 5000, 1)),
        [Source("-")],
        output,
        stdin=source,
    )
    assert done.checkpoint.rows == 6 * 5000 == output.getvalue().count(b"\n") - 1


def test_predict_accepts_paths_tables_and_arrays(make_forecaster: Make, tmp_path: Path) -> None:
    """The last value + 1, 2, ... from each; quantiles end where training did."""
    path = tmp_path / "x.csv"
    path.write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(10)))
    model = forecaster(make_forecaster(step=INDEX))
    values = np.arange(10)
    for given in (
        path,
        str(path),
        read_csv(path, time="ds"),
        values,
        values[:, None],
        values[None, :, None],
    ):
        assert model.predict(given, 8)[..., 0].tolist() == [[*range(10, 18)]]  # fed back twice
        assert model.predict(given).shape == (1, 3, 1) and model.predict(given, 2).tolist() == [
            [[10], [11]]
        ]
        quantiles = model.predict_quantiles(given, 5)
        assert quantiles[0, :3, 0].tolist() == [[9, 10, 11], [10, 11, 12], [11, 12, 13]]
        assert quantiles.shape == (1, 5, 1, 3) and np.isnan(quantiles[:, 3:]).all()
    many = model.predict(table(*[9] * 130))
    assert many.shape == (130, 3, 1) and (many[:, 0] == 81).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.arange(3), "series 0: model 'riser' needs 4 rows of 1 column, got 3 rows"),
        (
            np.zeros((2, 4, 2)),
            r"series 0: model 'riser' needs rows of 1 column, got shape \(4, 2\)",
        ),
        (np.array([1, 2, np.nan, 3]), "series 0: expected finite values up to"),
        (table(9, 3), "b: model 'riser' needs 4 rows of 1 column, got 3 rows"),
        ("none.csv", "none.csv: no such file"),
    ],
)
def test_an_error_of_predict_names_the_series(
    make_forecaster: Make, given: object, message: str
) -> None:
    """One thing is wrong with one series."""
    with pytest.raises(InputError, match=message):
        forecaster(make_forecaster()).predict(given)


def test_wrong_usage(make_forecaster: Make) -> None:
    """Options that no run could satisfy are wrong usage, exit code 2."""
    for options, message in (
        (("--every", "0"), "0 is not in the range"),
        (("--delimiter", "::"), "'::' is not one of"),
        (("--target", "a,b"), "expected 1 names"),
    ):
        refused = infer(make_forecaster(), "x.csv", *options)
        assert refused.exit_code == 2 and message in refused.stderr


def test_series_of_equally_named_files_have_different_names(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """By the folders that differ. A file given twice is one series, and other names stay short."""
    for name in ("s1/data.csv", "s2/data.csv", "x/s2/data.csv", "other.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(6)))
    files = [
        str(tmp_path / name)
        for name in ("s1/data.csv", "other.csv", "s2/data.csv", "s1/../s1/data.csv")
    ]
    words = [
        "series",
        str(make_forecaster(step={"unit": "index", "count": 1})),
        *files,
        "--horizon",
        "1",
    ]
    result = CliRunner().invoke(main, words)
    ids = [row["unique_id"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert ids == ["s1/data", "other", "s2/data", "s1/data"]
    result = CliRunner().invoke(main, [*words, str(tmp_path / "x/s2/data.csv")])
    ids = [row["unique_id"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert len({*ids}) == 4 and ids[4].endswith("x/s2/data")


def test_ids_that_csv_quotes_are_noted(make_forecaster: Make, tmp_path: Path) -> None:
    """-A and +B are as in the file in both formats; a formula is quoted in CSV, and stderr names
    it.
    """
    lines = [f"{u},{t},{t}" for u in ("-A", "+B", "=SUM(A1)") for t in range(6)]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(lines) + "\n")
    words = [
        "series",
        str(make_forecaster(step={"unit": "index", "count": 1})),
        str(tmp_path / "x.csv"),
        "--horizon",
        "1",
    ]
    result = CliRunner().invoke(main, words)
    ids = [row["unique_id"] for row in csv.DictReader(io.StringIO(result.stdout))]
    assert (
        ids == ["-A", "+B", "'=SUM(A1)"] and "have a ' in front in CSV: =SUM(A1)" in result.stderr
    )


def test_a_table_is_not_written_among_the_series_of_a_folder(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """A second run would forecast the forecasts of the first."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x.csv").write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(6)))
    model = str(make_forecaster(step={"unit": "index", "count": 1}))
    result = CliRunner().invoke(main, ["series", model, str(folder), "-o", str(folder / "out.csv")])
    assert (
        result.exit_code == 1
        and "a second run would read the results of the first" in result.stderr
    )
    assert [path.name for path in folder.iterdir()] == ["x.csv"]


@pytest.mark.parametrize(
    ("step", "times", "ahead"),
    [
        (
            ("months", 1),
            "2023-12-30 2024-01-30 2024-02-29 2024-03-30",
            "2024-04-30 2024-05-30 2024-06-30",
        ),
        (
            ("months", 1),
            "2022-11-30 2022-12-30 2023-01-30 2023-02-28",
            "2023-03-30 2023-04-30 2023-05-30",
        ),
        (
            ("months", 1),
            "2023-11-30 2023-12-31 2024-01-31 2024-02-29",
            "2024-03-31 2024-04-30 2024-05-31",
        ),
        (
            ("months", 1),  # the 30th of the month there, in UTC the 29th
            " ".join(
                f"{day}T00:00:00+01:00"
                for day in ("2023-10-30", "2023-11-30", "2023-12-30", "2024-01-30")
            ),
            " ".join(f"{day}T00:00:00+01:00" for day in ("2024-02-29", "2024-03-30", "2024-04-30")),
        ),
        (
            ("months", 1),  # ends of months there, in UTC the days before them
            " ".join(
                f"{day}T00:00:00+09:00"
                for day in ("2023-10-31", "2023-11-30", "2023-12-31", "2024-01-31")
            ),
            " ".join(f"{day}T00:00:00+09:00" for day in ("2024-02-29", "2024-03-31", "2024-04-30")),
        ),
        (("seconds", 3600), "T21:00+02:00 T22:00+02:00 T23:00+02:00 T24:00+02:00", "01 02 03"),
        (("seconds", 3600), "T20:00Z T21:00Z T22:00Z T23:00Z", "00 01 02"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_month_ends_and_offsets_are_continued(
    make_forecaster: Make, tmp_path: Path, step: tuple[str, int], times: str, ahead: str, form: str
) -> None:
    """By the calendar.

    Offsets are written as they were read, and the cutoffs of a backtest with them.
    """
    given, expected = times.split(), ahead.split()
    if step[1] == 3600:
        offset = given[0][6:]
        first = ["2024-01-01" + time for time in given]
        given = [time.replace("01T24", "02T00") for time in first]
        expected = [f"2024-01-02T{hour}:00:00{offset}" for hour in expected]
    path = tmp_path / f"x.{form}"
    if form == "csv":
        path.write_text("ds,y\n" + "".join(f"{time},1\n" for time in given))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"ds": given, "y": [1.0] * 4}), path)
    model = make_forecaster(step={"unit": step[0], "count": step[1]})
    rows = rows_of(infer(model, path, "--every", "1"))
    assert [row["ds"] for row in rows[-3:]] == expected and not any(row["error"] for row in rows)
    last = given[-1] if step[1] == 1 else given[-1].replace(":00" + offset, ":00:00" + offset)
    assert rows[-1]["cutoff"] == last


@pytest.mark.parametrize(
    ("times", "step", "ok"),
    [
        ([0, 2**61, 2**62 - 1, 2**62], 1, False),  # not one step
        ([2**62 - 3, 2**62 - 2, 2**62 - 1, 2**62], 1, True),
        ([2**62 - 2, 2**62 - 1, 2**62, 2**62 + 1], 1, False),  # beyond what is counted
        ([-(2**62), -(2**61), 0, 2**61], 2**61, True),
    ],
)
def test_times_beyond_int64_are_an_error(
    make_forecaster: Make, tmp_path: Path, times: list[int], step: int, ok: bool
) -> None:
    """What 64 bits cannot count is an error, never a negative time."""
    path = tmp_path / "x.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"ds": times, "y": [1.0] * 4}), path)
    model = make_forecaster(step={"unit": "index", "count": min(step, 2**53)})
    rows = rows_of(infer(model, path))
    if ok and step == 1:
        assert [int(row["ds"]) for row in rows] == [times[-1] + k for k in (1, 2, 3)]
    else:
        assert [row["status"] for row in rows] == ["error"] and not rows[0]["ds"]


def test_times_beyond_the_year_9999_are_an_error(make_forecaster: Make, tmp_path: Path) -> None:
    """The days after 30 December 9999 are in the year 10000 from the second on; earlier cutoffs
    have forecasts.
    """
    path = tmp_path / "x.csv"
    path.write_text("ds,y\n" + "".join(f"9999-12-{day},1\n" for day in range(20, 31)))
    rows = rows_of(infer(make_forecaster(), path, "--every", "1"))
    assert [row["cutoff"] for row in rows if row["status"] == "error"] == [
        "9999-12-29",
        "9999-12-30",
    ]
    assert all("before the year 10000" in row["error"] for row in rows if row["status"] == "error")
    assert rows[-3]["ds"] == "9999-12-31"


def test_thousands_of_columns_are_read_in_linear_time(tmp_path: Path) -> None:
    """The time is bounded: once each of 8,000 names was compared with all of them, in seconds; now
    it takes a tenth of one.
    """
    names = [f"c{k}" for k in range(8000)]
    (tmp_path / "x.csv").write_text(
        ",".join(["ds", *names]) + "\n" + "".join(f"{t}" + ",1" * 8000 + "\n" for t in "123")
    )
    started = time.perf_counter()
    table = read_csv(tmp_path / "x.csv", time="ds", columns=names)
    assert table.series[0].values.shape == (3, 8000) and time.perf_counter() - started < 3


def test_columns_whose_forecasts_have_one_name_are_refused(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """yhat-y-lo-80 is the lower end of y and the forecast of y-lo-80; numbers would be in the wrong
    column.
    """
    (tmp_path / "x.csv").write_text("ds,y,y-lo-80\n" + "".join(f"{t},1,2\n" for t in range(5)))
    result = infer(make_forecaster("y", "y-lo-80", step=INDEX), tmp_path / "x.csv")
    assert result.exit_code == 1 and "got 'yhat-y-lo-80' twice; export it with" in result.stderr
