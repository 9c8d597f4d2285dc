"""Parquet files: the series equal those of a CSV, whatever the column types; each error names its
place.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
from convline.errors import InputError, ServeError
from convline.timeseries import parquet_reader
from convline.timeseries.series import build_table, open_file, read_csv

ROWS = 6
LOCAL = pd.date_range("2024-10-26T22:00", periods=ROWS, freq="h", tz="UTC").tz_convert(
    "Europe/Berlin"
)
DAYS = pd.date_range("2024-02-27", periods=ROWS)
RULE = {"columns": ["y"], "time": "ds", "id": None, "gaps": "error"}


def write(path: Path, **columns: object) -> Path:
    """Write a table with two rows in each group, so that a column comes in several chunks."""
    table = pyarrow.table({"y": pyarrow.array(range(ROWS))} | columns)
    pyarrow.parquet.write_table(table, path, row_group_size=2)
    return path


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pyarrow.array(LOCAL), LOCAL.tz_convert(None)),
        (pyarrow.array(DAYS), DAYS),
        (pyarrow.array(DAYS.date), DAYS),
        (pyarrow.array(DAYS.date, pyarrow.date64()), DAYS),
        (pyarrow.array([day.isoformat() for day in DAYS]), DAYS),
        (pyarrow.array(range(ROWS), pyarrow.uint8()), np.arange(ROWS)),
        (pyarrow.array([float(row) for row in range(ROWS)]), np.arange(ROWS)),
    ],
)
def test_every_type_of_time_column_is_read(
    tmp_path: Path, times: pyarrow.Array, expected: object
) -> None:
    """pandas' timestamps in UTC, or the whole numbers."""
    [series] = build_table(open_file(write(tmp_path / "x.parquet", ds=times)), **RULE).series
    wanted = np.asarray(expected)
    assert (
        series.times == (wanted if wanted.dtype.kind == "i" else wanted.astype("datetime64[s]"))
    ).all()
    assert (series.id, series.values[:, 0].tolist()) == ("x", [0, 1, 2, 3, 4, 5])


def test_parquet_and_csv_give_the_same_series(tmp_path: Path) -> None:
    """Ids are text, categories and whole numbers."""
    frame = pd.DataFrame(
        {
            "u": ["b", "a"] * 3,
            "n": [7, 8] * 3,
            "ds": [1, 5, 2, 6, 3, 7],
            "y": [0.5, 1, 2, None, 4, 5],
        }
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame["c"] = frame["u"].astype("category")
    frame.to_parquet(tmp_path / "x.parquet")
    for id, same in (("u", "u"), ("c", "u"), ("n", "n")):
        rule = {"columns": ["y"], "time": "ds", "gaps": "interpolate"}
        table = build_table(open_file(tmp_path / "x.parquet"), id=id, **rule)
        other = read_csv(tmp_path / "x.csv", id=same, **rule)
        assert [one.id for one in table.series] == [one.id for one in other.series]
        for one, two in zip(table.series, other.series, strict=True):
            assert (one.values == two.values).all() and (one.times == two.times).all()
        assert table.filled == other.filled == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ds": DAYS, "y": [True] * ROWS}, "column 'y': expected numbers, got bool; cast it"),
        ({"ds": DAYS, "y": ["1"] * ROWS}, "column 'y': expected numbers, got dictionary.*string"),
        (
            {"ds": DAYS, "y": [1, None, 3, 4, 5, 6]},
            "row 2, column 'y': expected a number, got a missing value",
        ),
        (
            {"ds": DAYS, "y": [1, 2, np.inf, 4, 5, 6]},
            "row 3, column 'y': expected a finite number, got inf",
        ),
        ({"ds": [1, 2, None, 4, 5, 6]}, "row 3, column 'ds': expected a time, got a missing value"),
        ({"ds": DAYS + pd.Timedelta("1ms")}, "row 1, column 'ds': expected whole seconds"),
        ({"ds": ["soon"] * ROWS}, "row 1, column 'ds': expected a time such as"),
        ({"ds": [[1]] * ROWS}, "the file cannot be read: .*no kernel"),
        ({"day": DAYS}, "expected a column 'ds', got y, day; name one of these"),
        ({"ds": DAYS[[0, 1, 2, 2, 4, 5]]}, "row 4: expected times in rising order"),
    ],
)
def test_errors_name_row_and_column(tmp_path: Path, columns: dict, message: str) -> None:
    """One mistake is made in a valid table."""
    with pytest.raises(InputError, match=message):
        build_table(open_file(write(tmp_path / "x.parquet", **columns)), **RULE)


def test_unsigned_times_beyond_int64_are_an_error(tmp_path: Path) -> None:
    """2^63 does not fit in signed 64 bits; it must not become a negative time."""
    times = pyarrow.array([2**63 - 3 + row for row in range(ROWS)], pyarrow.uint64())
    with pytest.raises(
        InputError, match=r"row 1, column 'ds': expected times from -2\^62 to 2\^62"
    ):
        build_table(open_file(write(tmp_path / "x.parquet", ds=times)), **RULE)


def test_only_the_requested_columns_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 bytes a cell: a limit of two columns is enough for two of the file's three, which are read
    at once.
    """
    path = write(tmp_path / "x.parquet", ds=pyarrow.array(DAYS), more=pyarrow.array(range(ROWS)))
    monkeypatch.setattr(parquet_reader, "MAX_BYTES", 2 * 8 * ROWS)
    assert build_table(open_file(path), **RULE).columns == ["y"]
    with pytest.raises(
        InputError, match="expected at most 96 bytes of data, got 144; split the file"
    ):
        build_table(open_file(path), **RULE | {"columns": ["y", "more"]})


def test_unreadable_parquet_files_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Missing, a folder, other bytes, no rows, no pyarrow: one sentence each."""
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "text.parquet").write_text("ds,y\n1,2\n")
    pyarrow.parquet.write_table(
        pyarrow.table({"y": pyarrow.array([], "int64")}), tmp_path / "empty.parquet"
    )
    for name, message in (
        ("none", "no such"),
        ("folder", "a folder"),
        ("text", "cannot be read"),
        ("empty", "rows"),
    ):
        with pytest.raises(InputError, match=message):
            open_file(tmp_path / f"{name}.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ServeError, match=r"pip install 'convline\[parquet\]'"):
        open_file(tmp_path / "empty.parquet")


def test_binary_columns_are_read_as_text(tmp_path: Path) -> None:
    """Impala and older Spark write text as bytes without stating the encoding."""
    words = {"ds": [day.date().isoformat() for day in DAYS], "shop": ["Köln"] * ROWS}
    told = [word.encode() for word in words["shop"]], [word.encode() for word in words["ds"]]
    as_bytes = write(tmp_path / "b.parquet", shop=pyarrow.array(told[0]), ds=pyarrow.array(told[1]))
    as_text = write(tmp_path / "t.parquet", **words)
    frame = pd.read_parquet(as_bytes)
    assert isinstance(frame["shop"][0], bytes)
    found = [
        build_table(open_file(source), **RULE | {"id": "shop"}).series
        for source in (as_text, as_bytes, frame)
    ]
    assert [one.id for series in found for one in series] == ["Köln"] * 3
    assert all((series[0].times == DAYS.to_numpy()).all() for series in found)
    odd = write(tmp_path / "odd.parquet", shop=pyarrow.array([b"\xff"] * ROWS))
    assert (
        build_table(open_file(odd), **RULE | {"id": "shop", "time": None}).series[0].id == "\udcff"
    )
