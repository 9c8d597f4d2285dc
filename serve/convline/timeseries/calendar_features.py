"""What is known of a row from its time alone: the calendar that training and serving hand to a network."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from convline.timeseries.timestamps import Times


def encode_calendar(times: Times, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return float32 (..., 2 len(names)): sine and cosine of where each time (...) stands in its hour, day, week, ...

    minute: in the hour. hour: in the day. weekday: in the week, whole days from Monday. day: in the month. month: in
    the year, whole months. yearday: in the year, of 365 or 366 days. ValueError where times are whole numbers.
    """
    if times.dtype.kind != "M":
        raise ValueError("expected dates or times for the calendar, got whole numbers")
    seconds = times.astype("datetime64[s]")
    day, month, year = (seconds.astype(f"datetime64[{unit}]") for unit in "DMY")
    within = _days(seconds - day)

    def share(start: Times, unit: int) -> npt.NDArray[np.float64]:
        """Where a time stands between the start of its month or year and of the next."""
        first, last = (edge.astype("datetime64[s]") for edge in (start, start + unit))
        return _days(seconds - first) / _days(last - first)

    places = {
        "minute": within * 24 % 1,
        "hour": within,
        "weekday": (day.astype(np.int64) + 3) % 7 / 7,  # 1970 began on a Thursday
        "day": share(month, 1),
        "month": month.astype(np.int64) % 12 / 12,
        "yearday": share(year, 1),
    }
    angles = 2 * np.pi * np.stack([places[name] for name in names], -1)
    return np.concatenate([np.sin(angles), np.cos(angles)], -1).astype(np.float32)


def _days(span: npt.NDArray[np.timedelta64]) -> npt.NDArray[np.float64]:
    return np.asarray(span / np.timedelta64(1, "D"))
