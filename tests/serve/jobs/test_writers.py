"""One table in three formats, written row by row and renamed when it is complete."""

import csv
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from convline.errors import ServeError
from convline.jobs.formats import MIN_ROWS, shortest, to_csv, to_jsonl
from convline.jobs.writers import open_part, open_table
from convline.runtime.rows import Columns, Row
from hypothesis import given, settings
from hypothesis import strategies as st

COLUMNS: Columns = {"path": str, "score": float, "error": str}
ROWS: list[Row] = [
    {"path": "a.png", "score": 1 / 3, "error": None},
    {"path": 'quo"ted, and\nbroken.png', "score": 1234567.0, "error": None},
    {"path": "raw\udcff.png", "score": 1.25e-7, "error": None},
    {"path": "naïve 写真.png", "score": None, "error": "no such file"},
]


def write(path: Path, rows: list[Row] | list[list[Row]]) -> None:
    with open_table(str(path), COLUMNS, io.BytesIO()) as append:
        for row in rows:  # one by one, as batches of one
            append(row if isinstance(row, list) else [row])


def test_three_formats_hold_the_same_table(tmp_path: Path) -> None:
    """The shortest digits of float32, and bytes that are not UTF-8 as escapes; each format is read
    by its standard reader.
    """
    expected = [
        ("a.png", 0.33333334, None),
        ('quo"ted, and\nbroken.png', 1234567.0, None),
        ("raw\\udcff.png", 1.25e-7, None),
        ("naïve 写真.png", None, "no such file"),
    ]
    for suffix in (".csv", ".jsonl", ".parquet"):
        write(tmp_path / f"t{suffix}", ROWS)
    with (tmp_path / "t.csv").open(encoding="utf-8", newline="") as file:
        text = list(csv.DictReader(file))
    from_csv = [
        (r["path"], float(r["score"]) if r["score"] else None, r["error"] or None) for r in text
    ]
    lines = (tmp_path / "t.jsonl").read_text().splitlines()
    from_json = [tuple(json.loads(line).values()) for line in lines]
    from_parquet = [
        tuple(row.values())
        for row in pyarrow.parquet.read_table(tmp_path / "t.parquet").to_pylist()
    ]
    assert from_csv == from_json == from_parquet == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv", "t.jsonl", "t.parquet"]


FIXED = settings(derandomize=True, database=None, deadline=None, max_examples=100)
SINGLE = st.floats(allow_nan=False, allow_infinity=False, width=32)


@FIXED
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "=1", "-5", 'q"', "a,b", "\r", "\0", "é", "\udcff", None]),
            st.none() | SINGLE,
        )
    )
)
def test_blocks_are_written_as_rows_are(cells: list[tuple]) -> None:
    """Each value alone, and each row by csv and json alone; many rows, which pyarrow joins, give
    the same.
    """
    rows: list[Row] = [{"path": word, "score": number} for word, number in cells]
    expected = io.StringIO(newline="")
    scores = [
        score or "" for score in shortest(np.array([number for _, number in cells], np.float64))
    ]
    for row, score in zip(rows, scores, strict=True):
        word = (row["path"] or "").replace("\udcff", "\\udcff")
        word = f"'{word}" if word[:1] in ("=", "\r") else word
        if "\r" in word:  # before Python 3.13, csv does not quote it
            expected.write(f'"{word}",{score}\n')
        else:
            csv.writer(expected, lineterminator="\n").writerow([word, score])
    for times in (1, MIN_ROWS):  # pyarrow encodes MIN_ROWS
        assert to_csv(rows * times).decode() == expected.getvalue() * times
    clean = [row["path"] and row["path"].replace("\udcff", "\\udcff") for row in rows]
    lines = [
        {"path": w, "score": None if s == "" else float(s)}
        for w, s in zip(clean, scores, strict=True)
    ]
    for times in (1, MIN_ROWS):  # pyarrow encodes MIN_ROWS
        assert [json.loads(line) for line in to_jsonl(rows * times).splitlines()] == lines * times


@FIXED
@given(
    st.lists(
        SINGLE | st.floats(2**-24, 2**37, width=32) | st.decimals(-99, 99, places=3).map(float),
        min_size=1,
    )
)
def test_numbers_read_back_as_the_same_float32(numbers: list[float]) -> None:
    """Readers of CSV and JSON make a float64 of them first.

    No shorter %g text gives the same float32.
    """
    single = np.array(numbers, np.float32)
    for number, text in zip(single, shortest(single), strict=True):
        assert text is not None and np.float32(float(text)) == number
        count = len(text.partition("e")[0].lstrip("-0.").replace(".", "").rstrip("0"))
        assert count <= 1 or np.float32(float(f"{number:.{count - 1}g}")) != number


