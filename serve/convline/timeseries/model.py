"""`ForecastModel`: a forecasting model on a device, which runs windows of rows."""

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from convline.errors import InputError, ServeError, describe_count
from convline.model_file.document import ForecasterDocument, Step
from convline.model_file.schema import MAX_STEPS
from convline.runtime.model import Array, Model, Tensors
from convline.timeseries.calendar_features import encode_calendar
from convline.timeseries.series import Series
from convline.timeseries.timestamps import Times

Floats = npt.NDArray[np.float32]
Windows = npt.NDArray[np.floating[Any]]

WINDOWS_PER_RUN = 128
MARGIN = 0.5  # how far a value may lie beyond the training range, as a part of its width


class ForecastModel(Model):
    """A network that forecasts `horizon` rows of its targets from `context` rows of its columns."""

    @property
    def document(self) -> ForecasterDocument:
        assert isinstance(self.file.document, ForecasterDocument)
        return self.file.document

    @property
    def context(self) -> int:
        """The number of rows that the network reads, T."""
        return self.document.input.context

    @property
    def columns(self) -> list[str]:
        """The D columns that the network reads."""
        return self.document.input.columns

    @property
    def targets(self) -> list[str]:
        """The D' columns that it forecasts, the first ones of `columns`."""
        return self.document.targets

    @property
    def calendar(self) -> list[str]:
        """The names of its calendar features; see `calendar_features.encode_calendar`."""
        return self.document.input.calendar or []

    @property
    def horizon(self) -> int:
        """The number of steps that one run forecasts, S."""
        return self.document.horizon

    @property
    def quantiles(self) -> list[float]:
        """The Q quantile levels, rising and symmetric about the median."""
        return self.document.quantiles

    def run(
        self, values: Windows, horizon: int | None = None, times: Times | None = None
    ) -> tuple[Floats, Floats]:
        """Return forecast (N, S, D') and quantiles (N, S, D', Q), float32, for windows (N, T, D).

        times: for a model with a calendar, the `stamps` of each window, stacked. Beyond the trained
        horizon the forecast is fed back as if it had been observed; ServeError if the model reads
        columns that it does not forecast. Quantiles are nan there, because they would ignore the
        error of the forecast that was fed back.
        """
        features = None
        if self.calendar and times is not None:
            features = encode_calendar(times, self.calendar)
        return self.run_encoded(values, features, horizon)

    def run_encoded(
        self, values: Windows, features: Floats | None, horizon: int | None = None
    ) -> tuple[Floats, Floats]:
        """Return what `run` returns, for calendar features (N, T + S or more, F) or None."""
        trained, steps = self.horizon, self.steps(horizon)
        runs = -(-steps // trained)
        expected, needed = (self.context, len(self.columns)), self.context + runs * trained
        if values.shape[1:] != expected:
            raise ValueError(f"run: expected values (N, {expected}), got {values.shape}")
        if self.calendar and (features is None or features.shape[1] < needed):
            got = "none" if features is None else features.shape[1]
            what = f"expected times of {needed} rows for the calendar of {self.name!r}"
            raise ValueError(f"run: {what}, got {got}")
        if runs > 1 and len(self.targets) < len(self.columns):
            other = ", ".join(self.columns[len(self.targets) :])
            what = f"expected a horizon of at most {trained}, beyond which {other} is not known"
            raise ServeError(f"{self.name}: {what}, got {steps}")
        with np.errstate(over="ignore"):  # the caller finds the inf of what is beyond float32
            window = values.astype(np.float32)
        forecasts: list[Array] = []
        quantiles: list[Array] = []
        for start in range(0, runs * trained, trained):
            window = np.concatenate([window, *forecasts[-1:]], axis=1)[:, -self.context :]
            more = {}
            if features is not None:
                more["calendar"] = features[:, start : start + self.context + trained]
            names = ["forecast"] if forecasts else ["forecast", "quantiles"]
            forecast, *quantile = self._run(names, window, **more)
            forecasts.append(forecast)
            quantiles += quantile
        shape = (len(values), max(steps - trained, 0), *quantiles[0].shape[2:])
        quantiles.append(np.full(shape, np.nan, np.float32))
        return (
            np.concatenate(forecasts, axis=1)[:, :steps],
            np.concatenate(quantiles, axis=1)[:, :steps],
        )

    def outside(self, windows: Windows) -> npt.NDArray[np.bool_]:
        """Return (N,): whether a window (N, T, D) holds values unlike those of training.

        All are false if the model file does not tell the range of its training values.
        """
        trained = self.document.input.range
        if trained is None:
            return np.zeros(len(windows), np.bool_)
        low, high = np.array(trained.low, np.float64), np.array(trained.high, np.float64)
        margin = MARGIN * (high - low)
        values = windows if trained.of == "values" else windows - windows[:, -1:]
        return np.asarray(((values < low - margin) | (values > high + margin)).any(axis=(1, 2)))

    def stamps(self, series: Series, cutoff: int, step: Step, horizon: int | None = None) -> Times:
        """Return the times of the window that ends at row `cutoff`, and of the steps ahead."""
        ahead = -(-(horizon or self.horizon) // self.horizon) * self.horizon
        later = series.after(cutoff, step, ahead)
        if series.times.dtype.kind != "M":
            expected = "expected times that are dates, got whole numbers"
            raise InputError(series.id, f"model {self.name!r} reads a calendar: {expected}")
        return np.concatenate([series.times[cutoff + 1 - self.context : cutoff + 1], later])

    def window(self, name: str, values: Windows) -> Windows:
        """Return the last rows (T, D) of a series (T', D); InputError if they cannot be run."""
        window, needs = values[-self.context :], f"model {self.name!r} needs"
        columns = describe_count(len(self.columns), "column")
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise InputError(name, f"{needs} rows of {columns}, got shape {values.shape}")
        if len(window) < self.context:
            expected = f"{describe_count(self.context, 'row')} of {columns}"
            got = describe_count(len(values), "row")
            raise InputError(name, f"{needs} {expected}, got {got}")
        limit = float(np.finfo(np.float32).max)
        if not (np.abs(window) <= limit).all():
            expected = f"expected finite values up to {limit:.6g} (float32)"
            raise InputError(name, f"{expected}, got others")
        return window

    def steps(self, horizon: int | None) -> int:
        """Return the steps ahead, the trained ones for None; ValueError if it is no such number."""
        if horizon is None:
            return self.horizon
        try:
            steps = 0 if isinstance(horizon, bool) else operator.index(horizon)
        except TypeError:
            steps = 0
        if not 1 <= steps <= MAX_STEPS:
            expected = f"expected a whole number from 1 to {MAX_STEPS:,}"
            raise ValueError(f"horizon: {expected}, got {horizon!r}")
        return steps

    def _inputs(self) -> Tensors:
        inputs = {"series": ("float", [None, self.context, len(self.columns)])}
        if names := self.calendar:
            rows = self.context + self.horizon
            inputs["calendar"] = ("float", [None, rows, 2 * len(names)])
        return inputs

    def _outputs(self) -> Tensors:
        shape = [None, self.horizon, len(self.targets)]
        return {"forecast": ("float", shape), "quantiles": ("float", [*shape, len(self.quantiles)])}
