"""CSV files to regular series: what is read, and the error of each faulty file."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from convline.errors import InputError
from convline.model_file.document import Step
from convline.timeseries.series import Table, build_table, open_file, read_csv
from hypothesis import given, settings
from hypothesis import strategies as st

FIXED = settings(
    derandomize=True, database=None, deadline=None, max_examples=80
)  # the same examples in each run
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=8).map(
    str.strip
)


def read(text: str, **options) -> Table:
    return read_csv(io.StringIO(text), **{"time": "ds"} | options)


def days(*cells: str, start: str = "2024-01-01") -> str:
    dates = pd.date_range(start, periods=len(cells)).strftime("%Y-%m-%d")
    return (
        "ds,y\n"
        + "\n".join(f"{date},{cell}" for date, cell in zip(dates, cells, strict=True))
        + "\n"
    )


def hours(*clocks: str) -> str:
    return "ds,y\n" + "".join(f"2024-10-27T{clock},{row}\n" for row, clock in enumerate(clocks))


def test_a_plain_csv_is_read(tmp_path: Path) -> None:
    """As pandas.read_csv reads it; a byte order mark and CRLF change nothing."""
    path = tmp_path / "shop.csv"
    path.write_bytes(b"\xef\xbb\xbf" + days("1", " 2.5", "-3e2").replace("\n", "\r\n").encode())
    table = read_csv(path, time="ds")
    frame = pd.read_csv(path, parse_dates=["ds"], encoding="utf-8-sig")
    assert (table.columns, table.step, table.filled) == (["y"], Step("seconds", 86400), 0)
    [series] = table.series
    assert series.id == "shop" and series.values.dtype == np.float64
    assert (series.values[:, 0] == frame["y"]).all() and (
        series.times == frame["ds"].to_numpy("datetime64[s]")
    ).all()


def test_columns_of_numbers_are_the_default() -> None:
    """Text, empty, time and id columns are left out; the order is the file's."""
    text = "id,ds,b,name,void,a\nx,1,10,anna,,0.5\nx,2,11,7,,0.25\n"
    table = read(text, id="id")
    assert table.columns == ["b", "a"] and table.series[0].values.tolist() == [
        [10, 0.5],
        [11, 0.25],
    ]
    assert read(text, id="id", columns=["a"]).series[0].values.tolist() == [[0.5], [0.25]]


def test_a_file_may_hold_several_series() -> None:
    """In order of first appearance.

    Rows may interleave, lengths may differ, and one row is enough for one of them.
    """
    table = read("ds,u,y\n1,b,10\n5,a,1\n2,b,20\n6,a,2\n9,c,5\n7,a,3\n", id="u")
    assert [(s.id, s.times.tolist(), s.values[:, 0].tolist()) for s in table.series] == [
        ("b", [1, 2], [10, 20]), ("a", [5, 6, 7], [1, 2, 3]), ("c", [9], [5]),
    ]  # fmt: skip


def test_without_a_time_column_rows_are_counted() -> None:
    """0, 1, 2 within each series."""
    table = read_csv(io.StringIO("u,y\na,1\nb,2\na,3\n"), id="u")
    assert [s.times.tolist() for s in table.series] == [[0, 1], [0]] and table.step == Step(
        "index", 1
    )


def test_interpolation_is_linear_and_counted() -> None:
    """Two empty cells and a missing day between 1 and 5, as numpy.interp fills them."""
    text = "ds,y\n2024-01-01,1\n2024-01-02,\n2024-01-03,NaN\n2024-01-05,5\n2024-01-06,6\n"
    table = read(text, gaps="interpolate")
    assert table.series[0].values[:, 0].tolist() == [1, 2, 3, 4, 5, 6] and table.filled == 3
    assert [str(t)[:10] for t in table.series[0].times] == [f"2024-01-0{d}" for d in range(1, 7)]


