"""`infer series --plot`: what is drawn, as SVG and as PNG, and what is refused."""

import io
import os
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from convline import colours, fonts
from convline.report.forecast_plot import MOST_PANELS, axis_ticks, tick_labels
from infer_command import HISTORY, infer
from PIL import Image

Make = Callable[..., Path]
INDEX = {"unit": "index", "count": 1}


def texts_of(path: Path) -> list[str]:
    return [e.text for e in ElementTree.parse(path).iter() if e.text and e.text.strip()]


def lines_of(path: Path, colour: str) -> list[str]:
    """Return the paths of the lines of a colour."""
    return [e.get("d", "") for e in ElementTree.parse(path).iter() if e.get("stroke") == colour]


def test_a_panel_for_each_series_and_column(make_forecaster: Make, tmp_path: Path) -> None:
    """An XML parser reads it: the first panels, ids as text, coordinates inside the picture."""
    lines = [f"<{n}>&,{t},{n + t},{-t}" for n in range(14) for t in range(6)] + ["short,1,1,1"]
    (tmp_path / "x.csv").write_text("unique_id,ds,p,q\n" + "\n".join(lines) + "\n")
    plot = tmp_path / "x.svg"
    options = ("--horizon", "4", "--every", "2", "--plot", plot)
    result = infer("series", make_forecaster("p", "q", step=INDEX), tmp_path / "x.csv", *options)
    shown = f"plot: {plot} shows the first {MOST_PANELS} of 28 panels, 2 columns of each series"
    assert shown in result.stderr
    texts = texts_of(plot)
    titles = [f"<{n}>&  ·  {column}" for n in range(MOST_PANELS // 2) for column in "pq"]
    assert [text for text in texts if text.startswith("<")] == titles
    legend = {"observed", "forecast", "80 % interval", "fed back, no interval known"}
    assert legend <= {*texts}
    root = ElementTree.parse(plot).getroot()
    numbers = [
        n for e in root.iter() for n in re.findall(r"(-?[0-9.]+) (-?[0-9.]+)", e.get("d", ""))
    ]
    x, y = np.array(numbers, float).T
    assert x.min() >= 0 and x.max() <= float(root.get("width", ""))
    assert y.min() >= 0 and y.max() <= float(root.get("height", ""))
    assert not [*tmp_path.glob("*.part")]


def test_observed_values_are_blue_and_forecasts_orange(
    make_forecaster: Make, tmp_path: Path
) -> None:
    """20 rows 0, 1, ...; of cutoffs 2 rows apart, 3 steps ahead, the newest whose truth is there is
    row 15, and the forecast equals the truth.
    """
    (tmp_path / "x.csv").write_text("ds,y\n" + "".join(f"{t},{t}\n" for t in range(20)))
    plot = tmp_path / "x.svg"
    for options, observed, first, last in (
        (("--every", "2"), 9, "10", "18"),  # 6 rows before the forecast, 3 beside it
        ((), 6, "14", "22"),
    ):
        infer("series", make_forecaster(step=INDEX), tmp_path / "x.csv", "--plot", plot, *options)
        _, blue = lines_of(plot, colours.BLUE)
        assert blue.count("L") + 1 == observed
        forecast = lines_of(plot, colours.ORANGE)[1]
        assert forecast.count("L") == 3 and {first, last} <= {*texts_of(plot)}
        if options:
            assert blue.endswith(forecast[1:])  # the same points


def test_a_png_shows_what_the_svg_shows(make_forecaster: Make, tmp_path: Path) -> None:
    """The SVG's size twice, and the colours of its curves where its points are."""
    (tmp_path / "x.csv").write_text(HISTORY)
    for suffix in (".svg", ".png"):
        infer("series", make_forecaster(), tmp_path / "x.csv", "--plot", tmp_path / f"x{suffix}")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (2 * int(root.get("width", "")), 2 * int(root.get("height", "")))
        assert image.info["Title"] == "Forecasts of riser" and image.info["dpi"][0] > 190
        image = image.convert("RGB")
        for colour in (colours.BLUE, colours.ORANGE):
            path = lines_of(tmp_path / "x.svg", colour)[1]
            points = [[float(n) for n in point.split()] for point in path[1:].split("L")]
            for (x0, y0), (x1, y1) in pairwise(points):
                middle = round(x0 + x1), round(y0 + y1)  # of the line, at two pixels per px
                assert image.getpixel(middle) == pytest.approx([*bytes.fromhex(colour[1:])], abs=9)


def test_ten_series_are_small_panels_side_by_side(make_forecaster: Make, tmp_path: Path) -> None:
    """Titles at two places from the left, five of each."""
    rows = [f"shop {n},2024-01-0{t},{n * t}" for n in range(10) for t in range(1, 7)]
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "\n".join(rows))
    result = infer("series", make_forecaster(), tmp_path / "x.csv", "--plot", tmp_path / "x.svg")
    assert "x.svg shows 10 of 10 series" in result.stderr
    nodes = ElementTree.parse(tmp_path / "x.svg").iter()
    places = [e.get("x") for e in nodes if (e.text or "").startswith("shop ")]
    assert len({*places}) == 2 and {places.count(x) for x in {*places}} == {5}


@pytest.mark.parametrize("suffix", [".svg", ".png"])
@pytest.mark.parametrize("sign", ["", "-"])
def test_a_truth_of_any_size_is_drawn(
    make_forecaster: Make, tmp_path: Path, sign: str, suffix: str
) -> None:
    """Numbers near the end of float64; the picture has finite coordinates."""
    values = [*map(str, range(6)), f"{sign}1e308", f"{sign}1.7e308", "-1e308"]
    rows = "".join(f"{t},{v}\n" for t, v in enumerate(values))
    (tmp_path / "x.csv").write_text("ds,y\n" + rows)
    options = ("--every", "3", "--plot", tmp_path / f"x{suffix}")
    result = infer("series", make_forecaster(step=INDEX), tmp_path / "x.csv", *options)
    assert "plot:" in result.stderr, result.stderr
    if suffix == ".svg":
        picture = (tmp_path / "x.svg").read_text()
        ElementTree.fromstring(picture)
        assert not re.search(r"\b(nan|inf)\b", picture)


def test_names_of_any_script_are_written(
    make_forecaster: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SVG keeps the text; a PNG is written with and without a font of this machine."""
    (tmp_path / "x.csv").write_text("unique_id,ds,y\n" + "".join(
        f"Zürich 店,2024-01-0{t},{t}\n" for t in range(1, 7)
    ))  # fmt: skip
    infer("series", make_forecaster(), tmp_path / "x.csv", "--plot", tmp_path / "x.svg")
    assert any(text.startswith("Zürich 店") for text in texts_of(tmp_path / "x.svg"))
    for names in (fonts.NAMES, ("no such font.ttf",)):
        monkeypatch.setattr(fonts, "NAMES", names)
        fonts._find_font.cache_clear()
        infer("series", make_forecaster(), tmp_path / "x.csv", "--plot", tmp_path / "x.png")
        with Image.open(io.BytesIO((tmp_path / "x.png").read_bytes())) as image:
            image.verify()
    fonts._find_font.cache_clear()


def test_pictures_that_cannot_be_written_are_refused(make_forecaster: Make, tmp_path: Path) -> None:
    """One sentence each, before any forecast; the input and the table stay."""
    model, source = make_forecaster(), tmp_path / "x.csv"
    source.write_text(HISTORY)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG of somebody else")
    os.symlink(source, tmp_path / "link.svg")
    table = tmp_path / "t.svg"
    for plot, options, code, sentence in (
        ("x.pdf", (), 2, "expected a name ending in .svg or .png, got"),
        ("none/x.png", (), 1, f"expected a folder that exists, got {tmp_path / 'none'}"),
        ("photo.png", (), 1, "expected a new name or an earlier result of `infer`"),
        ("link.svg", (), 1, "expected a file that is not read"),
        ("t.svg", ("-o", table, "--format", "csv"), 2, "expected another file than the table"),
    ):
        result = infer("series", model, source, "--plot", tmp_path / plot, *options)
        assert (result.exit_code, result.stdout) == (code, ""), result.output
        assert sentence in result.stderr and "Traceback" not in result.output
    assert source.read_text() == HISTORY and not table.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to every folder")
def test_a_folder_that_is_read_only_is_refused(make_forecaster: Make, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(HISTORY)
    (tmp_path / "locked").mkdir(mode=0o500)
    plot = tmp_path / "locked" / "x.png"
    result = infer("series", make_forecaster(), tmp_path / "x.csv", "--plot", plot)
    assert result.exit_code == 1 and "expected a folder to write in" in result.stderr


def test_nothing_to_draw(make_forecaster: Make, tmp_path: Path) -> None:
    """No forecast, no file."""
    plot = tmp_path / "x.svg"
    result = infer("series", make_forecaster(), tmp_path / "none.csv", "--plot", plot)
    assert result.exit_code == 1 and "no forecast to draw" in result.stderr and not plot.exists()


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3.2, 17), (999.5, 1000.5), (1e8, 1e8 + 3), (-1e-9, 2e-9), (0, 3e38)]
)
def test_axis_numbers_are_nice(low: float, high: float) -> None:
    """1, 2 or 5 times a power of ten apart, within the axis, different when read back."""
    ticks = axis_ticks(low, high)
    steps = np.diff([float(text.replace(",", "")) for text in tick_labels(ticks)])
    assert 2 <= len(ticks) <= 6 and low - 1e-12 <= ticks[0] and ticks[-1] <= high * (1 + 1e-12)
    assert {f"{step:.0e}"[0] for step in steps} < {"1", "2", "5"} and all(
        a < b for a, b in pairwise(ticks)
    )
