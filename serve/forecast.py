"""Files to rows of a long table: each series is forecast from its last row, or from many; errors are rows too."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from serve.errors import InputError
from serve.model import WINDOWS_PER_RUN, Forecaster
from serve.output import Columns, Row
from serve.reading import Reading
from serve.series import Series, Table, future_times
from serve.times import Times, format_times

VALUES_PER_RUN = 2**22  # 16 MiB of answers held at once, whatever the horizon
ROWS_PER_GROUP = 1024


@dataclass(frozen=True)
class Origin:
    """One forecast: what the model says after row `cutoff` of a series, of which it saw nothing later.

    times (S,) of the rows ahead, forecast (S, D), quantiles (S, D, Q) with nan beyond the trained horizon. `error` is
    "" or one sentence why the numbers cannot be used.
    """

    series: Series
    cutoff: int
    times: Times
    forecast: npt.NDArray[np.floating[Any]]
    quantiles: npt.NDArray[np.floating[Any]]
    error: str


def rolling(
    model: Forecaster, table: Table, horizon: int, every: int | None = None, held: int = 0
) -> Iterator[list[Origin]]:
    """Yield batches of origins, series after series in rising order of time; memory does not grow with their number.

    Origins are every `every`-th row with enough history, counted back from the last row but `held` (held = horizon:
    the truth of every forecast is in the series); None is that row alone. A series without one gives one with an error.
    """
    starts = ((series, cutoff) for series in table.series for cutoff in _cutoffs(model, series, every, held))
    values = horizon * len(model.targets) * (1 + len(model.quantiles))
    size = max(1, min(WINDOWS_PER_RUN, VALUES_PER_RUN // values))
    while batch := list(islice(starts, size)):
        yield _answer(model, table, batch, horizon)


def _cutoffs(model: Forecaster, series: Series, every: int | None, held: int) -> range:
    last = max(len(series.values) - 1 - held, -1)
    found = range(last, model.context - 2, -every)[::-1] if every else range(0)
    return found or range(last, last + 1)


def _answer(model: Forecaster, table: Table, batch: list[tuple[Series, int]], horizon: int) -> list[Origin]:
    """Return the origins in order; those that cannot be forecast do not enter the run."""
    windows, stamps, errors = {}, [], {}
    for place, (series, cutoff) in enumerate(batch):
        try:
            window = model.window(series.id, series.values[: cutoff + 1])
            stamps += [model.stamps(series, cutoff, table.step, horizon)] if model.calendar else []
            windows[place] = window
        except InputError as error:
            errors[place] = error.reason
    known = np.stack(stamps) if stamps else None
    answers = model.run(np.stack([*windows.values()]), horizon, known) if windows else ((), ())
    found = dict(zip(windows, zip(*answers, strict=True), strict=True))
    shape = (horizon, len(model.targets))
    nothing = np.full(shape, np.nan), np.full((*shape, len(model.quantiles)), np.nan)
    origins = []
    for place, (series, cutoff) in enumerate(batch):
        forecast, quantiles = found.get(place, nothing)
        finite = np.isfinite(forecast).all() and np.isfinite(quantiles[: model.horizon]).all()
        error_text = errors.get(place, "" if finite else "the model answered values that are not finite")
        times = future_times(series.times[cutoff], table.step, horizon, month_end=series.month_end)
        origins.append(Origin(series, cutoff, times, forecast, quantiles, error_text))
    return origins


def columns_of(model: Forecaster, cutoff: bool = False) -> Columns:
    """Return the table's columns: unique_id, ds, (cutoff,) yhat, yhat-lo-80, yhat-hi-80, ..., status, error.

    With several columns `yhat` is `yhat-<column>`. The quantiles q and 1-q are the ends of the 100 (1-2q) % interval;
    the median is not shown beside yhat. `cutoff` is the time of the origin, where a series has several.
    """
    keys = ["unique_id", "ds", *(["cutoff"] if cutoff else [])]
    values = [name for names in _value_names(model) for name in names]
    return {**dict.fromkeys(keys, str), **dict.fromkeys(values, float), "status": str, "error": str}


def _value_names(model: Forecaster) -> list[list[str]]:
    """Return for each series column [yhat, lo, hi, lo, hi, ...], the innermost interval first."""
    stems = ["yhat"] if len(model.targets) == 1 else [f"yhat-{column}" for column in model.targets]
    levels = [f"{level:.6g}" for level, _, _ in intervals(model.quantiles)]
    return [[stem, *(f"{stem}-{end}-{level}" for level in levels for end in ("lo", "hi"))] for stem in stems]


def intervals(quantiles: list[float]) -> list[tuple[float, int, int]]:
    """Return (percent, place of q, place of 1-q), the innermost first; the schema makes the quantiles symmetric."""
    count = len(quantiles)
    return [(100 * (1 - 2 * quantiles[low]), low, count - 1 - low) for low in reversed(range(count // 2))]


def forecast_file(
    model: Forecaster,
    source: str | TextIO,
    reading: Reading,
    horizon: int,
    every: int | None = None,
    *,
    say: Callable[[str], None],
    draw: Callable[[Origin], None],
) -> Iterator[list[Row]]:
    """Yield the rows of a file in groups; a file that cannot be read is one error row.

    `say` hears what was found in the file or made by interpolation, `draw` sees every origin.
    """
    name, columns = source if isinstance(source, str) else "-", columns_of(model, every is not None)
    try:
        table = reading.read(source)
    except InputError as error:
        yield [dict.fromkeys(columns) | {"unique_id": name, "status": "error", "error": error.reason}]
        return
    for note in table.notes + ([f"{table.filled} values made by interpolation"] if table.filled else []):
        say(f"{name}: {note}")
    origins = (origin for batch in rolling(model, table, horizon, every) for origin in batch)
    rows = (row for origin in origins for row in _origin_rows(model, columns, origin, draw))
    while group := list(islice(rows, ROWS_PER_GROUP)):
        yield group


def _origin_rows(model: Forecaster, columns: Columns, origin: Origin, draw: Callable[[Origin], None]) -> Iterator[Row]:
    draw(origin)
    series, dates = origin.series, origin.series.dates
    blank: Row = dict.fromkeys(columns) | {"unique_id": series.id}
    if "cutoff" in columns and origin.cutoff >= 0:
        blank["cutoff"] = format_times(series.times[[origin.cutoff]], dates)[0]
    if origin.error:
        yield blank | {"status": "error", "error": origin.error}
        return
    names, places = _value_names(model), [place for _, *pair in intervals(model.quantiles) for place in pair]
    for step, time in enumerate(format_times(origin.times, dates)):
        trained = step < model.horizon
        row = blank | {"ds": time, "status": "ok" if trained else "recursive"}
        for column, (point, *ends) in enumerate(names):
            row[point] = float(origin.forecast[step, column])
            for name, place in zip(ends, places, strict=True):
                row[name] = float(origin.quantiles[step, column, place]) if trained else None
        yield row
