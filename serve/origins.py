"""Where forecasts start, and what a model answers there: from the last row of each series, or from many."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.model import WINDOWS_PER_RUN, Forecaster
from serve.series import Series, Table, future_times
from serve.times import Step, Times

DAY = 86400  # seconds
VALUES_PER_RUN = 2**18  # of answers held at once, whatever the horizon


@dataclass(frozen=True)
class Origin:
    """One forecast: what the model says after row `cutoff` of a series, of which it saw nothing later.

    forecast (S, D), quantiles (S, D, Q) with nan beyond the trained horizon. `error` is "" or one sentence why the
    numbers cannot be used.
    """

    series: Series
    step: Step
    cutoff: int
    forecast: npt.NDArray[np.floating[Any]]
    quantiles: npt.NDArray[np.floating[Any]]
    error: str

    @property
    def times(self) -> Times:
        """Return the times (S,) of the rows ahead."""
        last, month_end = self.series.times[self.cutoff], self.series.month_end
        return future_times(last, self.step, len(self.forecast), month_end=month_end)

    @property
    def dates(self) -> bool:
        """Whether times are shown as dates alone."""
        return self.series.dates and (self.step.unit != "seconds" or self.step.count % DAY == 0)


Start = tuple[Series, int]  # a series, and the last of its rows that is known


def rolling(
    model: Forecaster, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Origin]]:
    """Yield batches of origins, series after series in rising order of time; memory does not grow with their number."""
    for batch in starts(model, table, horizon, every, held):
        yield answer(model, table.step, batch, horizon)


def starts(
    model: Forecaster, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Start]]:
    """Yield batches of where forecasts start.

    That is every `every`-th row with enough history, counted back from the last row but `held` (held = horizon: the
    truth of every forecast is in the series); None is that row alone. A series without one gives one, for its error.
    """
    found = ((series, cutoff) for series in table.series for cutoff in _cutoffs(model, series, every, held))
    size = windows_per_run(model, horizon)
    while batch := list(islice(found, size)):
        yield batch


def windows_per_run(model: Forecaster, horizon: int) -> int:
    values = horizon * len(model.targets) * (1 + len(model.quantiles))
    return max(1, min(WINDOWS_PER_RUN, VALUES_PER_RUN // values))


def _cutoffs(model: Forecaster, series: Series, every: int | None, held: int) -> range:
    last = max(len(series.values) - 1 - held, -1)
    found = range(last, model.context - 2, -every)[::-1] if every else range(0)
    return found or range(last, last + 1)


def answer(model: Forecaster, step: Step, batch: list[Start], horizon: int) -> list[Origin]:
    """Return the origins in order; those that cannot be forecast do not enter the run."""
    windows: dict[int, npt.NDArray[np.floating[Any]]] = {}
    times: dict[int, Times] = {}
    errors: dict[int, str] = {}
    context, calendar, width = model.context, bool(model.calendar), len(model.columns)
    for place, (series, cutoff) in enumerate(batch):
        try:
            whole = cutoff + 1 >= context and series.fits and series.values.shape[1] == width
            first = cutoff + 1 - context if whole else 0
            window: npt.NDArray[np.floating[Any]] = series.values[first : cutoff + 1]
            window = window if whole else model.window(series.id, window)
            times |= {place: model.stamps(series, cutoff, step, horizon)} if calendar else {}
            windows[place] = window
        except InputError as error:
            errors[place] = error.reason
    shape = (horizon, len(model.targets))
    nothing = np.full(shape, np.nan), np.full((*shape, len(model.quantiles)), np.nan), False
    found = {}
    if windows:
        stamps = np.stack([*times.values()]) if times else None
        forecast, quantiles = model.run(np.stack([*windows.values()]), horizon, stamps)
        sound = np.isfinite(forecast).all((1, 2)) & np.isfinite(quantiles[:, : model.horizon]).all((1, 2, 3))
        found = dict(zip(windows, zip(forecast, quantiles, list(np.atleast_1d(sound)), strict=True), strict=True))
    origins = []
    for place, (series, cutoff) in enumerate(batch):
        forecast, quantiles, finite = found.get(place, nothing)
        error_text = errors.get(place, "" if finite else "the model answered values that are not finite")
        origins.append(Origin(series, step, cutoff, forecast, quantiles, error_text))
    return origins
