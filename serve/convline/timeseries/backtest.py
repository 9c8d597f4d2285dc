"""Where forecasts start, and what a model answers there: from the last row of each series, or from many."""

from collections.abc import Iterator
from itertools import groupby, islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convline.errors import DeviceMemoryError, InputError
from convline.timeseries.forecaster import WINDOWS_PER_RUN, Floats, Forecaster
from convline.timeseries.series import Series, Table
from convline.timeseries.timestamps import Step, Times, has_times_after

DAY = 86400  # seconds
NO_TIMES = "expected times ahead below 2^63 and before the year 10000, got a last time too near to them; renumber the rows"
VALUES_PER_RUN = 2**18  # of answers held at once, whatever the horizon


class Forecast(NamedTuple):  # of which a file has hundreds of thousands
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
    outside: bool = False  # whether the history is unlike that of training

    @property
    def times(self) -> Times:
        """Return the times (S,) of the rows ahead."""
        return self.series.after(self.cutoff, self.step, len(self.forecast))

    @property
    def dates(self) -> bool:
        """Whether times are shown as dates alone."""
        return self.series.dates and (self.step.unit != "seconds" or self.step.count % DAY == 0)


Start = tuple[Series, int]  # a series, and the last of its rows that is known


def backtest_batches(
    model: Forecaster, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Forecast]]:
    """Yield batches of origins, series after series in rising order of time; memory does not grow with their number."""
    for batch in cutoff_batches(model, table, horizon, every, held):
        yield forecast_batch(model, table.step, batch, horizon)


def cutoff_batches(
    model: Forecaster, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Start]]:
    """Yield batches of where forecasts start.

    That is every `every`-th row with enough history, counted back from the last row but `held` (held = horizon: the
    truth of every forecast is in the series); None is that row alone. A series without one gives one, for its error.
    """
    found = (
        (series, cutoff)
        for series in table.series
        for cutoff in _cutoffs(model, series, every, held)
    )
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


def forecast_batch(
    model: Forecaster, step: Step, batch: list[Start], horizon: int
) -> list[Forecast]:
    """Return the origins in order; those that cannot be forecast do not enter the run."""
    windows, times, asked = [], [], []
    errors: dict[int, str] = {}
    distinct = {id(series): series for series, _ in batch}
    endless = {
        key: _has_times(one, len(one.times) - 1, step, horizon) for key, one in distinct.items()
    }
    for _, group in groupby(
        range(len(batch)), lambda place: _alike(batch[place][0], place, endless)
    ):
        places = [*group]
        series, cutoffs = batch[places[0]][0], np.array([batch[place][1] for place in places])
        try:
            if not (endless[id(series)] or _has_times(series, batch[places[0]][1], step, horizon)):
                raise InputError(series.id, NO_TIMES)
            cut = _windows(model, series, cutoffs)
            if model.calendar:
                times.append(
                    np.stack([model.stamps(series, cutoff, step, horizon) for cutoff in cutoffs])
                )
            windows.append(cut)
            asked += places
        except InputError as error:
            errors |= dict.fromkeys(places, error.reason)
    shape = (horizon, len(model.targets))
    nothing = np.full(shape, np.nan), np.full((*shape, len(model.quantiles)), np.nan), False, False
    found = {}
    if windows:
        histories, stamps = np.concatenate(windows), np.concatenate(times) if times else None
        forecast, quantiles = _run(model, histories, horizon, stamps)
        sound = np.asarray(
            np.isfinite(forecast).all((1, 2))
            & np.isfinite(quantiles[:, : model.horizon]).all((1, 2, 3))
        )
        facts = sound.tolist(), model.outside(histories).tolist()
        found = dict(zip(asked, zip(forecast, quantiles, *facts, strict=True), strict=True))
    origins = []
    for place, (series, cutoff) in enumerate(batch):
        forecast, quantiles, finite, outside = found.get(place, nothing)
        error_text = errors.get(
            place, "" if finite else "the model answered values that are not finite"
        )
        origins.append(Forecast(series, step, cutoff, forecast, quantiles, error_text, outside))
    return origins


def _run(
    model: Forecaster, windows: npt.NDArray[np.floating[Any]], horizon: int, times: Times | None
) -> tuple[Floats, Floats]:
    """Return what the model answers to windows (N, T, D); half by half where the device's memory is too small."""
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


def _alike(series: Series, place: int, endless: dict[int, bool]) -> tuple[int, int]:
    """Return a key that neighbours share whose windows are cut at once: where some do not fit, each is by itself."""
    return id(series), 0 if series.fits and endless[id(series)] else place


def _has_times(series: Series, cutoff: int, step: Step, horizon: int) -> bool:
    return cutoff < 0 or has_times_after(series.times[cutoff], step, horizon)


def _windows(
    model: Forecaster, series: Series, cutoffs: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating[Any]]:
    """Return the windows (N, T, D) that end at rows of a series; InputError where the network cannot run."""
    whole = (
        cutoffs[0] + 1 >= model.context
        and series.fits
        and series.values.shape[1] == len(model.columns)
    )
    if not whole:
        return np.stack(
            [model.window(series.id, series.values[: cutoff + 1]) for cutoff in cutoffs]
        )
    windows: npt.NDArray[np.floating[Any]] = series.values[
        cutoffs[:, None] + np.arange(1 - model.context, 1)
    ]
    return windows
