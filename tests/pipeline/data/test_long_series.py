"""Series of a file that is read in pieces: they equal those of the file read as a whole, and so do
the errors; memory is that of a piece.
"""

import errno
import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from convline.errors import InputError
from convline.timeseries import pieces
from convline.timeseries.parquet_reader import ParquetTable

from pipeline.core.errors import StageError
from pipeline.data import long_series, series_sources

Make = Callable[..., Any]
DAY = np.datetime64("2020-01-30")


@pytest.fixture
def read(
    tmp_path: Path, spec_of: Make, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Any, Any]]:
    """Return a function that reads a CSV as a whole, and in pieces of some 15 rows."""

    def both(text: str, suffix: str = "csv", **options: Any) -> tuple[Any, Any]:
        path = tmp_path / f"mine.{suffix}"
        if suffix == "parquet":
            write_parquet(path, text)
        else:
            path.write_bytes(text.encode())
        spec, found = spec_of("csv", path=str(path), **options), []
        for long in (2**28, 0):
            monkeypatch.setattr(pieces, "LONG", long)
            monkeypatch.setattr(pieces, "PIECE", 300)
            monkeypatch.setattr(long_series, "IN_MEMORY", 0)
            assert pieces.is_long(path, ()) == (not long)
            try:
                found.append(series_sources.series(spec, 3, 2))
            except InputError as error:
                found.append(str(error))
        return found[0], found[1]

    return both


def write_parquet(path: Path, text: str) -> None:
    """Write a CSV with the columns ds, id and numbers as Parquet, an empty cell as null."""
    import pyarrow
    from pyarrow import parquet

    head, *rows = (line.split(",") for line in text.splitlines())
    columns: dict[str, Any] = dict(zip(head, map(list, zip(*rows, strict=True)), strict=True))
    for name, cells in columns.items():
        if name == "ds":
            columns[name] = np.array(cells, "datetime64[s]")
        elif name != "id":
            columns[name] = [float(cell) if cell else None for cell in cells]
    parquet.write_table(pyarrow.table(columns), path, row_group_size=40)


def table(ids: str = "ab", sort: bool = True, missing: bool = True, rows: int = 90) -> str:
    """Return days and two columns of each id; with missing rows and cells, runs of them too."""
    lines = []
    for k in range(rows):
        for name in ids:
            if missing and (k % 17 == 5 or 40 < k < 60) and name == "a":
                continue
            cells = [f"{(k * 7919 + len(lines)) % 1009 / 8}", f"{k / 4}"]
            if missing and (k % 11 == 3 or 20 < k < 38):
                cells[k % 2] = ""
            lines.append([f"{DAY + k}", name, *cells])
    if sort:
        lines.sort(key=lambda line: line[1])
    return "\n".join(",".join(line) for line in [["ds", "id", "y", "z"], *lines]) + "\n"


def assert_equal(whole: Any, parts: Any) -> None:
    assert whole[1] == parts[1]
    for split, series in whole[0].items():
        assert [one.id for one in series] == [one.id for one in parts[0][split]]
        for one, other in zip(series, parts[0][split], strict=True):
            np.testing.assert_array_equal(one.times, other.times)
            np.testing.assert_array_equal(one.values, other.values)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("sort", [True, False], ids=["sorted by id", "sorted by time"])
def test_pieces_with_gaps_give_the_series_of_the_whole(read: Make, suffix: str, sort: bool) -> None:
    """Bit for bit: rows and cells are missing in the middle of pieces, across cuts, and for longer
    than a piece.
    """
    whole, parts = read(table(sort=sort), suffix, time="ds", id="id", gaps="interpolate")
    assert_equal(whole, parts)
    assert whole[1]["filled"] > 60 and len(whole[0]["train"]) == 2


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (table("a", missing=False), {"id": "", "columns": ["z"]}),
        (table("a", missing=False).replace("\n", "\r\n"), {"time": "ds", "id": "id"}),
        (table(missing=False).replace(",", ";").replace(".", ","), {"time": "ds", "id": "id"}),
        ('"y"\n' + "".join(f'"{k}.5"\n' for k in range(200)), {}),
        ("y\n" + "".join("\n" if k % 7 == 6 else f"{k}.5\n" for k in range(200)) + "\n\n", {"gaps": "interpolate"}),
        ("ds,y\n" + "".join(f"{DAY + k}T12:00+02:00,{k % 7}\n" for k in range(90)), {}),
        ("month,y\n" + "".join(f"{1990 + k // 12}-{k % 12 + 1:02},{k % 7}\n" for k in range(90)), {"time": "month"}),
        ("\n\n# no,y\n" + "".join(f"{k},{k % 7}\n" for k in range(90)), {"time": "# no"}),
    ],
)  # fmt: skip
def test_pieces_of_other_forms_give_the_series_of_the_whole(
    read: Make, text: str, options: dict[str, Any]
) -> None:
    """Without ids or times, with the line ends of Windows, with commas in numbers, in quotes, empty
    lines as missing values, with an offset, by months, and behind empty lines.
    """
    options = {key: value for key, value in options.items() if value}
    whole, parts = read(text, **options)
    assert not isinstance(whole, str), whole
    assert_equal(whole, parts)


