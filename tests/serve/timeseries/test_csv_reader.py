"""CSV files are read by pyarrow where that is unambiguous, else by the exact reader; both give the
same.
"""

import io
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from convline.errors import InputError
from convline.timeseries import csv_pyarrow
from convline.timeseries.csv_reader import open_csv
from convline.timeseries.raw_table import encode_words, order_by_appearance
from convline.timeseries.series import build_table
from hypothesis import given, settings
from hypothesis import strategies as st

FIXED = settings(
    derandomize=True, database=None, deadline=None, max_examples=80
)  # the same examples in each run


@pytest.fixture(autouse=True, scope="module")
def small_files_are_large() -> Iterator[None]:
    before, csv_pyarrow.LARGE = csv_pyarrow.LARGE, 0
    yield
    csv_pyarrow.LARGE = before


def outcome(
    text: str, keys: list[str], *, fast: bool, opened: tuple[str, str] = ("auto", "auto"), **rule
) -> object:
    """Return the result of a text with pyarrow allowed, or by the exact reader alone."""
    try:
        file = open_csv(io.StringIO(text), *opened, keys)
        table = build_table(file if fast else replace(file, fast={}), **rule)
    except InputError as error:
        return str(error)
    series = [
        (one.id, one.times.dtype.kind, one.times.tolist(), one.values.tolist())
        for one in table.series
    ]
    return repr((series, table.step, table.filled, table.notes))


ODD = [
    "+3", " 4", "5 ", "1e400", "NaN", "NA", "-nan", "inf", "1_0", "0x1", "1,5", ".5", "1.",
    "\u0661", "\x1f7", "\xa08", "1\x00", "\u00e9", " a", "20240101", "#N/A", "nAn", "N/a",
    "4.9e-324", "-0", "2024-01-03 10:00", '"1"',
]  # fmt: skip


@pytest.mark.parametrize("cell", ODD)
def test_both_readers_agree_on_every_odd_cell(cell: str) -> None:
    """One odd cell in a well-formed file, in each column and in the first and last row."""
    rule = {"columns": ["y"], "time": "ds", "id": "u", "gaps": "interpolate"}
    for sign, row, column in itertools.product(",;", (0, 1, 3), range(3)):
        rows = [[f"2024-01-0{t}", "a", str(t)] for t in range(1, 5)]
        rows[row][column] = cell
        text = "\n".join(sign.join(line) for line in [["ds", "u", "y"], *rows]) + "\n"
        assert outcome(text, ["ds", "u"], fast=True, **rule) == outcome(
            text, [], fast=False, **rule
        )


@FIXED
@given(st.data())
def test_both_readers_agree_on_random_files(data: st.DataObject) -> None:
    """A well-formed file, also with up to three odd cells, lines and ends of lines."""
    sign, end = (
        data.draw(st.sampled_from(",;|\t")),
        data.draw(st.sampled_from(["\n", "\r\n", "\n\n"])),
    )
    days = data.draw(
        st.sampled_from(
            ["2024-01-0{}", "{}", "2024-0{}", "2024-01-0{} 05:00", "2024-01-0{}T00:00Z"]
        )
    )
    good = st.sampled_from(
        ["1", "-2.5", "1e3", "0.1", "7", "nan", "", *data.draw(st.sampled_from([[], ["1.234"]]))]
    )
    rows = [
        [
            days.format(k + 1),
            data.draw(st.sampled_from(["a", "b", "1", " a"])),
            data.draw(good),
            data.draw(good),
        ]
        for k in range(data.draw(st.integers(1, 8)))
    ]
    for _ in range(data.draw(st.integers(0, 3))):
        data.draw(st.sampled_from(rows))[data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(ODD) | st.text()
        )
    text = end.join(sign.join(row) for row in [["ds", "u", "y", "z"], *rows])
    signs = ["auto", {"\t": "tab"}.get(sign, sign)], ["auto", ".", ","]
    opened = tuple(data.draw(st.sampled_from(choices)) for choices in signs)
    columns, gaps = [["y"], ["y", "z"], ["u"]], ["error", "interpolate"]
    rules = {"columns": columns, "time": ["ds", None], "id": ["u", None], "gaps": gaps}
    rule = {name: data.draw(st.sampled_from(choices)) for name, choices in rules.items()}
    text += data.draw(st.sampled_from(["", end, " \n"]))
    expected = outcome(text, [], fast=False, opened=opened, **rule)
    assert outcome(text, ["ds", "u"], fast=True, opened=opened, **rule) == expected


