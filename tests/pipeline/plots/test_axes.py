"""Axes of pictures: logarithmic ones have labels, and what charts say is in their data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import vl_convert
from convline.colours import GRID, INK, ORANGE, WHITE, rgb
from matplotlib.figure import Figure
from PIL import Image

from pipeline.plots import style, vega
from pipeline.plots.learning_curves import draw_learning_curve
from pipeline.report import published_comparison

RANGES = [(0.062, 0.083), (0.31, 0.92), (2.1, 8.7), (2, 30), (0.036, 1.1), (1e-5, 30), (6.1, 6.2)]
RANGES += [(1e-27, 10), (1e-25, 1e6)]  # a study of series without noise


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_a_logarithmic_axis_has_labels(low: float, high: float) -> None:
    """matplotlib labels powers of ten alone, of which most of these ranges hold none or one."""
    ticks = style.log_ticks(low, high)
    assert 3 <= len(ticks) <= 12 and ticks == sorted({*ticks})
    assert low <= ticks[0] and ticks[-1] <= high


def test_a_logarithmic_axis_is_labelled_with_plain_numbers(tmp_path: Path) -> None:
    with style.drawing(tmp_path / "x.png", 300, 200) as axes:
        axes[0, 0].plot([1, 2], [0.62, 0.83])
        axes[0, 0].set_yscale("log")
        style.label_log_axis(axes[0, 0].yaxis)
        labels = [label.get_text() for label in axes[0, 0].get_yticklabels()]
    assert labels == ["0.65", "0.7", "0.75", "0.8"]


def axis_labels(picture: style.Picture) -> list[list[str]]:
    """Return the visible labels of each axis of a chart."""
    drawn = vl_convert.vega_to_svg(picture.spec)
    axes = [part.split("</g>")[0] for part in drawn.split('role-axis-label"')[1:]]
    return [re.findall(r"<text[^>]*>([^<]+)</text>", axis) for axis in axes]


@pytest.mark.parametrize(("low", "high"), [RANGES[0], RANGES[2]])
def test_a_loss_within_a_decade_has_labels(tmp_path: Path, low: float, high: float) -> None:
    history = [
        {"epoch": k, "train_loss": loss, "validation_loss": loss}
        for k, loss in ((1, high), (2, low))
    ]
    picture = draw_learning_curve(history, "loss", 2, tmp_path / "loss.png")
    assert min(map(len, axis_labels(picture))) >= 2


def test_every_bar_says_its_number(tmp_path: Path) -> None:
    """A field that the data have not is drawn as "undefined"."""
    picture = published_comparison.depth_chart(tmp_path / "depth.png")
    drawn = vl_convert.vega_to_svg(picture.spec)
    assert "undefined" not in drawn and ">152</text>" in drawn


def test_a_chart_has_no_ground(tmp_path: Path) -> None:
    """The page turns it light on a dark page: a white ground would become a black one."""
    published_comparison.depth_chart(tmp_path / "vega.png")
    with style.drawing(tmp_path / "matplotlib.png", 100, 100):
        pass
    for file in tmp_path.glob("*.png"):
        with Image.open(file) as image:
            assert np.asarray(image.convert("RGBA"))[0, 0, 3] == 0


@pytest.mark.parametrize("key", ["figure.autolayout", "figure.constrained_layout.use"])
def test_a_picture_is_drawn_once(key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """matplotlib draws a figure that has a layout engine twice, also when its layout is done, and
    a matplotlibrc may ask for one.
    """
    monkeypatch.setitem(matplotlib.rcParams, key, True)
    drawn, draw = [], Figure.draw

    def count(figure: Figure, renderer: Any) -> None:
        drawn.append(figure)
        draw(figure, renderer)

    monkeypatch.setattr(Figure, "draw", count)
    with style.drawing(tmp_path / "x.png", 100, 100):
        pass
    assert len(drawn) == 1


def test_translucent_colours_are_not_darkened() -> None:
    """Orange at 65 % and grey at 60 % on white, as a chart without ground shows them on white."""
    for name, opacity in ((ORANGE, 0.65), (GRID, 0.6), (INK, 1.0)):
        wanted = [round(255 - opacity * (255 - value)) for value in rgb(name)]
        square = f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9" fill="{WHITE}"/><rect width="9" height="9" fill="{name}" opacity="{opacity}"/></svg>'
        clear = vega.remove_white(vl_convert.svg_to_png(square))
        page = Image.new("RGBA", clear.size, WHITE)
        page.alpha_composite(clear)
        assert page.getpixel((4, 4))[:3] == pytest.approx(wanted, abs=3)


def test_one_layer_is_drawn_dark() -> None:
    """The lightest colour of the first layer could hardly be seen; the last layer is the darkest."""
    [only] = style.depth_colours(1)
    first, *_, last = style.depth_colours(5)
    assert (only == last).all() and last[:3].sum() < first[:3].sum()


def test_names_of_variants_have_one_order() -> None:
    points = [{"variant": name} for name in ("int8", "fp16", "fp32", "int8")]
    from pipeline.report.tradeoff_plots import precision_colours

    assert [*precision_colours(points)] == ["fp32", "fp16", "int8"] and vega.CONFIG[
        "background"
    ] is None