LINES = table("a", missing=False).splitlines(keepends=True)


@pytest.mark.parametrize(
    "text",
    [
        "".join([*LINES[:50], *LINES[51:]]),
        "".join([*LINES[:50], LINES[48], *LINES[50:]]),
        "".join([*LINES[:50], LINES[50].replace("12.25", "twelve"), *LINES[51:]]),
        "".join([*LINES[:50], LINES[50].replace("12.25", ""), *LINES[51:]]),
        "".join([*LINES[:50], "1,2,3\n", *LINES[50:]]),
        "".join([*LINES[:50], '"1\n', *LINES[50:]]),
    ],
    ids=["a gap", "a row twice", "no number", "no cell", "too few cells", "a quote"],
)
def test_errors_name_the_line_of_the_file(read: Make, text: str) -> None:
    """As those of the file read as a whole do."""
    whole, parts = read(text, time="ds", id="id", columns=["y", "z"])
    assert isinstance(whole, str) and ": line " in whole and parts == whole


def dated(steps: dict[str, list[int]]) -> str:
    """Return rows of 17 bytes, sorted by id, on the given days."""
    rows = [f"{DAY + k},{name},{k % 7}.5" for name, days in steps.items() for k in days]
    return "\n".join(["ds,id,y", *rows]) + "\n"


OPTIONS = {"time": "ds", "id": "id", "gaps": "interpolate"}


def test_series_of_another_step_are_refused(read: Make) -> None:
    """Days, then weeks in later pieces: as of the file read as a whole, none is filled in."""
    whole, parts = read(dated({"a": [*range(40)], "b": [*range(0, 280, 7)]}), **OPTIONS)
    assert (
        "expected one step for all series, got 86400 seconds and 604800 seconds (series 'b')"
        in whole
    )
    assert parts == whole


def test_two_rows_of_a_series_do_not_decide_its_step(read: Make) -> None:
    """The first piece ends with two rows of b that are three days apart, which is a gap."""
    whole, parts = read(dated({"a": [*range(15)], "b": [0, *range(3, 30)]}), **OPTIONS)
    assert not isinstance(whole, str), whole
    assert_equal(whole, parts)


