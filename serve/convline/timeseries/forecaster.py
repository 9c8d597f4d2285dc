"""`Forecaster`: a forecasting model on a device.

It reads series, and returns forecasts, quantiles or the rows of a table.
"""

from pathlib import Path
from typing import IO, Any, Unpack

import numpy as np
import numpy.typing as npt

from convline.errors import InputError
from convline.model_file.document import Step
from convline.runtime.rows import Row
from convline.timeseries.dataframe_reader import is_dataframe
from convline.timeseries.model import WINDOWS_PER_RUN, Floats, ForecastModel
from convline.timeseries.predict import table_rows
from convline.timeseries.read_options import ColumnOptions, ReadOptions
from convline.timeseries.series import DataFrame, Series, Table

Input = str | Path | IO[str] | IO[bytes] | DataFrame | Table | npt.ArrayLike


class Forecaster(ForecastModel):
    """load("dilated.onnx").predict("history.csv", horizon=24)   # float32 (N, 24, D') for N series

    `predict`, `predict_quantiles` and `predict_table` take the path of a CSV or Parquet file, an
    open file, a DataFrame (of pandas, polars or any library whose frames have `columns` and
    `to_numpy`), a `convline.timeseries.series.Table`, or an array (T', D), (N, T', D), or (T',) if
    D is 1. They use the last `context` rows of each series. A model with a calendar needs times, so
    it takes no array. The model's rule decides which columns of a file or DataFrame are read; the
    keywords target, time, id, gaps, delimiter and decimal replace it:
    predict("shop.csv", time="day", target="sales").
    """

    def predict(
        self, series: Input, horizon: int | None = None, **options: Unpack[ColumnOptions]
    ) -> Floats:
        """Return the forecast (N, horizon, D') in the units of the series.

        Beyond the trained horizon the forecast is fed back as input.
        """
        return self._forecast(series, horizon, options)[0]

    def predict_quantiles(
        self, series: Input, horizon: int | None = None, **options: Unpack[ColumnOptions]
    ) -> Floats:
        """Return the quantiles (N, horizon, D', Q), nan beyond the trained horizon."""
        return self._forecast(series, horizon, options)[1]

    def predict_table(
        self, series: Input, horizon: int | None = None, **options: Unpack[ColumnOptions]
    ) -> list[Row]:
        """Return the rows of `infer series`: unique_id, ds, yhat, yhat-lo-80, ..., status, error.

        A series that cannot be forecast is one row with status "error". As a DataFrame:
        pandas.DataFrame(model.predict_table("history.csv")).
        """
        return table_rows(self, self._read(series, options), self.steps(horizon))

    def _forecast(
        self, series: Input, horizon: int | None, options: ColumnOptions
    ) -> tuple[Floats, Floats]:
        steps = self.steps(horizon)
        table = self._read(series, options)
        parts = []
        for start in range(0, len(table.series), WINDOWS_PER_RUN):
            batch = table.series[start : start + WINDOWS_PER_RUN]
            windows = np.stack([self.window(one.id, one.values) for one in batch])
            times = None
            if self.calendar:
                cutoffs = [(one, len(one.values) - 1) for one in batch]
                times = np.stack([self.stamps(*one, table.step, steps) for one in cutoffs])
            parts.append(self.run(windows, steps, times))
        forecasts, quantiles = zip(*parts, strict=True)
        return np.concatenate(forecasts), np.concatenate(quantiles)

    def _read(self, series: Input, options: ColumnOptions) -> Table:
        """Return the series of any input; those of an array are named by their place."""
        if isinstance(series, str | Path) or hasattr(series, "read") or is_dataframe(series):
            target = options.get("target")
            names = [target] if isinstance(target, str) else None if target is None else [*target]
            if names is not None and len(names) != len(self.columns):
                raise ValueError(f"target: expected {len(self.columns)} names, got {names!r}")
            more: dict[str, Any] = {**options, "target": names}
            return ReadOptions(self.name, self.document.input, **more).read(series)
        if options:
            got = f"got {type(series).__name__}"
            raise ValueError(f"{next(iter(options))}: expected with a file or DataFrame, {got}")
        if isinstance(series, Table):
            return series
        if self.calendar:
            needs = "reads a calendar, and needs times; give a file or a DataFrame"
            raise InputError("array", f"model {self.name!r} {needs}")
        array = np.asarray(series, dtype=np.float64)
        array = array[:, None] if array.ndim == 1 else array
        each = array if array.ndim == 3 else array[None]
        rows = [Series(f"series {n}", np.arange(len(one)), one) for n, one in enumerate(each)]
        return Table(rows, self.columns, Step("index", 1), 0, [])
