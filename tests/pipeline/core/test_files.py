"""Results are written with six significant digits, whatever they are nested in."""

import json
from pathlib import Path

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
