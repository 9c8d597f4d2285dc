"""Forecasts from cutoffs: from the last row of each series, or from many rows of it, a backtest.

A cutoff is the last row that a forecast may use. Cutoffs are forecast in batches.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import DeviceMemoryError, InputError
from convline.model_file.document import Step
from convline.timeseries.model import WINDOWS_PER_RUN, Floats, ForecastModel
from convline.timeseries.series import Series, Table
from convline.timeseries.timestamps import Times, has_times_after

DAY = 86400  # seconds
NO_TIMES = (
    "expected times ahead below 2^63 and before the year 10000, got a last time too near to them; "
    "renumber the rows"
)
NOT_FINITE = "the model answered values that are not finite"
VALUES_PER_RUN = 2**18  # of outputs held at once, whatever the horizon

Window = npt.NDArray[np.floating[Any]]
Cutoff = tuple[Series, int]  # a series, and the last of its rows that a forecast may use


class Forecast(NamedTuple):  # a file has hundreds of thousands of them
    """The forecast of a model after row `cutoff` of a series.

    forecast (S, D), quantiles (S, D, Q) with nan beyond the trained horizon. error: "" or one
    sentence why the numbers cannot be used. outside: whether the history is unlike that of
    training.
    """

    series: Series
    step: Step
    cutoff: int
    forecast: npt.NDArray[np.floating[Any]]
    quantiles: npt.NDArray[np.floating[Any]]
    error: str
    outside: bool = False

    @property
    def times(self) -> Times:
        """The times (S,) of the rows ahead."""
        return self.series.after(self.cutoff, self.step, len(self.forecast))

    @property
    def dates(self) -> bool:
        """Whether times are written as dates alone."""
        return self.series.dates and (self.step.unit != "seconds" or self.step.count % DAY == 0)


def backtest_batches(
    model: ForecastModel, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Forecast]]:
    """Yield the forecasts of `cutoff_batches`; memory does not grow with their number."""
    for batch in cutoff_batches(model, table, horizon, every, held):
        yield forecast_batch(model, table.step, batch, horizon)


def cutoff_batches(
    model: ForecastModel, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Cutoff]]:
    """Yield batches of cutoffs, series after series, in rising order of time.

    every: each `every`-th row with enough history, counted back from the last row; None takes the
    last row alone. held: rows at the end that are no cutoffs; if held = horizon, the series holds
    the truth of every forecast. A series without any such row has one cutoff, for its error.
    """
    cutoffs = (
        (series, row) for series in table.series for row in _cutoff_rows(model, series, every, held)
    )
    size = windows_per_run(model, horizon)
    while batch := list(islice(cutoffs, size)):
        yield batch


def windows_per_run(model: ForecastModel, horizon: int) -> int:
    """Return the number of windows of a batch, so that its outputs are at most VALUES_PER_RUN."""
    values = horizon * len(model.targets) * (1 + len(model.quantiles))
    return max(1, min(WINDOWS_PER_RUN, VALUES_PER_RUN // values))


def _cutoff_rows(model: ForecastModel, series: Series, every: int | None, held: int) -> range:
    last = max(len(series.values) - 1 - held, -1)
    rows = range(last, model.context - 2, -every)[::-1] if every else range(0)
    return rows or range(last, last + 1)


def forecast_batch(
    model: ForecastModel, step: Step, cutoffs: list[Cutoff], horizon: int
) -> list[Forecast]:
    """Return the forecast of each cutoff; one that cannot be run has an error and nan."""
    context, columns, has_calendar = model.context, len(model.columns), bool(model.calendar)
    windows, stamps, run = [], [], []
    errors: dict[int, str] = {}
    endless = {  # series whose last row, and so each row, has times ahead
        id(series): not len(series.times) or has_times_after(series.times[-1], step, horizon)
        for series in {id(series): series for series, _ in cutoffs}.values()
    }
    for place, (series, cutoff) in enumerate(cutoffs):
        try:
            is_short = not endless[id(series)] and cutoff >= 0
            if is_short and not has_times_after(series.times[cutoff], step, horizon):
                raise InputError(series.id, NO_TIMES)
            window: Window = series.values[max(cutoff + 1 - context, 0) : cutoff + 1]
            if not (series.fits and window.shape == (context, columns)):
                window = model.window(series.id, series.values[: cutoff + 1])
            if has_calendar:
                stamps.append(model.stamps(series, cutoff, step, horizon))
            windows.append(window)
            run.append(place)
        except InputError as error:
            errors[place] = error.reason
    shape = (horizon, len(model.targets))
    blank = np.full(shape, np.nan), np.full((*shape, len(model.quantiles)), np.nan)
    answers = dict(zip(run, _answers(model, windows, stamps, horizon), strict=True))
    return [
        Forecast(series, step, cutoff, *answers.get(place, (*blank, errors.get(place, ""))))
        for place, (series, cutoff) in enumerate(cutoffs)
    ]


def _answers(
    model: ForecastModel, windows: list[Window], stamps: list[Times], horizon: int
) -> Iterable[tuple[Floats, Floats, str, bool]]:
    """Return the last four fields of the `Forecast` of each window."""
    if not windows:
        return []
    histories = np.stack(windows)
    forecast, quantiles = _run(model, histories, horizon, np.stack(stamps) if stamps else None)
    trained = quantiles[:, : model.horizon]
    finite = np.asarray(np.isfinite(forecast).all((1, 2)) & np.isfinite(trained).all((1, 2, 3)))
    found = ["" if is_finite else NOT_FINITE for is_finite in finite.tolist()]
    return zip(forecast, quantiles, found, model.outside(histories).tolist(), strict=True)


def _run(
    model: ForecastModel, windows: Window, horizon: int, times: Times | None
) -> tuple[Floats, Floats]:
    """Return the outputs for windows (N, T, D), run in halves if the device's memory is small."""
    try:
        return model.run(windows, horizon, times)
    except DeviceMemoryError:
        if len(windows) == 1:
            raise
    middle = len(windows) // 2
    halves = [
        _run(model, windows[part], horizon, None if times is None else times[part])
        for part in (slice(None, middle), slice(middle, None))
    ]
    forecasts, quantiles = zip(*halves, strict=True)
    return np.concatenate(forecasts), np.concatenate(quantiles)
