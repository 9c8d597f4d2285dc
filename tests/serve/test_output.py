"""The same rows in three forms, written as they come and renamed when whole."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve.digits import FEW, digits
from serve.errors import ServeError
from serve.output import FEW_ROWS, Columns, Row, open_part, open_table, to_csv, to_jsonl

COLUMNS: Columns = {"path": str, "score": float, "error": str}
ROWS: list[Row] = [
    {"path": "a.png", "score": 1 / 3, "error": None},
    {"path": 'quo"ted, and\nbroken.png', "score": 1234567.0, "error": None},
    {"path": "raw\udcff.png", "score": 1.2345678e-7, "error": None},
    {"path": "naïve 写真.png", "score": None, "error": "no such file"},
]


def write(path: Path, rows: list[Row]) -> None:
    with open_table(str(path), COLUMNS, io.BytesIO()) as append:
        for row in rows:  # one by one, as batches of one
            append([row])


def test_three_forms_are_one_table(tmp_path: Path) -> None:
    """Oracle: numbers rounded to 6 digits by hand, lone bytes shown; each form read by its standard reader."""
    expected = [
        ("a.png", 0.333333, None),
        ('quo"ted, and\nbroken.png', 1.23457e6, None),
        ("raw\\udcff.png", 1.23457e-7, None),
        ("naïve 写真.png", None, "no such file"),
    ]
    for suffix in (".csv", ".jsonl", ".parquet"):
        write(tmp_path / f"t{suffix}", ROWS)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        text = list(csv.DictReader(file))
    from_csv = [(r["path"], float(r["score"]) if r["score"] else None, r["error"] or None) for r in text]
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    from_json = [tuple(json.loads(line).values()) for line in lines]
    from_parquet = [tuple(row.values()) for row in pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()]
    assert from_csv == from_json == from_parquet == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.jsonl", "t.parquet"]


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "=1", "-5", 'q"', "a,b", "\r", "é", "\udcff", None]),
            st.none() | st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_columns_are_written_as_rows_are(cells: list[tuple]) -> None:
    """Oracle: each value by Python's own formatting, each row by csv and json alone."""
    rows: list[Row] = [{"path": word, "score": number} for word, number in cells]
    expected = io.StringIO(newline="")
    for row in rows:
        word = (row["path"] or "").replace("\udcff", "\\udcff")
        word = f"'{word}" if word[:1] in ("=", "\r") else word
        score = "" if row["score"] is None else f"{row['score']:.6g}"
        quoting = csv.QUOTE_ALL if "\r" in word else csv.QUOTE_MINIMAL
        csv.writer(expected, lineterminator="\n", quoting=quoting).writerow([word, score])
    for times in (1, FEW_ROWS):
        assert to_csv(rows * times).decode() == expected.getvalue() * times
    clean = [row["path"] and row["path"].replace("\udcff", "\\udcff") for row in rows]
    six = [None if row["score"] is None else float(f"{row['score']:.6g}") for row in rows]
    lines = [{"path": word, "score": score} for word, score in zip(clean, six, strict=True)]
    for times in (1, FEW_ROWS):
        assert [json.loads(line) for line in to_jsonl(rows * times).splitlines()] == lines * times


@settings(derandomize=True, database=None, deadline=None, max_examples=100)
@given(
    st.lists(
        st.floats(allow_infinity=False) | st.floats(1e-6, 1e7) | st.decimals(-1000, 1000, places=3).map(float),
        min_size=1,
    )
)
def test_many_numbers_are_written_as_each(numbers: list[float]) -> None:
    """Oracle: Python's own %.6g, one at a time; of nan nothing."""
    found = digits(np.resize(numbers, 2 * FEW))
    assert [bytes(row[row > 0]).decode() for row in found[: len(numbers)]] == [
        "" if number != number else f"{number:.6g}" for number in numbers[: 2 * FEW]
    ]


@pytest.mark.parametrize("power", range(-6, 8))
def test_halves_and_powers_are_written_as_each(power: int) -> None:
    """Oracle: Python's own %.6g; numbers that lie half-way as they are written, and neighbours of powers of ten."""
    halves = (10.0 * np.random.default_rng(0).integers(10**5, 10**6, 5000) + 5) / 10.0 ** (6 - power)
    near = [np.nextafter(10.0**power, 0), 10.0**power, np.nextafter(10.0**power, np.inf), 9.999995 * 10.0**power]
    numbers = np.concatenate([halves, -halves, near])
    assert [bytes(row[row > 0]).decode() for row in digits(numbers)] == [f"{number:.6g}" for number in numbers.tolist()]


