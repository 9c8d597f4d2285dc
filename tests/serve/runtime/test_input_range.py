"""The status out-of-range of forecasts whose history is unlike the training data."""

import csv
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from convline.cli.main import main
from convline.loading import load_file
from convline.timeseries.forecaster import Forecaster

Make = Callable[..., Path]
INDEX = {"unit": "index", "count": 1}
VALUES = {"of": "values", "low": [0.0], "high": [10.0]}  # so -5 to 15 is taken
CHANGES = {"of": "changes", "low": [-3.0], "high": [0.0]}  # from the last row: -4.5 to 1.5


def rows(model: Path, *options: str, stdin: str) -> list[dict[str, str]]:
    result = CliRunner().invoke(main, ["series", str(model), *options], input=stdin)
    assert result.exit_code == 0, result.stderr
    return list(csv.DictReader(io.StringIO(result.stdout)))


def history(*series: list[float]) -> str:
    lines = [
        f"{name},{time},{value}"
        for name, values in enumerate(series)
        for time, value in enumerate(values)
    ]
    return "unique_id,ds,y\n" + "\n".join(lines) + "\n"


def test_a_series_far_from_training_is_out_of_range(make_forecaster: Make) -> None:
    """The last four values of each series are compared with -5 to 15.

    The forecast, last value + 1, 2, 3, is written all the same.
    """
    model = make_forecaster(step=INDEX, range=VALUES)
    near, far, edge, past = (
        [99, -5, 15, 3, 4],
        [0, 1, 2, 1e6],
        [1, 15.001, 2, 3],
        [0, 99, 1, 2, 3, 4],
    )
    found = rows(model, "-", "--horizon", "4", stdin=history(near, far, edge, past))
    assert [row["status"] for row in found] == [
        *["ok"] * 3, "recursive", *["out-of-range"] * 3, "recursive", *["out-of-range"] * 3, "recursive",
        *["ok"] * 3, "recursive",
    ]  # fmt: skip
    assert [float(row["yhat"]) for row in found[4:7]] == [1000001, 1000002, 1000003] and found[4][
        "yhat-lo-80"
    ]


def test_a_range_of_changes_ignores_the_level(make_forecaster: Make) -> None:
    """Changes from the last row are -3, -2, -1 at any level; 30 is far outside."""
    model = make_forecaster(step=INDEX, range=CHANGES)
    found = rows(
        model, "-", "--horizon", "1", stdin=history([1e6 + k for k in range(4)], [0, 10, 20, 30])
    )
    assert [row["status"] for row in found] == ["ok", "out-of-range"]


def test_each_cutoff_and_sample_is_judged_by_its_own_window(make_forecaster: Make) -> None:
    """Only the windows of four rows that hold the 99 are out of range.

    A stream without a full window stays unsettled.
    """
    model, values = make_forecaster(step=INDEX, range=VALUES), [1.0, 2, 3, 4, 99, 5, 6, 7, 8]
    expected = ["ok", *["out-of-range"] * 4, "ok"]
    found = rows(model, "-", "--horizon", "1", "--every", "1", stdin=history(values))
    assert [row["status"] for row in found] == expected
    found = rows(model, "--follow", "--horizon", "1", stdin=history(values))
    assert [row["status"] for row in found] == [*["unsettled"] * 3, *expected]


@pytest.mark.parametrize("rule", [{}, {"range": VALUES}])
def test_files_without_a_range_have_no_status_out_of_range(
    make_forecaster: Make, rule: dict
) -> None:
    model = load_file(make_forecaster(**rule), "cpu")
    assert isinstance(model, Forecaster)
    assert model.outside(np.full((2, 4, 1), 1e6)).tolist() == [bool(rule)] * 2
