"""docs/serving.md says what tables hold; here it is held to the code."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from convline.explain import job
from convline.images import predict as images
from convline.loading import load_file
from convline.timeseries import predict as timeseries
from convline.timeseries.forecaster import Forecaster

PAGE = (Path(__file__).parents[3] / "docs" / "serving.md").read_text()


def columns_under(heading: str) -> list[str]:
    """The names in the first column of the table under a heading."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def test_image_columns_are_those_of_the_page() -> None:
    """Oracle: the page, for two labels."""
    assert list(images.table_columns(2)) == columns_under("`infer images`")


def test_columns_of_explanations_are_those_of_the_page() -> None:
    """Oracle: the page."""
    assert list(job.COLUMNS) == columns_under("`infer explain`")


@pytest.mark.parametrize("every", [False, True])
def test_series_columns_are_those_of_the_page(
    make_forecaster: Callable[..., Path], every: bool
) -> None:
    """Oracle: the page, for a model with an 80 % interval; the cutoff only with --every."""
    model = load_file(make_forecaster(), "cpu")
    assert isinstance(model, Forecaster)
    expected = [
        name for name in columns_under("`infer series`") if name not in ("yhat-NAME", "--every")
    ]
    found = list(timeseries.table_columns(model, every))
    assert found == [name for name in expected if every or name != "cutoff"]