def test_a_missing_month_is_filled() -> None:
    """Months count as equal steps; February is missing."""
    table = read("ds,y\n2024-01,1\n2024-03,3\n2024-04,4\n2024-05,5\n", gaps="interpolate")
    assert table.step == Step("months", 1) and table.filled == 1
    assert table.series[0].values[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert str(table.series[0].times[1]) == "2024-02-01T00:00:00"


def test_a_missing_month_is_filled_in_local_time() -> None:
    """The end of February in Tokyo is 15 o'clock of the 28th in UTC, in a leap year."""
    cells = [f"2024-{day}T00:00+09:00,1\n" for day in ("01-31", "03-31", "04-30", "05-31")]
    table = read("ds,y\n" + "".join(cells), gaps="interpolate")
    assert table.step == Step("months", 1) and table.filled == 1
    assert str(table.series[0].times[1]) == "2024-02-28T15:00:00"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (
            days("1", "2").replace("2024-01-02", "2023-12-31"),
            {},
            r"line 3: .*2023-12-31 after 2024-01-01",
        ),
        (
            days("1", "2").replace("2024-01-02", "2024-01-01"),
            {},
            r"line 3: .*duplicate \(2024-01-01\)",
        ),
        (
            days("1", "2", "3", "4").replace("2024-01-04", "2024-01-05"),
            {},
            "line 5: .*2024-01-05 after 2024-01-03",
        ),
        (days("1", "", "3"), {}, "line 3, column 'y': expected a number, got a missing value"),
        (days("1", "nan", "3"), {}, "line 3, column 'y'"),
        (
            days("1", "two", "3"),
            {"columns": ["y"]},
            "line 3, column 'y': expected a number, got 'two'",
        ),
        (
            days("1", "inf", "3"),
            {"columns": ["y"]},
            "line 3, column 'y': expected a number, got 'inf'",
        ),
        (days("1", "2"), {"columns": ["z"]}, "expected a column 'z', got ds, y"),
        (days("1", "2"), {"time": "when"}, "expected a column 'when', got ds, y"),
        (days("1", "2"), {"id": "shop"}, "expected a column 'shop', got ds, y"),
        (
            days("1", "2").replace("2024-01-02", "soon"),
            {},
            "line 3, column 'ds': expected a time .*'soon'",
        ),
        (
            days("1", "2", "3", "4").replace("01-04", "01-03T05:00"),
            {},
            "line 5: .*whole steps of 86400 seconds",
        ),
        (days("a", "b"), {}, "expected a column of numbers, got only ds, y"),
        ("ds,y\n1,2,3\n", {}, "line 2: expected 2 cells as in the header, got 3"),
        ("ds,y\n1,1\n2\n", {}, "line 3: expected 2 cells as in the header, got 1"),
        ("ds,y,y\n1,2,3\n", {}, "got 'y' twice"),
        ('ds,y\n"1,2\n', {}, "line 2: expected cells between ','"),
        ("", {}, "got no line"),
        ("ds,y\n", {}, "got only the header"),
        ("ds,y\n2024-01-01,5\n", {}, "expected at least two rows"),
        (
            "ds,u,y\n1,a,1\n2,a,2\n1,b,1\n3,b,2\n",
            {"id": "u"},
            r"one step for all series, .*\(series 'b'\)",
        ),
        (
            days("", "2", "3"),
            {"gaps": "interpolate"},
            "line 2, column 'y': expected a number in the first",
        ),
        (
            days("1", "2", ""),
            {"gaps": "interpolate"},
            "line 4, column 'y': expected a number in the first",
        ),
        (
            "ds,y\n1,1\n2,2\n900000000000,3\n",
            {"gaps": "interpolate"},
            "expected at most 100 steps a row",
        ),
        (
            "ds,u,y\n1,a,1\n2,,2\n3,a,3\n",
            {"id": "u"},
            "line 3, column 'u': expected an id, got a missing value",
        ),
        (
            days("1", "1_0", "2"),
            {"columns": ["y"]},
            "line 3, column 'y': expected a number, got '1_0'",
        ),
        (
            "y\n1\n\n3\n",
            {"time": None},
            "line 3, column 'y': expected a number, got a missing value",
        ),
        (
            hours("00:00", "01:00", "02:00", "02:30"),
            {"gaps": "interpolate"},
            "line 5: .*whole steps of 3600 seconds",
        ),
        (
            hours("01:00", "02:00", "02:00"),
            {},
            "line 4: .*a duplicate .*give local times their offset from UTC",
        ),
        (
            hours("01:00+02:00", "01:00+01:00", "03:00"),
            {},
            "line 4, .*all times with an offset or none",
        ),
        (
            hours("00:00+01:00", "00:00+02:00", "02:00+02:00"),
            {},
            r"line 3: .* 2024-10-27T00:00\+02:00 after .*\+01",
        ),
    ],
)
def test_errors_name_file_line_and_value(text: str, options: dict, message: str) -> None:
    """One mistake is made in a valid file."""
    with pytest.raises(InputError, match=message) as caught:
        read(text, **options)
    assert "\n" not in str(caught.value)