@pytest.mark.parametrize("name", ["CO2%", "%s", "%(x)s", "{y}", "{{ y }}", "$y", "a.b[0]", 'q"', "\\1", "é\n"])
@pytest.mark.parametrize("times", [1, FEW_ROWS])
def test_a_column_may_have_any_name(tmp_path: Path, name: str, times: int) -> None:
    """Oracle: the rows themselves. Column names are the user's, and signs of a template are signs like others."""
    columns: Columns = {"path": str, f"yhat-{name}": float}
    rows: list[Row] = [{"path": "100 %", f"yhat-{name}": 0.5}] * times
    for suffix in (".csv", ".jsonl", ".parquet"):
        with open_table(str(tmp_path / f"t{suffix}"), columns, io.BytesIO()) as append:
            append(rows)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        assert [dict(row) for row in csv.DictReader(file)] == [{key: str(row[key]) for key in row} for row in rows]
    assert [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()] == rows
    assert pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist() == rows


def test_no_rows_is_an_empty_table(tmp_path: Path) -> None:
    """Oracle: a header and nothing else; Parquet keeps the types."""
    write(tmp_path / "t.csv", [])
    write(tmp_path / "t.parquet", [])
    assert (tmp_path / "t.csv").read_text() == "path,score,error\n"
    assert [str(field.type) for field in pyarrow.parquet.read_schema(tmp_path / "t.parquet")] == [
        "string", "double", "string",
    ]  # fmt: skip


def test_parquet_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: 25 rows in groups of 10 lines' bytes; none lost, order kept."""
    monkeypatch.setattr("serve.output.GROUP", 10 * len('{"path": "10", "score": 10, "error": null}\n'))
    rows: list[Row] = [{"path": str(i), "score": float(i), "error": None} for i in range(25)]
    write(tmp_path / "t.parquet", rows)
    file = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 5]
    assert file.read().to_pylist() == rows


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x.png", "@sum", "\tx", "\rx", "=cmd|' /C calc'!A0"])
def test_formulas_are_defused_in_csv_alone(tmp_path: Path, text: str) -> None:
    """Oracle: OWASP's list of first characters (CSV injection); the quote mark is in CSV only."""
    write(tmp_path / "t.csv", [{"path": text, "score": -1.0, "error": None}])
    write(tmp_path / "t.jsonl", [{"path": text, "score": -1.0, "error": None}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == [f"'{text}", "-1", ""]
    assert json.loads((tmp_path / "t.jsonl").read_text())["path"] == text


def test_plain_negative_numbers_are_left_alone(tmp_path: Path) -> None:
    """Oracle: a time index of -5 is text in the table and no formula."""
    write(tmp_path / "t.csv", [{"path": "-5", "score": 0.0, "error": "+1.5"}])
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == "-5,0,+1.5"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_interrupted_table_is_never_seen(tmp_path: Path, suffix: str) -> None:
    """Oracle: an exception half-way leaves an older file as it was."""
    path = tmp_path / f"t{suffix}"
    path.write_text(old := "path,label,status,error\nold,,,\n")
    with pytest.raises(KeyboardInterrupt), open_table(str(path), COLUMNS, io.BytesIO()) as append:
        append(ROWS[:2])
        raise KeyboardInterrupt
    assert path.read_text() == old


def test_rows_are_visible_while_it_runs(tmp_path: Path) -> None:
    """Oracle: the part file holds the row before the table is closed; stdout stays open afterwards."""
    stdout = io.BytesIO()
    with open_table(str(tmp_path / "t.csv"), COLUMNS, stdout) as append:
        append(ROWS[:1])
        assert (tmp_path / "t.csv.part").read_text() == "path,score,error\na.png,0.333333,\n"
    with open_table("-", COLUMNS, stdout) as append:
        append(ROWS[:1])
    assert stdout.getvalue() == b"path,score,error\na.png,0.333333,\n"


def test_a_part_goes_on_where_it_is_told(tmp_path: Path) -> None:
    """Oracle: what lies beyond the bytes to keep is cut off, though less is written than lay there."""
    (tmp_path / "t.csv.part").write_text("path,score,error\na,1,\nhalf a row of a killed run")
    (tmp_path / "t.csv.part.journal").touch()
    with open_part(str(tmp_path / "t.csv"), COLUMNS, io.BytesIO(), 22) as part:
        part.append(b"b,2,\n")
        assert part.size == 27
    assert (tmp_path / "t.csv").read_text() == "path,score,error\na,1,\nb,2,\n"


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    """Oracle: a folder that does not exist, and a folder of that name."""
    (tmp_path / "f.csv").mkdir()
    for name, reason in (("none/t.csv", "make the folder"), ("f.csv", "got a folder")):
        with pytest.raises(ServeError, match=reason):
            write(tmp_path / name, [])


def test_a_part_is_never_written_through_a_link(tmp_path: Path) -> None:
    """Oracle: a file that a link at the part's place leads to stays as it was."""
    (tmp_path / "precious").write_text("gold")
    (tmp_path / "t.csv.part").symlink_to(tmp_path / "precious")
    with pytest.raises(ServeError, match="cannot be written"):
        write(tmp_path / "t.csv", ROWS)
    assert (tmp_path / "precious").read_text() == "gold"