def test_numbers_are_written_as_pyarrow_writes_them() -> None:
    """Powers of ten and their neighbours, and 300,000 bit patterns of float32."""
    powers = (10.0 ** np.arange(-45, 39)).astype(np.float32)
    bits = np.arange(0, 2**32, 2**32 // 300_000 + 1, dtype=np.uint64).astype(np.uint32)
    numbers = np.concatenate(
        [
            powers,
            np.nextafter(powers, np.float32(0)),
            np.nextafter(powers, np.float32(1)),
            -powers,
            bits.view(np.float32),
        ]
    )
    numbers = numbers[np.isfinite(numbers)]
    assert shortest(numbers) == pyarrow.array(numbers).cast(pyarrow.string()).to_pylist()


@pytest.mark.parametrize("rows", [7, MIN_ROWS])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_meter_reading_keeps_its_steps(tmp_path: Path, suffix: str, rows: int) -> None:
    """Whole numbers that float32 holds exactly: a meter that rises by one a day."""
    values = [1_234_561.0 + k for k in range(rows)]
    write(
        tmp_path / f"t{suffix}",
        [[{"path": "meter", "score": value, "error": None} for value in values]],
    )
    if suffix == ".parquet":
        found = pyarrow.parquet.read_table(tmp_path / "t.parquet")["score"].to_pylist()
    elif suffix == ".jsonl":
        found = [
            json.loads(line)["score"] for line in (tmp_path / "t.jsonl").read_text().splitlines()
        ]
    else:
        found = [
            float(row["score"])
            for row in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
        ]
    assert found == values


@pytest.mark.parametrize("rows", [1, MIN_ROWS])
def test_numbers_that_are_not_finite_are_missing_values(rows: int) -> None:
    """JSON has no such numbers."""
    for number in (np.nan, np.inf, -np.inf, 1e300):
        block = {"score": np.full(rows, number), "error": np.full(rows, b"x")}
        assert (
            to_csv(block) == b",x\n" * rows
            and json.loads(to_jsonl(block).split(b"\n")[0])["score"] is None
        )


def test_without_pyarrow_the_table_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """It equals the table that pyarrow joins."""
    block = {
        "ds": np.array([b"2024-01-01", b"", b"7"] * MIN_ROWS),
        "yhat": np.random.default_rng(0).normal(size=3 * MIN_ROWS),
        "status": (["ok", "a, b", None], np.arange(3 * MIN_ROWS) % 3),
    }
    whole = to_csv(block), to_jsonl(block)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyarrow", None)
        assert (to_csv(block), to_jsonl(block)) == whole


def test_many_rows_are_written_without_pandas() -> None:
    """The modules of a new process: importing pandas takes one to two seconds, and nothing here
    needs it.
    """
    code = (
        "import sys, numpy as np; from convline.jobs.formats import to_csv, to_jsonl; "
        "block = {'ds': np.array([b'1', b''] * 999), 'yhat': np.ones(1998), "
        "'status': (['ok', 'a'], np.ones(1998, int))}; "
        "to_csv(block), to_jsonl(block); "
        "print('pyarrow.compute' in sys.modules, 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_table_without_rows_has_its_header(tmp_path: Path) -> None:
    """Parquet keeps the types."""
    write(tmp_path / "t.csv", [])
    write(tmp_path / "t.parquet", [])
    assert (tmp_path / "t.csv").read_text() == "path,score,error\n"
    assert [str(field.type) for field in pyarrow.parquet.read_schema(tmp_path / "t.parquet")] == [
        "string", "double", "string",
    ]  # fmt: skip


def test_parquet_is_written_in_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """25 rows in groups of 10 lines' bytes; none is lost, and the order is kept."""
    monkeypatch.setattr(
        "convline.jobs.writers.BLOCK", 10 * len('{"path": "10", "score": 10, "error": null}\n')
    )
    rows: list[Row] = [{"path": str(i), "score": float(i), "error": None} for i in range(25)]
    write(tmp_path / "t.parquet", rows)
    file = pyarrow.parquet.ParquetFile(tmp_path / "t.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == [10, 10, 5]
    assert file.read().to_pylist() == rows


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "@sum",
        "\tx",
        "\rx",
        "=cmd|' /C calc'!A0",
        "-2+3+cmd|' /C calc'!A0",
        "+SUM(A1:A9)",
        "-a\n(b)",
        "+'file:///etc/passwd'#$x.A1",
        "-[x.xls]Sheet1",
    ],
)
def test_formulas_are_quoted_in_csv_only(tmp_path: Path, text: str) -> None:
    """OWASP's list (CSV injection); of + and - only those that call or refer to something."""
    write(tmp_path / "t.csv", [{"path": text, "score": -1.0, "error": None}])
    write(tmp_path / "t.jsonl", [{"path": text, "score": -1.0, "error": None}])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert list(csv.reader(file))[1] == [f"'{text}", "-1", ""]
    assert json.loads((tmp_path / "t.jsonl").read_text())["path"] == text


def test_different_texts_stay_different(tmp_path: Path) -> None:
    """Removing one ' gives back each text that was changed."""
    given = ["=1", "'=1", "''=1", "'-A", "-A", "'", "'x", "x"]
    write(tmp_path / "t.csv", [{"path": text, "score": 0.0, "error": None} for text in given])
    with (tmp_path / "t.csv").open(newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == ["'=1", "''=1", "'''=1", *given[3:]]


@pytest.mark.parametrize("text", ["-5", "+1.5", "-A", "+B", "-x.png", "+cmd", "--", "-north/3.csv"])
def test_ids_and_numbers_are_written_unchanged(tmp_path: Path, text: str) -> None:
    """In every format, because tables are joined by ids."""
    for suffix in (".csv", ".jsonl"):
        write(tmp_path / f"t{suffix}", [{"path": text, "score": 0.0, "error": None}])
    assert (tmp_path / "t.csv").read_text().splitlines()[1] == f"{text},0,"
    assert json.loads((tmp_path / "t.jsonl").read_text())["path"] == text


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_an_exception_leaves_an_older_table_unchanged(tmp_path: Path, suffix: str) -> None:
    """The exception comes half-way through the rows."""
    path = tmp_path / f"t{suffix}"
    path.write_text(old := "path,label,status,error\nold,,,\n")
    with pytest.raises(KeyboardInterrupt), open_table(str(path), COLUMNS, io.BytesIO()) as append:
        append(ROWS[:2])
        raise KeyboardInterrupt
    assert path.read_text() == old


def test_rows_are_in_the_part_before_the_table_is_closed(tmp_path: Path) -> None:
    """stdout stays open afterwards."""
    stdout = io.BytesIO()
    with open_table(str(tmp_path / "t.csv"), COLUMNS, stdout) as append:
        append(ROWS[:1])
        assert (tmp_path / "t.csv.part").read_text() == "path,score,error\na.png,0.33333334,\n"
    with open_table("-", COLUMNS, stdout) as append:
        append(ROWS[:1])
    assert stdout.getvalue() == b"path,score,error\na.png,0.33333334,\n"


def test_a_part_is_cut_to_the_bytes_to_keep(tmp_path: Path) -> None:
    """Later bytes are removed, even if fewer are written than were there."""
    (tmp_path / "t.csv.part").write_text("path,score,error\na,1,\nhalf a row of a killed run")
    (tmp_path / "t.csv.part.journal").touch()
    kept = hashlib.sha256(b"path,score,error\na,1,\n").hexdigest()
    with (
        pytest.raises(ServeError, match="got other bytes"),
        open_part(str(tmp_path / "t.csv"), COLUMNS, io.BytesIO(), 21, kept),
    ):
        pass
    assert (tmp_path / "t.csv.part").read_text().endswith("half a row of a killed run")
    with open_part(str(tmp_path / "t.csv"), COLUMNS, io.BytesIO(), 22, kept) as part:
        part.append(b"b,2,\n")
        assert part.size == 27
    assert (tmp_path / "t.csv").read_text() == "path,score,error\na,1,\nb,2,\n"


def test_unwritable_places_are_errors(tmp_path: Path) -> None:
    """A folder that does not exist, and a folder of that name."""
    (tmp_path / "f.csv").mkdir()
    for name, reason in (("none/t.csv", "make the folder"), ("f.csv", "got a folder")):
        with pytest.raises(ServeError, match=reason):
            write(tmp_path / name, [])


def test_a_part_is_never_written_through_a_link(tmp_path: Path) -> None:
    """A file that a link in the part's place leads to is unchanged."""
    (tmp_path / "precious").write_text("gold")
    (tmp_path / "t.csv.part").symlink_to(tmp_path / "precious")
    with pytest.raises(ServeError, match="cannot be written"):
        write(tmp_path / "t.csv", ROWS)
    assert (tmp_path / "precious").read_text() == "gold"