QUARTERS = [10 * year + quarter for year in (2022, 2023, 2024) for quarter in (1, 2, 3, 4)]
MONTHS = [100 * year + month for year in (2022, 2023) for month in range(1, 13)]


def forms(numbers: list[int], folder: Path) -> list[object]:
    """Return the same table as CSV, as Parquet with a column of integers, and as a DataFrame."""
    frame = pd.DataFrame({"ds": numbers, "y": np.arange(len(numbers)) ** 2.0})
    frame.to_csv(folder / "t.csv", index=False)
    frame.to_parquet(folder / "t.parquet")
    return [folder / "t.csv", folder / "t.parquet", frame]


@pytest.mark.parametrize("gaps", ["error", "interpolate"])
def test_midnights_over_a_change_of_clocks_are_an_error(gaps: str) -> None:
    """The message shows the cell of the file, not a UTC time that is nowhere in it; the cure works."""
    days = pd.date_range("2024-10-24", periods=8, tz="Europe/Berlin")
    with pytest.raises(
        InputError, match=r"got 2024-10-28T00:00:00\+01:00 .*write the dates without a time"
    ) as caught:
        read("ds,y\n" + "".join(f"{day.isoformat()},1\n" for day in days), gaps=gaps)
    assert "line 6" in str(caught.value) and "Z" not in str(caught.value)
    table = read("ds,y\n" + "".join(f"{day.date()},1\n" for day in days), gaps=gaps)
    assert (table.step, table.filled) == (Step("seconds", 86400), 0)


@pytest.mark.parametrize("gaps", ["error", "interpolate"])
def test_dates_written_as_numbers_are_not_filled(gaps: str, tmp_path: Path) -> None:
    """24 months give 24 values.

    Quarters in five digits are refused in each kind of file, not filled.
    """
    for source in forms(MONTHS, tmp_path):
        table = build_table(open_file(source), columns=None, time="ds", id=None, gaps=gaps)
        assert (table.step, table.filled, len(table.series[0].values)) == (Step("months", 1), 0, 24)
        assert str(table.series[0].times[12]) == "2023-01-01T00:00:00"
    for source in forms(QUARTERS, tmp_path):
        with pytest.raises(
            InputError, match=r"20231 after 20224 .* dates written as numbers.* 2024-03-31"
        ) as caught:
            build_table(open_file(source), columns=None, time="ds", id=None, gaps=gaps)
        assert "interpol" not in str(caught.value)


def test_one_new_year_in_numbers_is_not_taken_for_a_gap() -> None:
    """2024001 after 2023365 is the next day. A gap of a counter may be filled."""
    rows = [*range(2023360, 2023366), 2024001, 2024002]
    with pytest.raises(InputError, match="dates written as numbers") as caught:
        read("ds,y\n" + "".join(f"{row},1\n" for row in rows))
    assert "interpol" not in str(caught.value)
    with pytest.raises(InputError, match="allow interpolation"):
        read("ds,y\n1,1\n2,2\n3,1\n5,5\n")


