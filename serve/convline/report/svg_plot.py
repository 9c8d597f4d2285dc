"""Forecasts as one SVG: for each series and column a panel with its last rows, the forecast and its intervals.

Of rolling origins the newest is drawn whose truth the series holds, with that truth; otherwise the last row's forecast.
Colours are Okabe and Ito's (2008), which colour-blind readers tell apart; what was fed back is dashed as well.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import numpy as np
import numpy.typing as npt

from convline.jobs.target import write_whole
from convline.runtime.model import Forecaster
from convline.timeseries.backtest import Forecast
from convline.timeseries.predict import intervals
from convline.timeseries.series import Series
from convline.timeseries.timestamps import format_times

SHOWN = 12  # series, the first ones
POINTS = 800  # of one line: about one a pixel
WIDTH, PANEL, LEGEND = 860, 220, 44  # px
LEFT, RIGHT, TOP, BOTTOM = 76, 16, 30, 30  # px around the axes of one panel
TITLE = "Forecasts of"
FARTHEST = 1e300  # the largest value that is drawn: differences of float64 must not overflow
CHAR = 6.5  # px, width of a character of a label
TRUTH = 1.0  # px, thinner than what the forecast knew
HISTORY, FORECAST, FED_BACK, GREY = "#000000", "#0072B2", "#D55E00", "#666666"

Line = npt.NDArray[np.float64]
Scale = Callable[[Line], Line]  # from rows or values to px
Numbers = Line | Sequence[float]


def is_plot(path: Path) -> bool:
    """Return whether a file is a picture of this module."""
    with path.open("rb") as file:
        return f"<title>{TITLE}".encode() in file.read(1024)


class Picture:
    """picture = Picture(model, horizon, every); picture.add(origin) where it `wants`; picture.write("forecast.svg")"""

    def __init__(self, model: Forecaster, horizon: int, every: int | None = None) -> None:
        self.model = model
        self.horizon, self.every = horizon, every
        self.seen = 0
        self.origins: list[Forecast] = []

    def wants(self, series: Series, cutoff: int) -> bool:
        """Whether this is the forecast of the series that is drawn."""
        last = len(series.values) - 1
        known = last - -(-self.horizon // self.every) * self.every if self.every else last
        return cutoff == (known if known >= self.model.context - 1 else last)

    def add(self, origin: Forecast) -> None:
        """Keep a forecast, of the first SHOWN series that have one."""
        if not origin.error:
            self.seen += 1
            self.origins += [origin] if len(self.origins) < SHOWN else []

    def write(self, path: str) -> str:
        """Write the picture and return what was drawn, in words; without any forecast no file is written."""
        if not self.origins:
            return f"plot: no forecast to draw, {path} is not written"
        write_whole(path, self.svg().encode(), is_plot)
        first = "the first " if self.seen > SHOWN else ""
        return f"plot: {path} shows {first}{len(self.origins)} of {self.seen} series"

    def svg(self) -> str:
        panels = [
            (origin, column) for origin in self.origins for column in range(len(self.model.targets))
        ]
        height = LEGEND + PANEL * len(panels)
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12" fill="none">',
            f"<title>{TITLE} {_text(self.model.name)}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            *self._legend(),
        ]
        for number, (origin, column) in enumerate(panels):
            parts += [
                f'<g transform="translate(0 {LEGEND + PANEL * number})">',
                *self._panel(origin, column),
                "</g>",
            ]
        return "\n".join([*parts, "</svg>\n"])

    def _legend(self) -> list[str]:
        entries = [
            ("history", _line([0, 24], [0, 0], HISTORY)),
            ("forecast", _line([0, 24], [0, 0], FORECAST)),
        ]
        for tint, (level, _, _) in zip(self._tints(), intervals(self.model.quantiles), strict=True):
            entries.append(
                (f"{level:.6g} % interval", f'<rect y="-6" width="24" height="12" fill="{tint}"/>')
            )
        if any(len(origin.series.values) > origin.cutoff + 1 for origin in self.origins):
            entries.insert(1, ("truth", _line([0, 24], [0, 0], HISTORY, width=TRUTH)))
        if any(len(origin.forecast) > self.model.horizon for origin in self.origins):
            entries.append(("fed back, no interval known", _line([0, 24], [0, 0], FED_BACK, "6 3")))
        parts, x = [], float(LEFT)
        for label, mark in entries:
            parts.append(f'<g transform="translate({x:.0f} 24)">{mark}{_label(30, 4, label)}</g>')
            x += 54 + CHAR * len(label)
        return parts

    def _tints(self) -> list[str]:
        """Return a tint of FORECAST for each interval, the innermost first and darkest."""
        count = len(self.model.quantiles) // 2
        shades = [0.5 - 0.4 * place / count for place in range(count)]
        rgb = [int(FORECAST[i : i + 2], 16) for i in (1, 3, 5)]
        return [
            "#" + "".join(f"{round(255 - shade * (255 - c)):02x}" for c in rgb) for shade in shades
        ]

    def _panel(self, origin: Forecast, column: int) -> list[str]:
        ahead, trained = len(origin.forecast), min(len(origin.forecast), self.model.horizon)
        end, values = origin.cutoff + 1, origin.series.values[:, column]
        rows = min(end, max(self.model.context, 2 * ahead))
        history, truth = (
            values[end - rows : end],
            values[end - 1 : end + ahead],
        )  # from the last row known
        forecast = np.concatenate([history[-1:], origin.forecast[:, column]])
        bands = [
            [
                np.concatenate([history[-1:], origin.quantiles[:trained, column, place]])
                for place in pair
            ]
            for _, *pair in intervals(self.model.quantiles)
        ]
        # What is forecast is float32, but a truth may be any float64: beyond this it is drawn at the edge.
        history, truth = np.clip(history, -FARTHEST, FARTHEST), np.clip(truth, -FARTHEST, FARTHEST)
        axis = np.concatenate(
            [history, truth, forecast, *(edge for band in bands for edge in band)]
        )
        pad = max(0.06 * (axis.max() - axis.min()), 1e-6 * np.abs(axis).max()) or 1.0
        low, high = float(axis.min() - pad), float(axis.max() + pad)

        def x(places: Line) -> Line:
            return LEFT + (WIDTH - LEFT - RIGHT) * places / (rows + ahead - 1)

        def y(values: Line) -> Line:
            return TOP + (PANEL - TOP - BOTTOM) * (high - values) / (high - low)

        after = np.arange(
            rows - 1, rows + ahead, dtype=np.float64
        )  # the last row known, and those ahead
        parts = [_title(origin.series.id, self.model.targets[column])]
        for tint, (lower, upper) in reversed([*zip(self._tints(), bands, strict=True)]):
            there, back = after[: trained + 1], after[: trained + 1][::-1]
            edge = _path(x(np.concatenate([there, back])), y(np.concatenate([lower, upper[::-1]])))
            parts.append(f'<path d="{edge}Z" fill="{tint}"/>')
        parts += _value_axis(low, high, y)
        parts += _time_axis(origin, rows, x)
        edge_x = x(after[:1])
        parts.append(_line([*edge_x, *edge_x], [TOP, PANEL - BOTTOM], GREY, "2 3", 1))
        parts.append(_line(x(np.arange(rows, dtype=np.float64)), y(history), HISTORY))
        parts.append(_line(x(after[: len(truth)]), y(truth), HISTORY, width=TRUTH))
        if ahead > trained:
            parts.append(_line(x(after[trained:]), y(forecast[trained:]), FED_BACK, "6 3"))
        parts.append(_line(x(after[: trained + 1]), y(forecast[: trained + 1]), FORECAST))
        return parts


def _value_axis(low: float, high: float, y: Scale) -> list[str]:
    """Return grid lines and numbers at multiples of 1, 2 or 5 times a power of ten."""
    parts, ticks = [], _nice(low, high)
    for label, height in zip(_numbers(ticks), y(np.array(ticks)), strict=True):
        parts.append(_line([LEFT, WIDTH - RIGHT], [height, height], GREY, width=0.3))
        parts.append(_label(LEFT - 6, height + 4, label, "end"))
    return parts


def _time_axis(origin: Forecast, rows: int, x: Scale) -> list[str]:
    """Return the line of time with as many labels as fit, the first and the last time among them."""
    series, count = origin.series, rows + len(origin.times)
    times = np.concatenate(
        [series.times[origin.cutoff + 1 - rows : origin.cutoff + 1], origin.times]
    )
    longest = len(format_times(times[-1:], origin.dates, series.offset)[0])
    width = 1.5 * CHAR * longest + 16  # the outer ones reach inwards
    labels = max(2, min(5, 1 + int((WIDTH - LEFT - RIGHT) / width)))
    places = np.unique(np.linspace(0, count - 1, labels).round().astype(int))
    parts = [_line([LEFT, WIDTH - RIGHT], [PANEL - BOTTOM] * 2, GREY, width=1)]
    anchors = ["start", *["middle"] * (len(places) - 2), "end"]
    texts = format_times(times[places], origin.dates, series.offset)
    for label, at, anchor in zip(texts, x(places.astype(np.float64)), anchors, strict=True):
        parts.append(_line([at, at], [PANEL - BOTTOM, PANEL - BOTTOM + 4], GREY, width=1))
        parts.append(_label(at, PANEL - BOTTOM + 17, label, anchor))
    return parts


def _nice(low: float, high: float) -> list[float]:
    """Return 3 to 6 multiples of 1, 2 or 5 times a power of ten that lie within."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _numbers(ticks: list[float]) -> list[str]:
    """Return the ticks with as many digits as tell them apart."""
    largest, step = max(map(abs, ticks)), ticks[1] - ticks[0]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if largest < 1e7 and decimals <= 5:
        return [f"{tick:,.{decimals}f}" for tick in ticks]
    return [f"{tick:.{1 + math.ceil(math.log10(largest / step))}g}" for tick in ticks]


def _line(x: Numbers, y: Numbers, colour: str, dashes: str = "none", width: float = 1.8) -> str:
    return f'<path d="{_path(x, y)}" stroke="{colour}" stroke-width="{width}" stroke-dasharray="{dashes}"/>'


def _path(x: Numbers, y: Numbers) -> str:
    places = np.unique(np.linspace(0, len(x) - 1, min(len(x), POINTS)).round().astype(int))
    return "M" + "L".join(f"{x[place]:.1f} {y[place]:.1f}" for place in places)


def _label(x: float, y: float, text: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="#333333" text-anchor="{anchor}">{_text(text)}</text>'
    )


def _title(id: str, column: str) -> str:
    return (
        f'<text x="{LEFT}" y="{TOP - 9}" fill="#000000"><tspan font-weight="bold">{_text(id)}</tspan>'
        f'<tspan fill="#333333" dx="10">{_text(column)}</tspan></text>'
    )


def _text(text: str, limit: int = 60) -> str:
    """Return text that XML can hold: an id from a stranger's file may be anything."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return escape(printable if len(printable) <= limit else printable[: limit - 3] + "...")
