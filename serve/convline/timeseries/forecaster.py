"""`Forecaster`: a forecasting model on a device; series in, forecasts, quantiles or rows out."""

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Unpack

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, ServeError
from convline.model_file.schema import MAX_STEPS
from convline.runtime.model import Array, Model, Tensors
from convline.runtime.rows import Row
from convline.timeseries.calendar_features import encode_calendar
from convline.timeseries.dataframe_reader import is_dataframe
from convline.timeseries.read_options import ColumnOptions, ReadOptions
from convline.timeseries.series import DataFrame, Series, Table
from convline.timeseries.timestamps import Step, Times

Floats = npt.NDArray[np.float32]
Given = str | Path | IO[str] | IO[bytes] | DataFrame | Table | npt.ArrayLike

WINDOWS_PER_RUN = 128
MARGIN = 0.5  # of the width of the training range, on each side: how far beyond it an input may lie


class Forecaster(Model):
    """load("dilated.onnx").predict("history.csv", horizon=24)   # -> float32 (N, 24, D'), one forecast per series

    `predict`, `predict_quantiles` and `predict_table` take the path of a CSV or Parquet file, an open file, a DataFrame
    (of pandas, polars or any library whose frames have `columns` and `to_numpy`), a convline.timeseries.series.Table, or an array
    (T', D), (N, T', D), or (T',) where D is 1. Of each series the last `context` rows are used. A model with a calendar
    needs times, so no array. Which columns of a file or frame are read is the model's rule, which the keywords target,
    time, id, gaps, delimiter and decimal replace: predict("shop.csv", time="day", target="sales").
    """

    @property
    def context(self) -> int:
        """Rows that the network reads, T."""
        return int(self.contract.document["input"]["context"])

    @property
    def columns(self) -> list[str]:
        return list(self.contract.document["input"]["columns"])

    @property
    def targets(self) -> list[str]:
        """The columns that it forecasts, D': the first ones of those that it reads."""
        return list(self.contract.document["forecast"].get("columns", self.columns))

    @property
    def calendar(self) -> list[str]:
        """What it knows of each row's time, F = 2 of these: `convline.timeseries.calendar_features.encode_calendar`."""
        return list(self.contract.document["input"].get("calendar", []))

    @property
    def horizon(self) -> int:
        """Rows that one run answers, S."""
        return int(self.contract.document["forecast"]["horizon"])

    @property
    def quantiles(self) -> list[float]:
        return list(self.contract.document["forecast"]["quantiles"])

    def predict(
        self, given: Given, horizon: int | None = None, **columns: Unpack[ColumnOptions]
    ) -> Floats:
        """Return the forecast (N, horizon, D') in the units given; beyond the trained horizon it is fed back."""
        return self._forecast(given, horizon, columns)[0]

    def predict_quantiles(
        self, given: Given, horizon: int | None = None, **columns: Unpack[ColumnOptions]
    ) -> Floats:
        """Return the quantiles (N, horizon, D', Q), nan beyond the trained horizon: none were trained there."""
        return self._forecast(given, horizon, columns)[1]

    def predict_table(
        self, given: Given, horizon: int | None = None, **columns: Unpack[ColumnOptions]
    ) -> list[Row]:
        """Return the rows of `infer series`: unique_id, ds, yhat, yhat-lo-80, yhat-hi-80, ..., status, error.

        A series that cannot be forecast is one row with status "error". For a DataFrame:
        pandas.DataFrame(model.predict_table("history.csv")).
        """
        from convline.timeseries.predict import table_rows  # which imports this module

        return table_rows(self, self._table(given, columns), self._steps(horizon))

    def run(
        self,
        values: npt.NDArray[np.floating[Any]],
        horizon: int | None = None,
        times: Times | None = None,
    ) -> tuple[Floats, Floats]:
        """Return forecast (N, S, D') and quantiles (N, S, D', Q), float32 in the units of `values` (N, T, D).

        times: for a model with a calendar the stamps of each window's rows and of those ahead, `stamps` stacked.
        Beyond the trained horizon the forecast is fed back as if it had been observed; a model that reads columns that
        it does not forecast refuses. Quantiles are nan there: they would ignore the forecast's own error.
        """
        known = (
            encode_calendar(times, self.calendar) if self.calendar and times is not None else None
        )
        return self.answers(values, known, horizon)

    def answers(
        self,
        values: npt.NDArray[np.floating[Any]],
        known: Floats | None,
        horizon: int | None = None,
    ) -> tuple[Floats, Floats]:
        """Return what `run` returns; known: the calendar's features (N, T + S and more, F), None without one."""
        ahead, steps = self.horizon, self._steps(horizon)
        if values.shape[1:] != (expected := (self.context, len(self.columns))):
            raise ValueError(f"run: expected values (N, {expected}), got {values.shape}")
        runs = -(-steps // ahead)
        if self.calendar and (known is None or known.shape[1] < self.context + runs * ahead):
            what = f"expected times of {self.context + runs * ahead} rows for the calendar of {self.name!r}"
            raise ValueError(f"run: {what}, got {'none' if known is None else known.shape[1]}")
        if runs > 1 and len(self.targets) < len(self.columns):
            other = ", ".join(self.columns[len(self.targets) :])
            what = f"expected a horizon of at most {ahead}, beyond which {other} is not known, got {steps}"
            raise ServeError(f"{self.name}: {what}")
        with np.errstate(
            over="ignore"
        ):  # beyond float32 is inf, which the caller's finite check names
            recent = values.astype(np.float32)
        parts: list[list[Array]] = []
        for start in range(0, runs * ahead, ahead):
            recent = np.concatenate([recent, *(part[0] for part in parts[-1:])], axis=1)[
                :, -self.context :
            ]
            seen = (
                {}
                if known is None
                else {"calendar": known[:, start : start + self.context + ahead]}
            )
            parts.append(self._run(["forecast", "quantiles"][: 1 if parts else 2], recent, **seen))
        forecast, quantiles = np.concatenate([part[0] for part in parts], axis=1), parts[0][1]
        unknown = np.full(
            (len(values), max(steps - ahead, 0), *quantiles.shape[2:]), np.nan, np.float32
        )
        return forecast[:, :steps], np.concatenate([quantiles, unknown], axis=1)[:, :steps]

    def outside(self, windows: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.bool_]:
        """Return (N,): whether a window (N, T, D) holds values unlike those of training, as far as the file tells."""
        trained = self.contract.document["input"].get("range")
        if trained is None:
            return np.zeros(len(windows), np.bool_)
        low, high = np.array(trained["low"], np.float64), np.array(trained["high"], np.float64)
        reach = MARGIN * (high - low)
        seen = windows if trained["of"] == "values" else windows - windows[:, -1:]
        return np.asarray(((seen < low - reach) | (seen > high + reach)).any(axis=(1, 2)))

    def stamps(self, series: Series, cutoff: int, step: Step, horizon: int | None = None) -> Times:
        """Return the times of the window that ends at row `cutoff` and of as many rows ahead as `run` asks for."""
        ahead = -(-(horizon or self.horizon) // self.horizon) * self.horizon
        later = series.after(cutoff, step, ahead)
        if series.times.dtype.kind != "M":
            what = f"model {self.name!r} reads a calendar: expected times that are dates, got whole numbers"
            raise InputError(series.id, what)
        return np.concatenate([series.times[cutoff + 1 - self.context : cutoff + 1], later])

    def window(
        self, name: str, values: npt.NDArray[np.floating[Any]]
    ) -> npt.NDArray[np.floating[Any]]:
        """Return the last rows (T, D) of one series (T', D); InputError, naming it, where the network cannot run."""
        window, columns = values[-self.context :], len(self.columns)
        if values.ndim != 2 or values.shape[1] != columns:
            raise InputError(
                name,
                f"model {self.name!r} needs rows of {columns} columns, got shape {values.shape}",
            )
        if len(window) < self.context:
            needs = f"{self.context} rows of {columns} columns, got {len(values)} rows"
            raise InputError(name, f"model {self.name!r} needs {needs}")
        limit = float(np.finfo(np.float32).max)
        if not (np.abs(window) <= limit).all():
            raise InputError(
                name, f"expected finite values up to {limit:.6g} (float32), got others"
            )
        return window

    def _steps(self, horizon: int | None) -> int:
        """Return the steps ahead, the trained ones for None; ValueError where it is no such number."""
        if horizon is None:
            return self.horizon
        try:
            steps = 0 if isinstance(horizon, bool) else operator.index(horizon)
        except TypeError:
            steps = 0
        if not 1 <= steps <= MAX_STEPS:
            raise ValueError(
                f"horizon: expected a whole number from 1 to {MAX_STEPS:,}, got {horizon!r}"
            )
        return steps

    def _forecast(
        self, given: Given, horizon: int | None, columns: ColumnOptions
    ) -> tuple[Floats, Floats]:
        windows, times = zip(
            *self._windows(self._table(given, columns), self._steps(horizon)), strict=True
        )
        parts = []
        for start in range(0, len(windows), WINDOWS_PER_RUN):
            rows = slice(start, start + WINDOWS_PER_RUN)
            stamps = np.stack(times[rows]) if self.calendar else None
            parts.append(self.run(np.stack(windows[rows]), horizon, stamps))
        forecasts, quantiles = zip(*parts, strict=True)
        return np.concatenate(forecasts), np.concatenate(quantiles)

    def _windows(
        self, table: Table, horizon: int
    ) -> Iterator[tuple[npt.NDArray[np.floating[Any]], Times | None]]:
        """Yield the window (T, D) of each series, and the times that its calendar needs."""
        for one in table.series:
            window = self.window(one.id, one.values)
            yield (
                window,
                self.stamps(one, len(one.values) - 1, table.step, horizon)
                if self.calendar
                else None,
            )

    def _table(self, given: Given, columns: ColumnOptions) -> Table:
        """Return what a caller gives as series; rows of arrays are counted, their series named by their place."""
        if isinstance(given, str | Path) or hasattr(given, "read") or is_dataframe(given):
            target = columns.get("target")
            names = [target] if isinstance(target, str) else None if target is None else [*target]
            if names is not None and len(names) != len(self.columns):
                raise ValueError(f"target: expected {len(self.columns)} names, got {names!r}")
            more: dict[str, Any] = {**columns, "target": names}
            return ReadOptions(self.name, self.contract.document["input"], **more).read(given)
        if columns:
            raise ValueError(
                f"{next(iter(columns))}: expected with a file or DataFrame, got {type(given).__name__}"
            )
        if isinstance(given, Table):
            return given
        if self.calendar:
            what = (
                f"model {self.name!r} reads a calendar, and needs times; give a file or a DataFrame"
            )
            raise InputError("array", what)
        array = np.asarray(given, dtype=np.float64)
        array = array[:, None] if array.ndim == 1 else array
        each = array if array.ndim == 3 else array[None]
        series = [Series(f"series {n}", np.arange(len(one)), one) for n, one in enumerate(each)]
        return Table(series, self.columns, Step("index", 1), 0, [])

    def _inputs(self) -> Tensors:
        rows, given = self.context, {"series": ("float", [None, self.context, len(self.columns)])}
        if names := self.calendar:
            given["calendar"] = ("float", [None, rows + self.horizon, 2 * len(names)])
        return given

    def _outputs(self) -> Tensors:
        shape = [None, self.horizon, len(self.targets)]
        return {"forecast": ("float", shape), "quantiles": ("float", [*shape, len(self.quantiles)])}
