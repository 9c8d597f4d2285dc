"""Results are written with six significant digits, whatever they are nested in."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import files


def test_results_have_six_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: by hand. Text, whole numbers and truth values stay as they are."""
    monkeypatch.setattr(files, "RESULTS", tmp_path)
    content = {
        "accuracy": 0.9916666666666667,
        "rows": [{"difference": 4.76837158203125e-07, "n": 1234567, "passed": True}],
        "interval": (1234567.891, float("inf")),
        "name": "0.9916666666666667",
    }
    files.write_result("tiny", "metrics", content)
    assert json.loads((tmp_path / "tiny" / "metrics.json").read_text()) == {
        "accuracy": 0.991667,
        "rows": [{"difference": 4.76837e-07, "n": 1234567, "passed": True}],
        "interval": [1234570.0, None],
        "name": "0.9916666666666667",
    }


@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_is_written_as_numpy_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: Any
) -> None:
    """Byte for byte; and a full disk is an OSError with its number."""
    array = np.arange(60.0).reshape(20, 3).copy(order)
    for rows in (array, array[:0], array[::2]):
        np.save(tmp_path / "numpy.npy", rows)
        files.save_array(tmp_path / "ours.npy", rows)
        assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert not files.map_array(tmp_path / "map.npy", np.uint8, (3, 4)).any()
    assert len(np.load(tmp_path / "map.npy")) == 3

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for write in (
        lambda: files.save_array(tmp_path / "ours.npy", array),
        lambda: files.map_array(tmp_path / "map.npy", np.uint8, (3, 4)),
    ):
        with pytest.raises(OSError, match="No space left") as told:
            write()
        assert told.value.errno == errno.ENOSPC
