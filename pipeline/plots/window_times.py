"""Times on the axes of forecasts: those of the test windows, and ticks where periods begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from convline.report.time_axis import time_ticks
from convline.timeseries.timestamps import format_times
from matplotlib.axes import Axes

from pipeline.plots.style import CSS_DPI

CHARACTER_PX = 5.5  # width of a character of a tick's text
AXES_SHARE = 0.85  # of a figure's width: the rest is taken by the labels of the other axis


@dataclass(frozen=True)
class WindowTimes:
    """Times as stage data keeps them: datetime64[s] in UTC, or int64 for whole numbers.

    split (rows,): of all rows of the test split. windows (M, T + S): of the recorded windows.
    cutoffs (windows,): of the last known row of every test window. series (windows,): the number of
    each window's series. name: of the time column. offset: the UTC offset in which they are shown.
    """

    split: np.ndarray
    windows: np.ndarray
    cutoffs: np.ndarray
    series: np.ndarray
    name: str
    offset: str

    @property
    def has_one_series(self) -> bool:
        """Whether the windows are of one series, so that they have a common time axis."""
        return not self.series.any()

    def text(self, time: Any) -> str:
        """Return one time as text, such as "1989" or "2001-12-22"."""
        return format_times(np.asarray([time]), offset=self.offset)[0]

    def label(self, axis: Axes, places: np.ndarray, times: np.ndarray) -> None:
        """Put ticks on the x axis where a period begins, as close as their texts fit.

        places (n,): where the rising times (n,) are on the axis.
        """
        if len(times) < 2 or axis.get_subplotspec() is None:
            return
        columns = axis.get_subplotspec().get_gridspec().ncols  # type: ignore[union-attr]
        width_px = axis.figure.get_figwidth() * CSS_DPI / columns * AXES_SHARE  # type: ignore[union-attr]
        ticks = time_ticks(times, self.offset, width_px / CHARACTER_PX)
        texts = [f"{tick.text}\n{tick.context}".rstrip() for tick in ticks]
        axis.set_xticks([float(places[tick.row]) for tick in ticks], texts)
