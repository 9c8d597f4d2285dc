"""Forecasts as one picture, SVG or PNG: a panel for each series and column, with its last observed
values, the forecast and its intervals.

From a backtest (--every) the newest forecast is drawn whose true values the series holds, with
these; otherwise the forecast from the last row.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from convline.colours import BLUE, GRID, INK, ORANGE, PURPLE, interval_tints
from convline.jobs.output_files import write_file
from convline.report.canvas import PngCanvas, SvgCanvas
from convline.report.time_axis import time_ticks
from convline.terminal_text import printable_line
from convline.timeseries.backtest import Forecast
from convline.timeseries.model import ForecastModel
from convline.timeseries.predict import prediction_intervals
from convline.timeseries.series import Series

MOST_PANELS = 12  # that are drawn, the first ones
MOST_POINTS = 800  # of one line: about one per px
WIDTH, HEAD, GAP = 860, 62, 24  # px: the picture, what is above the panels, between two columns
LEFT, RIGHT, TOP, BOTTOM = 66, 14, 26, 48  # px around the axes of one panel
TITLE = "Forecasts of"
LARGEST = 1e300  # the largest value that is drawn: differences of float64 must not overflow
CHARACTER = 6.6  # px, width of a character of size 12
THICK, THIN, HAIR = 1.8, 1.0, 0.5  # px, widths of lines

Canvas = SvgCanvas | PngCanvas
FORMATS: dict[str, type[Canvas]] = {".svg": SvgCanvas, ".png": PngCanvas}
Floats = npt.NDArray[np.float64]
Scale = Callable[[Floats], Floats]  # from rows or values to px


def is_plot(path: Path) -> bool:
    """Return whether a file is a picture that this module wrote."""
    with path.open("rb") as file:
        head = file.read(1024)
    return f"<title>{TITLE}".encode() in head or f"Title\0{TITLE}".encode() in head


class Panel(NamedTuple):
    """One column of one forecast, and the rectangle (px) of its axes."""

    forecast: Forecast
    column: int
    left: float
    right: float
    top: float
    bottom: float


class ForecastPlot:
    """Collects forecasts and draws them.

    plot = ForecastPlot(model, horizon, every)
    plot.add(forecast)          # for each forecast that plot.wants
    plot.write("forecast.svg")
    """

    def __init__(self, model: ForecastModel, horizon: int, every: int | None = None) -> None:
        self.model = model
        self.horizon, self.every = horizon, every
        self.n_series = 0
        self.forecasts: list[Forecast] = []  # the first ones

    def wants(self, series: Series, cutoff: int) -> bool:
        """Return whether the forecast after row `cutoff` is the one of its series that is drawn."""
        last = len(series.values) - 1
        if not self.every:
            return cutoff == last
        newest = last - math.ceil(self.horizon / self.every) * self.every
        return cutoff == (newest if newest >= self.model.context - 1 else last)

    def add(self, forecast: Forecast) -> None:
        """Keep a forecast, if it is one of the first."""
        if not forecast.error:
            self.n_series += 1
            if len(self.forecasts) < MOST_PANELS:
                self.forecasts.append(forecast)

    def write(self, path: str) -> str:
        """Write the picture and return what was drawn, in words; without any forecast no file is
        written."""
        if not self.forecasts:
            return f"plot: no forecast to draw, {path} is not written"
        write_file(path, self.draw(Path(path).suffix.lower()), is_plot)
        n_columns = len(self.model.targets)
        drawn, total = self._panel_count(), self.n_series * n_columns
        first = "the first " if drawn < total else ""
        what = "series" if n_columns == 1 else f"panels, {n_columns} columns of each series"
        return f"plot: {path} shows {first}{drawn} of {total} {what}"

    def _panel_count(self) -> int:
        return min(MOST_PANELS, len(self.forecasts) * len(self.model.targets))

    def draw(self, suffix: str) -> bytes:
        """Return the picture in the format of a suffix, .svg or .png."""
        panels = self._place_panels()
        height = round(panels[-1].bottom + BOTTOM)
        name = printable_line(self.model.name, 60)
        canvas = FORMATS[suffix](WIDTH, height, f"{TITLE} {name}")
        canvas.text(LEFT, 24, f"{name}: forecast of {self.horizon} steps", size=15)
        self._draw_legend(canvas)
        for panel in panels:
            self._draw_panel(canvas, panel)
        return canvas.encode()

    def _place_panels(self) -> list[Panel]:
        """Return the panels below each other; from four on in two columns."""
        count = self._panel_count()
        across = 1 if count < 4 else 2
        height = {1: 300, 2: 240, 3: 220}.get(count, 190)
        width = (WIDTH - (across - 1) * GAP) / across
        curves = [(f, column) for f in self.forecasts for column in range(len(self.model.targets))]
        panels = []
        for number, (forecast, column) in enumerate(curves[:count]):
            left, top = (number % across) * (width + GAP), HEAD + (number // across) * height
            rectangle = left + LEFT, left + width - RIGHT, top + TOP, top + height - BOTTOM
            panels.append(Panel(forecast, column, *rectangle))
        return panels

    def _draw_legend(self, canvas: Canvas) -> None:
        entries = [("observed", BLUE, False), ("forecast", ORANGE, False)]
        for tint, (level, _, _) in self._intervals():
            entries.append((f"{level:.6g} % interval", tint, True))
        if self.horizon > self.model.horizon:
            entries.append(("fed back, no interval known", PURPLE, False))
        x, y = float(LEFT), 44.0
        for text, colour, is_box in entries:
            if is_box:
                canvas.area([x, x + 22], [y + 5, y + 5], [y - 5, y - 5], colour)
            else:
                canvas.line([x, x + 22], [y, y], colour, THICK)
            canvas.text(x + 28, y + 4, text)
            x += 50 + CHARACTER * len(text)

    def _intervals(self) -> list[tuple[str, tuple[float, int, int]]]:
        """Return the tint and the `prediction_intervals` of each interval, the widest first."""
        widest_first = prediction_intervals(self.model.quantiles)[::-1]
        return [*zip(interval_tints(len(widest_first)), widest_first, strict=True)]

    def _draw_panel(self, canvas: Canvas, panel: Panel) -> None:
        one, column = panel.forecast, panel.column
        ahead, trained = len(one.forecast), min(len(one.forecast), self.model.horizon)
        end, values = one.cutoff + 1, one.series.values[:, column]
        rows = min(end, max(self.model.context, 2 * ahead))
        # A true value may be any float64, a forecast is float32: larger ones are drawn at the edge.
        observed = np.clip(values[end - rows : end + ahead], -LARGEST, LARGEST)
        last = observed[rows - 1 : rows]  # known value, from which forecast and intervals start
        forecast = np.concatenate([last, one.forecast[:, column]])
        bands = [
            [np.concatenate([last, one.quantiles[:trained, column, place]]) for place in pair]
            for _, (_, *pair) in self._intervals()
        ]
        drawn = np.concatenate([observed, forecast, *(edge for band in bands for edge in band)])
        pad = max(0.06 * (drawn.max() - drawn.min()), 1e-6 * np.abs(drawn).max()) or 1.0
        low, high = float(drawn.min() - pad), float(drawn.max() + pad)

        def x(places: Floats) -> Floats:
            return panel.left + (panel.right - panel.left) * places / (rows + ahead - 1)

        def y(values: Floats) -> Floats:
            return panel.top + (panel.bottom - panel.top) * (high - values) / (high - low)

        _draw_title(canvas, panel, self.model.targets[column])
        _draw_value_axis(canvas, panel, low, high, y)
        after = np.arange(rows - 1, rows + ahead, dtype=np.float64)  # from the last known row
        inside = x(after[: trained + 1])
        for (tint, _), (lower, upper) in zip(self._intervals(), bands, strict=True):
            canvas.area(inside, y(lower), y(upper), tint)
        _draw_time_axis(canvas, panel, rows, x)
        canvas.line([inside[0]] * 2, [panel.top, panel.bottom], INK, HAIR)
        _draw_curve(canvas, x(np.arange(len(observed), dtype=np.float64)), y(observed), BLUE)
        _draw_curve(canvas, inside, y(forecast[: trained + 1]), ORANGE)
        if ahead > trained:
            _draw_curve(canvas, x(after[trained:]), y(forecast[trained:]), PURPLE)


def _draw_curve(canvas: Canvas, x: Floats, y: Floats, colour: str) -> None:
    places = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    canvas.line(x[places], y[places], colour, THICK)


def _draw_title(canvas: Canvas, panel: Panel, column: str) -> None:
    name = printable_line(panel.forecast.series.id, 30)
    canvas.text(panel.left, panel.top - 9, f"{name}  ·  {printable_line(column, 30)}", size=13)


def _draw_value_axis(canvas: Canvas, panel: Panel, low: float, high: float, y: Scale) -> None:
    """Draw grid lines and numbers at multiples of 1, 2 or 5 times a power of ten."""
    ticks = axis_ticks(low, high)
    for label, height in zip(tick_labels(ticks), y(np.array(ticks)), strict=True):
        canvas.line([panel.left, panel.right], [height, height], GRID, HAIR)
        canvas.text(panel.left - 6, height + 4, label, anchor="end")


def _draw_time_axis(canvas: Canvas, panel: Panel, rows: int, x: Scale) -> None:
    """Draw the axis, and at each tick the time with, below it, what it is a part of."""
    one = panel.forecast
    known = one.series.times[one.cutoff + 1 - rows : one.cutoff + 1]
    times = np.concatenate([known, one.times])
    canvas.line([panel.left, panel.right], [panel.bottom] * 2, INK, THIN)
    ticks = time_ticks(times, one.series.offset, (panel.right - panel.left) / CHARACTER)
    for tick, at in zip(ticks, x(np.array([tick.row for tick in ticks], np.float64)), strict=True):
        canvas.line([at, at], [panel.bottom, panel.bottom + 4], INK, THIN)
        for text, down in ((tick.text, 17), (tick.context, 31)):
            inside = min(at, panel.right + RIGHT - CHARACTER * len(text) / 2)
            canvas.text(inside, panel.bottom + down, text, anchor="middle")


def axis_ticks(low: float, high: float) -> list[float]:
    """Return 3 to 6 multiples of 1, 2 or 5 times a power of ten between low and high."""
    smallest = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(smallest))
    steps = (power * factor for factor in (1, 2, 5, 10))
    step = next(step for step in steps if step >= smallest * (1 - 1e-9))
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def tick_labels(ticks: list[float]) -> list[str]:
    """Return the ticks with as many digits as tell them apart."""
    largest, step = max(map(abs, ticks)), ticks[1] - ticks[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if largest < 1e7 and decimals <= 5:
        return [f"{tick:,.{decimals}f}" for tick in ticks]
    return [f"{tick:.{1 + math.ceil(math.log10(largest / step))}g}" for tick in ticks]
