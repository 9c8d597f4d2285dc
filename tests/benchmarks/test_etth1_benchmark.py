"""benchmarks/etth1.py: the published rows are shown only for the published file."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import etth1

RUN = {"mse": 0.5, "mae": 0.25, "seconds": 1.0, "parameters": 10, "epochs": 2, "validation": 0.4}
RUN |= {"members": {}, "inside": 0.789, "interval_score": 2.5}


def test_published_rows_are_left_out_for_another_file(tmp_path: Path) -> None:
    """The file is known by its sha256; PatchTST's row at 96 hours is .370/.400."""
    other = tmp_path / "ETTh1.csv"
    other.write_text("date,OT\n2016-07-01 00:00:00,1.0\n")
    assert not etth1.is_etth1(other)
    found = {("ours", "multivariate", 96): [RUN]}
    assert ".370/.400" in etth1.tables(found, etth1.PUBLISHED)
    alone = etth1.tables(found, {task: {} for task in etth1.PUBLISHED})
    assert ".370" not in alone and "published" not in alone and ".500/.250" in alone


def test_the_table_has_the_share_inside_the_interval() -> None:
    """And its score: an interval from 1 to 3 scores its width, and 2 / .2 times what a target is
    beyond it.
    """
    assert "| 0.400 | 0.789 | 2.500 |" in etth1.tables(
        {("ours", "univariate", 96): [RUN]}, etth1.PUBLISHED
    )
    target = np.array([2.0, 0.5, 3.25])
    got = etth1.interval_score(np.ones(3), np.full(3, 3.0), target, 0.2)
    np.testing.assert_allclose(got, [2, 2 + 5, 2 + 2.5])


def test_the_table_says_what_was_chosen() -> None:
    """Means over two seeds of a member's share and of its error on validation rows."""
    runs = [
        RUN | {"members": {"a map": {"share": s, "validation_mse": e}}} for s, e in ((1, 2), (0, 4))
    ]
    lines = etth1.tables({("ours", "univariate", 96): runs}, etth1.PUBLISHED).splitlines()
    assert "| share, validation MSE | a map |" in lines and "| 96 | 0.50, 3.0000 |" in lines


def test_the_page_keeps_what_is_written_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs' tables and the protocol are replaced, and nothing between them."""
    page = tmp_path / "etth1.md"
    page.write_text(etth1.PAGE.read_text(encoding="utf-8"))
    by_hand = page.read_text().split("<!-- /protocol -->")[1].split("<!-- tables -->")[0]
    monkeypatch.setattr(etth1, "PAGE", page)
    monkeypatch.setattr(etth1, "run", lambda *_: RUN)
    monkeypatch.setattr(etth1, "is_etth1", lambda _: True)
    etth1.main([], standalone_mode=False)
    protocol, rest = page.read_text().split("<!-- /protocol -->")
    assert rest.startswith(f"{by_hand}<!-- tables -->\n\nBrackets") and len(by_hand) > 1000
    assert "python benchmarks" not in protocol and "Rows to 8,640 train" in protocol
    assert rest.count(".500 [.500, .500]/.250") == len(etth1.NETS) * 2 * len(etth1.HORIZONS)


def test_the_published_file_has_its_hash() -> None:
    """The file itself, if it is on this machine."""
    from pipeline.core.paths import located

    path = located("series/ETTh1.csv")
    if not path.is_file():
        pytest.skip("series/ETTh1.csv is not below DATA_ROOT")
    assert etth1.is_etth1(path)