@FIXED
@given(
    st.sampled_from(["", "ds,u,y\n", "y\n", "\n\nu,ds,y\n"]),
    st.text(st.sampled_from([*'ds,yu;|\t\n\r"x01.-_e ']), max_size=60),
)
def test_both_readers_agree_on_random_text(header: str, text: str) -> None:
    for time, id in ((None, None), ("ds", None), ("ds", "u")):
        rule = {"columns": ["y"], "time": time, "id": id, "gaps": "error"}
        expected = outcome(header + text, [], fast=False, **rule)
        assert outcome(header + text, ["ds", "u"], fast=True, **rule) == expected


def test_a_plain_file_is_read_by_pyarrow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact reader is never called.

    It reads files with quotes, and all files where pyarrow is not installed.
    """
    text = "unique_id,ds,y\n" + "".join(
        f"{u},2024-01-0{t},{t}\n" for u in "ab" for t in range(1, 9)
    )
    file = open_csv(io.StringIO(text), keys=["unique_id", "ds"])
    table = build_table(file, columns=["y"], time="ds", id="unique_id", gaps="error")
    assert {*file.fast} == {"unique_id", "ds", "y"} and "exact" not in vars(file)
    assert [one.values[:, 0].tolist() for one in table.series] == [[1, 2, 3, 4, 5, 6, 7, 8]] * 2
    assert not open_csv(io.StringIO(text.replace("b", '"b"')), keys=["unique_id", "ds"]).fast
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert not open_csv(io.StringIO(text), keys=["unique_id", "ds"]).fast


@pytest.mark.parametrize("sign", ["\t", "|", ";"])
def test_one_column_decides_the_decimal_sign_of_another(sign: str) -> None:
    """1.234.567 has points between thousands, so 1.234 beside it is 1234."""
    rows = [["2024-01-01", "1.234", "x"], ["2024-01-02", "2.345", "1.234.567"]]
    rows += [[f"2024-01-0{t}", "3.456", "7"] for t in range(3, 7)]
    text = "\n".join(sign.join(row) for row in [["ds", "y", "z"], *rows]) + "\n"
    file = open_csv(io.StringIO(text), keys=["ds"])
    table = build_table(file, columns=["y"], time="ds", id=None, gaps="error")
    assert table.series[0].values[:2, 0].tolist() == [1234, 2345]


def test_the_year_0_is_left_to_the_exact_reader() -> None:
    """Python's calendar begins with year 1; pyarrow reads year 0 as well."""
    for year, columns in (("2024", {"ds", "y"}), ("0000", set())):
        data = f"ds,y\n2024-01-01,1\n{year}-01-02,2\n".encode()
        first = ["2024-01-01", "1"]
        found = csv_pyarrow.read_columns(data, 5, ["ds", "y"], first, ",", ".", ["ds"])
        assert found.keys() == columns


def test_reading_imports_no_pandas(tmp_path: Path) -> None:
    """sys.modules of a new process: pandas is installed, and would cost two seconds."""
    days = pd.date_range("2024-01-01", periods=9)
    frame = pd.DataFrame({"unique_id": ["a"] * 9, "ds": days, "y": [1.0, None] + [2.0] * 7})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    code = """if True:
        import sys
        from convline.timeseries import csv_pyarrow, series
        csv_pyarrow.LARGE = 0
        for name in ("x.csv", "x.parquet"):
            file = series.open_file(name, keys=["unique_id", "ds"])
            series.build_table(file, columns=["y"], time="ds", id="unique_id", gaps="interpolate")
        sys.exit("pyarrow" not in sys.modules or "pandas" in sys.modules)"""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "serve")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


@FIXED
@given(st.lists(st.sampled_from("abcd")), st.permutations("abcdabx"))
def test_codes_are_ordered_by_first_appearance(cells: list[str], words: list[str]) -> None:
    """They equal those of `encode_words`. Words may have any order, repeat, or be unused."""
    places = [k for k, _ in sorted(enumerate(words), key=lambda pair: pair[1])]
    codes = np.array([places[[words[p] for p in places].index(cell)] for cell in cells], np.int32)
    found, there = order_by_appearance(codes, words)
    expected, known = encode_words(cells)
    assert found.tolist() == expected.tolist() and there == known