def test_unreadable_files_are_errors(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8; the path is in the message."""
    (tmp_path / "latin.csv").write_bytes(b"ds,y\n1,\xe9\n")
    for name, reason in (
        ("none.csv", "no such file"),
        ("", "directory"),
        ("latin.csv", "got the byte 0xe9 in line 2"),
    ):
        with pytest.raises(InputError, match=reason) as caught:
            read_csv(tmp_path / name)
        assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("gap", [0, 3, 10])
def test_random_gaps_of_a_line_are_filled_exactly(gap: int) -> None:
    """Linear interpolation restores a straight line, whichever inner rows are removed (seeded)."""
    generator = np.random.default_rng(gap)
    dates = pd.date_range("2020-02-25", periods=60, freq="h")
    lost = generator.choice(np.arange(1, 59), gap, replace=False)
    kept = [i for i in range(60) if i not in lost]
    text = "ds,y\n" + "".join(f"{dates[i].isoformat()},{2 * i + 1}\n" for i in kept)
    table = read(text, gaps="interpolate")
    np.testing.assert_allclose(
        table.series[0].values[:, 0], 2 * np.arange(60) + 1, rtol=1e-12, atol=0
    )
    assert table.filled == gap
    if gap:
        with pytest.raises(InputError, match="expected a row every 3600 seconds"):
            read(text)


def test_offsets_resolve_a_change_of_clocks() -> None:
    """pandas' hours of Berlin's longest night, in UTC; without their offsets they would be
    duplicates.
    """
    local = pd.date_range("2024-10-26T22:00", periods=8, freq="h", tz="UTC").tz_convert(
        "Europe/Berlin"
    )
    table = read("ds,y\n" + "".join(f"{time.isoformat()},1\n" for time in local))
    assert (table.step, table.filled) == (Step("seconds", 3600), 0)
    assert (
        table.series[0].times == local.tz_convert(None).to_numpy().astype("datetime64[s]")
    ).all()


GERMAN = "decimal ',', points between thousands"


@pytest.mark.parametrize(
    ("text", "options", "values", "notes"),
    [
        ("ds;y\n1;1,5\n2;-2\n", {}, [1.5, -2], ["delimiter ';'", "decimal ','"]),
        ("ds;y\n1;1.5\n2;-2\n", {}, [1.5, -2], ["delimiter ';'"]),
        ("ds;y\n1;1.234\n2;1.5\n", {}, [1.234, 1.5], ["delimiter ';'"]),
        ("ds|y\n1|1.234\n2|987\n", {}, [1.234, 987], ["delimiter '|'"]),
        ("ds;y\n1;1.234\n2;987\n", {"decimal": "."}, [1.234, 987], ["delimiter ';'"]),
        ("ds;y\n1;1.234\n2;987\n", {"decimal": ","}, [1234, 987], ["delimiter ';'"]),
        (
            "ds;y;z\n1;1.234;0,5\n2;987;1\n",
            {},
            [1234, 987],
            ["delimiter ';'", GERMAN],
        ),  # another column decides
        (
            "ds;y;u\n1;1.234;a,b\n2;1.5;c\n",
            {},
            [1.234, 1.5],
            ["delimiter ';'"],
        ),  # a column of text does not
        ("ds;y\n1;-1.234,5\n2;987\n", {}, [-1234.5, 987], ["delimiter ';'", GERMAN]),
        ("ds;y\n1;1.234.567\n2;1.234\n", {}, [1234567, 1234], ["delimiter ';'", GERMAN]),
        ("ds\ty\n1\t1,234\n2\t0,5\n", {}, [1.234, 0.5], [r"delimiter '\t'", "decimal ','"]),
        ("ds|y|note\n1|1|a;b,c\n2|2|d\n", {}, [1, 2], ["delimiter '|'"]),
        ("ds;y\n1;1,234\n2;2,345\n", {"decimal": ","}, [1.234, 2.345], ["delimiter ';'"]),
        ('ds,y\n1,"1,5"\n2,"2,5"\n', {"delimiter": ",", "decimal": ","}, [1.5, 2.5], []),
        ('ds,y,note\n1,1,"a;b"\n2,2,c\n', {}, [1, 2], []),
        ("ds,p;q,y\n1,2;3,4\n2,3;4,5\n", {"delimiter": ","}, [4, 5], []),
        ("y\n1\n2\n", {"time": None}, [1, 2], []),
        ("sep=;\nds;y\n1;1,5\n2;-2\n", {}, [1.5, -2], ["decimal ','"]),
        ('"SEP=|"\nds|y\n1|1\n2|2\n', {}, [1, 2], []),
        ("ds,y\n1,1\n2,2\n  \n", {}, [1, 2], []),
        ("ds,y\n1,1\n   \n2,2\n\n \t\n", {}, [1, 2], []),
        ("y\n1,5\n2,5\n", {"time": None, "decimal": ","}, [1.5, 2.5], ["delimiter ';'"]),
    ],
)
def test_delimiter_and_decimal_sign_are_detected(
    text: str, options: dict, values: list[float], notes: list[str]
) -> None:
    """Signs other than a comma and a point are noted if they were detected, and not if they were
    given.
    """
    rule = {"columns": ["y"], "time": "ds", "id": None, "gaps": "error"} | options
    opened = {name: rule.pop(name) for name in ("delimiter", "decimal") if name in rule}
    table = build_table(open_file(io.StringIO(text), **opened), **rule)
    assert table.series[0].values[:, 0].tolist() == values and table.notes == notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "ds,p;q,y\n1,2;3,4\n2,3;4,5\n",
            "expected one delimiter that fits, got ',' and ';'; say --delimiter",
        ),
        ("ds;y\n1;1,5\n2;2.5\n", "expected one decimal sign, got '1,5' and '2.5'; say --decimal"),
        (
            "ds;y\n1;1,234\n2;3\n",
            "expected an unmistakable decimal sign, got only cells such as '1,234'",
        ),
        (
            "ds;y\n1;1.234\n2;987\n",
            "expected an unmistakable decimal sign, got only cells such as '1.234'; say",
        ),
        (
            "ds;y;z\n1;1.234;1.5\n2;987;1,5\n",
            "expected one decimal sign, got '1,5' and '1.5'; say --decimal",
        ),
        (
            "ds|y\n1|1.234\n2|1,234\n",
            "expected one decimal sign, got '1,234' and '1.234'; say --decimal",
        ),
        ("ds;y\n1;2\n2;3;4\n", "line 3: expected 2 cells as in the header, got 3"),
        (
            "# Notes\n\nRead this, please.\n",
            r"rows of numbers, got text \(line 3: expected 1 cell as in the header, got 2\); give a ",
        ),
        (
            "Station: Oslo\nExported: 2024-01-02, 10:00\nds,y\n1,2\n",
            "got text .line 2: .*; give a CSV file, or remove the lines above its header",
        ),
        ('{"a": [1, 2],\n "b": [3, 4]}\n', "got text .line 2: expected 3 cells .*, got 2"),
        ("ds,y\n2024-01-01\n", "^-: line 2: expected 2 cells as in the header, got 1"),
        ("y\n1,5\n2,5\n", "line 2: expected 1 cell as in the header, got 2"),
    ],
)
def test_ambiguous_files_are_errors(text: str, message: str) -> None:
    """Two readings are possible, or none."""
    with pytest.raises(InputError, match=message):
        read(text, columns=["y"])


@FIXED
@given(st.data())
def test_written_tables_are_read_back(data: st.DataObject) -> None:
    """csv.writer wrote them with any delimiter, decimal sign and quoting; the values are bit-equal."""
    delimiter = data.draw(st.sampled_from([",", ";", "tab", "|"]))
    decimal = data.draw(st.sampled_from([".", ","]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    names = data.draw(
        st.lists(NAMES.filter(lambda n: n not in ("", "ds")), min_size=1, max_size=4, unique=True)
    )
    number = st.floats(allow_nan=False, allow_infinity=False)
    rows = data.draw(
        st.lists(st.lists(number, min_size=len(names), max_size=len(names)), min_size=2, max_size=6)
    )
    text = io.StringIO()
    writer = csv.writer(text, delimiter={"tab": "\t"}.get(delimiter, delimiter), quoting=quoting)
    writer.writerow(["ds", *names])
    writer.writerows(
        [place, *(repr(value).replace(".", decimal) for value in row)]
        for place, row in enumerate(rows)
    )
    file = open_file(io.StringIO(text.getvalue()), delimiter, decimal)
    table = build_table(file, columns=names, time="ds", id=None, gaps="error")
    assert table.series[0].values.tolist() == rows


@FIXED
@given(
    st.text(st.sampled_from([*'ds,y;|\t\n\r"x019.-+:TZ_e ']), max_size=60) | st.text(max_size=60)
)
def test_any_text_gives_a_table_or_an_input_error(text: str) -> None:
    """The values of the table are finite; no other exception is raised."""
    for time, gaps in ((None, "error"), ("ds", "interpolate")):
        try:
            table = read("ds,y\n" * (time is not None) + text, time=time, gaps=gaps)
        except InputError:
            continue
        assert all(np.isfinite(series.values).all() for series in table.series)
