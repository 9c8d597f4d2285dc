"""Which test windows have raw files: all of a small test split, at least 50 of a large one."""

import numpy as np

from pipeline.data.raw_windows import choose_raw_windows


def test_a_small_test_split_is_served_as_a_whole() -> None:
    """53 windows of 33 rows; 400 are the most."""
    assert choose_raw_windows(53, 33).tolist() == list(range(53))
    assert len(choose_raw_windows(400, 33)) == 400 and len(choose_raw_windows(5000, 33)) == 400


def test_a_large_test_split_is_served_in_part_spread_evenly() -> None:
    """50,000 rows hold 390 windows of 128 rows, and 5 of 10,000: then 50 are written."""
    rows = choose_raw_windows(2000, 128)
    assert len(rows) == 390 and (rows[0], rows[-1]) == (0, 1999)
    assert set(np.diff(rows)) == {5, 6}
    assert len(choose_raw_windows(2000, 10_000)) == 50
    assert choose_raw_windows(3, 10_000).tolist() == [0, 1, 2]
    assert choose_raw_windows(0, 8).tolist() == []
