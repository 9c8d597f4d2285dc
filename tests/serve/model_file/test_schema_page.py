"""docs/serving.md lists the columns of the tables that the code writes."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from convline.explain import job
from convline.images.image_model import Options
from convline.images.kinds import KINDS
from convline.loading import load_file
from convline.timeseries import predict as timeseries
from convline.timeseries.forecaster import Forecaster

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()


def columns_under(heading: str) -> list[str]:
    """Return the names in the first column of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


@pytest.mark.parametrize("task", KINDS)
def test_image_columns_are_documented(task: str) -> None:
    """The columns between path and status, for two labels, equal those on the page."""
    [cell] = re.findall(rf"^\| {task} \| (`label`.*?|`caption`.*?) \|", PAGE, re.MULTILINE)
    path, *own, status, error = KINDS[task].columns(Options(top_k=2))
    assert (path, status, error) == ("path", "status", "error")
    assert own == re.findall(r"`(.+?)`", cell)


def test_explanation_columns_are_documented() -> None:
    """The columns equal those on the page."""
    assert list(job.COLUMNS) == columns_under("`infer explain`")


@pytest.mark.parametrize("every", [False, True])
def test_series_columns_are_documented(make_forecaster: Callable[..., Path], every: bool) -> None:
    """The model has an 80 % interval; the column `cutoff` is there only with --every."""
    model = load_file(make_forecaster(), "cpu")
    assert isinstance(model, Forecaster)
    expected = [
        name for name in columns_under("`infer series`") if name not in ("yhat-NAME", "--every")
    ]
    found = list(timeseries.table_columns(model, every))
    assert found == [name for name in expected if every or name != "cutoff"]
