"""Calendar features: what the time of a row tells a network, in training and in serving."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convline.timeseries.timestamps import Times


def encode_calendar(times: Times, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return float32 (..., 2 len(names)): for times (...), the sines, then the cosines of the phase
    in each named period.

    minute: in the hour. hour: in the day. weekday: in the week, whole days from Monday. day: in the
    month. month: in the year, whole months. yearday: in the year, of 365 or 366 days. ValueError if
    times are whole numbers.
    """
    if times.dtype.kind != "M":
        raise ValueError("expected dates or times for the calendar, got whole numbers")
    seconds = times.astype("datetime64[s]")
    day, month, year = (seconds.astype(f"datetime64[{unit}]") for unit in "DMY")
    in_day = _days(seconds - day)

    def phase(start: Times) -> npt.NDArray[np.float64]:
        """Return the phase in [0, 1) from the start of a month or year to that of the next."""
        first, last = (edge.astype("datetime64[s]") for edge in (start, start + 1))
        return _days(seconds - first) / _days(last - first)

    phases = {
        "minute": in_day * 24 % 1,
        "hour": in_day,
        "weekday": (day.astype(np.int64) + 3) % 7 / 7,  # 1970 began on a Thursday
        "day": phase(month),
        "month": month.astype(np.int64) % 12 / 12,
        "yearday": phase(year),
    }
    angles = 2 * np.pi * np.stack([phases[name] for name in names], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


def _days(span: npt.NDArray[np.timedelta64]) -> npt.NDArray[np.float64]:
    return np.asarray(span / np.timedelta64(1, "D"))