def test_of_a_series_that_has_begun_one_row_is_kept(
    read: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the piece that it is a row of: many ids would keep the whole file in memory."""
    kept: list[Any] = []
    split = long_series.rows_by_series

    def watched(*arguments: Any) -> Any:
        kept.extend(one for one in arguments[-1].values() if one.begun)
        return split(*arguments)

    monkeypatch.setattr(long_series, "rows_by_series", watched)
    read(dated({name: [*range(15)] for name in "abcdefgh"}), time="ds", id="id")
    arrays = [array for one in kept for array in (one.at, one.times, one.values)]
    assert len(arrays) > 60 and all(array.base is None for array in arrays)


def test_a_quote_that_is_not_closed_is_told_after_some_pieces(tmp_path: Path) -> None:
    """With its line: the rest of the file is not read into memory."""
    lines = [f"{k},{k % 7}" for k in range(2000)]
    lines[50] = '"50,1'
    path = tmp_path / "quote.csv"
    path.write_text("\n".join(["ds,y", *lines]) + "\n")
    with pytest.raises(InputError, match=r"line 52: .* 800 bytes, got a quote that is not closed"):
        list(pieces.csv_pieces(path, ["ds"], 200))
    inside = b'a\n"b\n' + b"c\n" * 5 + b'd"\n"e\n'
    assert pieces.end_of_lines(inside) == inside.rindex(b'"')


def test_a_full_disk_is_told_with_its_number(read: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's own error has none, which no stage could tell from a bug."""

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as told:
        read(table(missing=False), time="ds", id="id")
    assert told.value.errno == errno.ENOSPC


def test_columns_of_parquet_that_no_series_has_are_not_read(tmp_path: Path) -> None:
    """But for the first piece, where a column may be looked at for times."""
    import pyarrow
    from pyarrow import parquet

    columns = {"ds": np.arange(90), "note": [f"n{k}" for k in range(90)], "y": np.ones(90)}
    parquet.write_table(pyarrow.table(columns), path := tmp_path / "wide.parquet")
    for names in (None, ["y"]):
        parts = [*pieces.parquet_pieces(path, ["ds"], names, 40)]
        assert [[*part.columns] for part in parts] == [["ds", "y"]] * 5
    assert parts[0].encoded("note")[1] == [f"n{k}" for k in range(20)]
    with pytest.raises(ValueError, match="note"):
        parts[1].encoded("note")


def test_only_columns_that_are_read_make_a_parquet_file_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """90 rows of two columns in 8 bytes a cell are 1,440 bytes; a third is long text that no series
    has, and text that is read counts no more: it stays encoded. A CSV, which is parsed whole, by the file's.
    """
    import pyarrow
    from pyarrow import parquet

    columns = {"ds": np.arange(90), "note": [f"{k:0500d}" for k in range(90)], "y": np.ones(90)}
    parquet.write_table(pyarrow.table(columns), path := tmp_path / "wide.parquet")
    monkeypatch.setattr(pieces, "LONG", 2000)
    assert path.stat().st_size > 2000 and not pieces.is_long(path, ["ds"])
    assert not pieces.is_long(path, ["ds"], ["y"])
    assert not pieces.is_long(path, ["note"], ["y"])
    monkeypatch.setattr(pieces, "LONG", 1439)
    assert pieces.is_long(path, ["ds"]) and not pieces.is_long(path, [], ["y"])
    (csv := tmp_path / "wide.csv").write_text("ds,y\n" + "1,2\n" * 400)
    assert pieces.is_long(csv, ["ds"], ["y"])


def test_a_damaged_footer_is_one_sentence_or_read(tmp_path: Path) -> None:
    """Each byte of the footer is changed; pyarrow aborts the process for sizes of column chunks."""
    import pyarrow
    from pyarrow import parquet

    columns = {"ds": np.arange(9), "note": ["a"] * 9, "y": np.ones(9)}
    parquet.write_table(pyarrow.table(columns), path := tmp_path / "x.parquet", row_group_size=5)
    content = path.read_bytes()
    footer, refused = int.from_bytes(content[-8:-4], "little"), 0
    for place in range(len(content) - 8 - footer, len(content)):
        for value in (0x7F, 0xFF):
            path.write_bytes(content[:place] + bytes([value]) + content[place + 1 :])
            try:
                pieces.is_long(path, ["ds"])
            except InputError as error:
                assert "\n" not in str(error)
                refused += 1
    assert 0 < refused < 2 * footer


def test_an_unused_column_of_text_is_not_read_whole(
    tmp_path: Path, spec_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it holds dates is seen in its first rows, also where a later cell is none."""
    import pyarrow
    from pyarrow import parquet

    words = [f"{k:0400d}" for k in range(3000)]
    table = pyarrow.table({"y": np.arange(3000) % 7 + 0.5, "note": words})
    parquet.write_table(table, path := tmp_path / "text.parquet")
    assert len(pieces.first_rows(path).encoded("note")[0]) == pieces.LOOKED
    asked: list[str] = []
    prefetch = ParquetTable.prefetch

    def record(table: ParquetTable, names: Sequence[str]) -> None:
        asked.extend(names)
        prefetch(table, names)

    monkeypatch.setattr(ParquetTable, "prefetch", record)
    series_sources.csv_table(spec_of("csv", path=str(path)))
    assert asked == ["y"]
    dated = [f"2024-01-{1 + k % 28:02d}" for k in range(2999)] + ["soon"]
    table = pyarrow.table({"y": np.arange(3000) % 7 + 0.5, "note": dated})
    parquet.write_table(table, path)
    with pytest.raises(StageError, match="column 'note' looks like times"):
        series_sources.csv_table(spec_of("csv", path=str(path)))


def test_a_long_file_is_read_in_the_memory_of_a_piece(
    tmp_path: Path, spec_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1,000,000 rows are 16 MB in memory, read as a whole several times that; pieces of 16,384 rows
    are 0.3 MB.
    """
    import pyarrow
    from pyarrow import parquet

    values = np.random.default_rng(0).normal(size=1_000_000)
    whole = pyarrow.table({"ds": np.arange(1_000_000), "y": values})
    parquet.write_table(whole, tmp_path / "long.parquet", row_group_size=200_000)
    for module, name, size in (
        (pieces, "LONG", 0),
        (pieces, "PIECE", 2**18),
        (long_series, "IN_MEMORY", 0),
    ):
        monkeypatch.setattr(module, name, size)
    tracemalloc.start()
    try:
        found, _ = series_sources.series(spec_of("csv", path=str(tmp_path / "long.parquet")), 9, 9)
        assert tracemalloc.get_traced_memory()[1] < 6e6
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(found["train"][0].values[:, 0], values[:700_000])
