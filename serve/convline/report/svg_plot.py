"""Forecasts as one SVG: a panel for each series and column, with its last rows, the forecast and
its intervals.

From a backtest (--every) the newest forecast is drawn whose true values the series holds, with
these; otherwise the forecast from the last row. Colours are from Okabe and Ito 2008, "Color
Universal Design": colour-blind readers can tell them apart. Forecasts that were fed back are dashed
as well.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convline.jobs.output_files import write_file
from convline.terminal_text import printable_line
from convline.timeseries.backtest import Forecast
from convline.timeseries.forecaster import Forecaster
from convline.timeseries.predict import prediction_intervals
from convline.timeseries.series import Series
from convline.timeseries.timestamps import format_times

MOST_SERIES = 12  # that are drawn, the first ones
MOST_POINTS = 800  # of one line: about one per pixel
WIDTH, PANEL, LEGEND = 860, 220, 44  # px
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 30, 30  # px around the axes of one panel
TITLE = "Forecasts of"
LARGEST = 1e300  # the largest value that is drawn: differences of float64 must not overflow
CHARACTER = 6.5  # px, width of a character of a label
THIN = 1.0  # px, the line of true values
HISTORY, FORECAST, FED_BACK, GREY = "#000000", "#0072B2", "#D55E00", "#666666"

Floats = npt.NDArray[np.float64]
Scale = Callable[[Floats], Floats]  # from rows or values to px
Numbers = Floats | Sequence[float]


def is_plot(path: Path) -> bool:
    """Return whether a file is a picture that this module wrote."""
    with path.open("rb") as file:
        return f"<title>{TITLE}".encode() in file.read(1024)


class ForecastPlot:
    """Collects forecasts and draws them.

    plot = ForecastPlot(model, horizon, every)
    plot.add(origin)            # for each forecast that plot.wants
    plot.write("forecast.svg")
    """

    def __init__(self, model: Forecaster, horizon: int, every: int | None = None) -> None:
        self.model = model
        self.horizon, self.every = horizon, every
        self.n_series = 0
        self.origins: list[Forecast] = []

    def wants(self, series: Series, cutoff: int) -> bool:
        """Return whether the forecast after row `cutoff` is the one of its series that is drawn."""
        last = len(series.values) - 1
        if not self.every:
            return cutoff == last
        newest = last - math.ceil(self.horizon / self.every) * self.every
        return cutoff == (newest if newest >= self.model.context - 1 else last)

    def add(self, origin: Forecast) -> None:
        """Keep a forecast of one of the first series."""
        if not origin.error:
            self.n_series += 1
            if len(self.origins) < MOST_SERIES:
                self.origins.append(origin)

    def write(self, path: str) -> str:
        """Write the picture and return what was drawn, in words; without any forecast no file is
        written."""
        if not self.origins:
            return f"plot: no forecast to draw, {path} is not written"
        write_file(path, self.svg().encode(), is_plot)
        first = "the first " if self.n_series > MOST_SERIES else ""
        return f"plot: {path} shows {first}{len(self.origins)} of {self.n_series} series"

    def svg(self) -> str:
        panels = [
            (origin, column) for origin in self.origins for column in range(len(self.model.targets))
        ]
        height = LEGEND + PANEL * len(panels)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12" fill="none">',
            f"<title>{TITLE} {_escape(self.model.name)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *self._legend(),
        ]
        for number, (origin, column) in enumerate(panels):
            parts.append(f'<g transform="translate(0 {LEGEND + PANEL * number})">')
            parts += [*self._panel(origin, column), "</g>"]
        return "\n".join([*parts, "</svg>\n"])

    def _legend(self) -> list[str]:
        def line(colour: str, dashes: str = "none", width: float = 1.8) -> str:
            return _line([0, 24], [0, 0], colour, dashes, width)

        entries = [("history", line(HISTORY))]
        if any(len(origin.series.values) > origin.cutoff + 1 for origin in self.origins):
            entries.append(("truth", line(HISTORY, width=THIN)))
        entries.append(("forecast", line(FORECAST)))
        for tint, (level, _, _) in zip(
            self._tints(), prediction_intervals(self.model.quantiles), strict=True
        ):
            box = f'<rect y="-6" width="24" height="12" fill="{tint}"/>'
            entries.append((f"{level:.6g} % interval", box))
        if any(len(origin.forecast) > self.model.horizon for origin in self.origins):
            entries.append(("fed back, no interval known", line(FED_BACK, "6 3")))
        parts, x = [], float(LEFT)
        for text, mark in entries:
            parts.append(f'<g transform="translate({x:.0f} 24)">{mark}{_label(30, 4, text)}</g>')
            x += 54 + CHARACTER * len(text)
        return parts

    def _tints(self) -> list[str]:
        """Return a tint of FORECAST for each interval; the innermost is first and darkest."""
        count = len(self.model.quantiles) // 2
        shades = [0.5 - 0.4 * place / count for place in range(count)]
        rgb = bytes.fromhex(FORECAST[1:])
        return [
            "#" + bytes(round(255 - shade * (255 - value)) for value in rgb).hex()
            for shade in shades
        ]

    def _panel(self, origin: Forecast, column: int) -> list[str]:
        ahead, trained = len(origin.forecast), min(len(origin.forecast), self.model.horizon)
        end, values = origin.cutoff + 1, origin.series.values[:, column]
        rows = min(end, max(self.model.context, 2 * ahead))
        # A true value may be any float64, a forecast is float32: larger ones are drawn at the edge.
        history = np.clip(values[end - rows : end], -LARGEST, LARGEST)
        truth = np.clip(values[end - 1 : end + ahead], -LARGEST, LARGEST)  # from the last known row
        forecast = np.concatenate([history[-1:], origin.forecast[:, column]])
        bands = [
            [
                np.concatenate([history[-1:], origin.quantiles[:trained, column, place]])
                for place in pair
            ]
            for _, *pair in prediction_intervals(self.model.quantiles)
        ]
        drawn = np.concatenate(
            [history, truth, forecast, *(edge for band in bands for edge in band)]
        )
        pad = max(0.06 * (drawn.max() - drawn.min()), 1e-6 * np.abs(drawn).max()) or 1.0
        low, high = float(drawn.min() - pad), float(drawn.max() + pad)

        def x(places: Floats) -> Floats:
            return LEFT + (WIDTH - LEFT - RIGHT) * places / (rows + ahead - 1)

        def y(values: Floats) -> Floats:
            return TOP + (PANEL - TOP - BOTTOM) * (high - values) / (high - low)

        before = np.arange(rows, dtype=np.float64)
        after = np.arange(rows - 1, rows + ahead, dtype=np.float64)  # from the last known row
        parts = [_title(origin.series.id, self.model.targets[column])]
        for tint, (lower, upper) in reversed([*zip(self._tints(), bands, strict=True)]):
            there = after[: trained + 1]
            outline_x, outline_y = (
                np.concatenate([there, there[::-1]]),
                np.concatenate([lower, upper[::-1]]),
            )
            parts.append(f'<path d="{_path(x(outline_x), y(outline_y))}Z" fill="{tint}"/>')
        parts += _value_axis(low, high, y)
        parts += _time_axis(origin, rows, x)
        [now] = x(after[:1])
        parts.append(_line([now, now], [TOP, PANEL - BOTTOM], GREY, "2 3", 1))
        parts.append(_line(x(before), y(history), HISTORY))
        parts.append(_line(x(after[: len(truth)]), y(truth), HISTORY, width=THIN))
        if ahead > trained:
            parts.append(_line(x(after[trained:]), y(forecast[trained:]), FED_BACK, "6 3"))
        parts.append(_line(x(after[: trained + 1]), y(forecast[: trained + 1]), FORECAST))
        return parts


def _value_axis(low: float, high: float, y: Scale) -> list[str]:
    """Return grid lines and numbers at multiples of 1, 2 or 5 times a power of ten."""
    parts, ticks = [], axis_ticks(low, high)
    for label, height in zip(tick_labels(ticks), y(np.array(ticks)), strict=True):
        parts.append(_line([LEFT, WIDTH - RIGHT], [height, height], GREY, width=0.3))
        parts.append(_label(LEFT - 6, height + 4, label, "end"))
    return parts


def _time_axis(origin: Forecast, rows: int, x: Scale) -> list[str]:
    """Return the time axis with as many labels as fit, the first and the last time among them."""
    series, count = origin.series, rows + len(origin.times)
    known = series.times[origin.cutoff + 1 - rows : origin.cutoff + 1]
    times = np.concatenate([known, origin.times])
    longest = len(format_times(times[-1:], origin.dates, series.offset)[0])
    width = 1.5 * CHARACTER * longest + 16  # the outer labels reach inwards
    n_labels = max(2, min(5, 1 + int((WIDTH - LEFT - RIGHT) / width)))
    places = np.unique(np.linspace(0, count - 1, n_labels).round().astype(int))
    anchors = ["start", *["middle"] * (len(places) - 2), "end"]
    texts = format_times(times[places], origin.dates, series.offset)
    bottom = PANEL - BOTTOM
    parts = [_line([LEFT, WIDTH - RIGHT], [bottom, bottom], GREY, width=1)]
    for text, at, anchor in zip(texts, x(places.astype(np.float64)), anchors, strict=True):
        parts.append(_line([at, at], [bottom, bottom + 4], GREY, width=1))
        parts.append(_label(at, bottom + 17, text, anchor))
    return parts


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


def _line(x: Numbers, y: Numbers, colour: str, dashes: str = "none", width: float = 1.8) -> str:
    style = f'stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"'
    return f'<path d="{_path(x, y)}" {style}/>'


def _path(x: Numbers, y: Numbers) -> str:
    n_points = min(len(x), MOST_POINTS)
    places = np.unique(np.linspace(0, len(x) - 1, n_points).round().astype(int))
    return "M" + "L".join(f"{x[place]:.1f} {y[place]:.1f}" for place in places)


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}"'
    return f'<text {place} fill="#333333" text-anchor="{anchor}">{_escape(text)}</text>'


def _title(series_id: str, column: str) -> str:
    return (
        f'<text x="{LEFT}" y="{TOP - 9}" fill="#000000">'
        f'<tspan font-weight="bold">{_escape(series_id)}</tspan>'
        f'<tspan fill="#333333" dx="10">{_escape(column)}</tspan></text>'
    )


def _escape(text: str) -> str:
    """Return at most 60 characters that XML can hold: an id from a user's file may be any text."""
    return escape(printable_line(text, 60))
