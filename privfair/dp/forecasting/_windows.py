"""Series of counts as windows of lags and targets, none of which straddles a gap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.arrays import number_matrix
from privfair.core.exceptions import DataError, InvalidParameterError, LengthMismatchError

__all__ = ["Series", "WindowTransformer", "Windows", "calendar_features", "read_series"]

Floats = NDArray[np.float64]
_PERIODS = {"day": 86_400, "week": 7 * 86_400}


@dataclass(frozen=True, eq=False)
class Series:
    """A multivariate series.

    Attributes
    ----------
    values : ndarray, shape (n_rows, n_series)
    times : ndarray of datetime64[s], shape (n_rows,), or None
        Public; strictly increasing.
    columns : tuple of str or None
    """

    values: Floats
    times: NDArray[np.datetime64] | None
    columns: tuple[str, ...] | None


def read_times(X: Any, timestamps: Any) -> NDArray[np.datetime64] | None:
    """Return the public time stamps of the rows, where there are any."""
    if timestamps is None:
        index = getattr(X, "index", None)
        if not isinstance(index, pd.DatetimeIndex):
            return None
        timestamps = index
    try:
        times = np.asarray(pd.DatetimeIndex(timestamps).tz_localize(None), dtype="datetime64[s]")
    except (TypeError, ValueError) as error:
        raise DataError("timestamps must be dates and times, one per row.") from error
    if np.isnat(times).any() or (np.diff(times) <= np.timedelta64(0, "s")).any():
        raise DataError(
            "timestamps must be strictly increasing, without duplicates or missing ones. Sort "
            "the rows by time, and add up rows of one interval."
        )
    return times


def read_series(X: Any, timestamps: Any = None) -> Series:
    """Read a data frame (its DatetimeIndex as time stamps) or an array; quotes no value."""
    times = read_times(X, timestamps)
    columns = tuple(str(name) for name in X.columns) if isinstance(X, pd.DataFrame) else None
    values = np.asarray(number_matrix(X, "float64"))
    if times is not None and len(times) != len(values):
        raise LengthMismatchError(f"{len(times)} timestamps were given for {len(values)} rows.")
    return Series(values, times, columns)


def calendar_features(times: NDArray[np.datetime64], calendar: Sequence[str]) -> Floats:
    """Return sine and cosine of each period, shape (n, 2 * len(calendar))."""
    seconds = (times - np.datetime64("2001-01-01T00:00:00")).astype("timedelta64[s]")  # a Monday
    out = []
    for name in calendar:
        angle = 2 * np.pi * (seconds.astype(np.int64) % _PERIODS[name]) / _PERIODS[name]
        out += [np.sin(angle), np.cos(angle)]
    return np.stack(out, axis=1) if out else np.zeros((len(times), 0))


@dataclass(frozen=True, eq=False)
class Windows:
    """Lags, calendar and targets of consecutive rows.

    Attributes
    ----------
    lags : ndarray, shape (n_windows, lags, n_series)
    calendar : ndarray, shape (n_windows, lags, n_features)
        Of the lags' times; public.
    targets : ndarray, shape (n_windows, horizon, n_series)
    rows : ndarray of int, shape (n_windows,)
        Position of each window's first target.
    times : ndarray of datetime64, shape (n_windows,), or None
        Of the first target.
    step : timedelta64 or None
        Public interval between rows.
    """

    lags: Floats
    calendar: Floats
    targets: Floats
    rows: NDArray[np.int64]
    times: NDArray[np.datetime64] | None
    step: np.timedelta64 | None

    def __len__(self) -> int:
        return len(self.rows)


class WindowTransformer:
    """Cut a series in windows of lags and targets; never builds one over a gap.

    Parameters
    ----------
    lags : int, default=6
        Rows that a forecast sees, at least 1.
    horizon : int, default=1
        Rows that it forecasts, at least 1.
    calendar : sequence of {"day", "week"}, default=("day", "week")
        Sine and cosine of these periods at each lag, where the series has time stamps.
    freq : str or None, default=None
        Interval between rows, such as ``"30min"``; None takes the shortest one that occurs.

    Notes
    -----
    Time stamps are public. A row is in up to ``lags + horizon`` windows: whoever states a
    guarantee per row or user has to count all of them.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> times = pd.to_datetime(["2024-01-01 00:00", "2024-01-01 00:30", "2024-01-01 01:00",
    ...                         "2024-01-02 00:00", "2024-01-02 00:30"])
    >>> frame = pd.DataFrame({"a": [1, 2, 3, 4, 5]}, index=times)
    >>> windows = WindowTransformer(lags=2, horizon=1).transform(frame)
    >>> windows.lags[:, :, 0].tolist(), windows.targets[:, 0, 0].tolist()
    ([[1.0, 2.0]], [3.0])
    """

    def __init__(
        self,
        *,
        lags: int = 6,
        horizon: int = 1,
        calendar: Sequence[str] = ("day", "week"),
        freq: str | None = None,
    ) -> None:
        self.lags = check.positive_int(lags=lags)
        self.horizon = check.positive_int(horizon=horizon)
        self.calendar = tuple(check.one_of(_PERIODS, calendar=name) for name in calendar)
        self.freq = freq

    def step(self, times: NDArray[np.datetime64] | None) -> np.timedelta64 | None:
        """Return the interval between rows."""
        if times is None:
            return None
        if self.freq is not None:
            try:
                seconds = pd.Timedelta(self.freq).total_seconds()
            except ValueError as error:
                raise InvalidParameterError(
                    f"freq must be an interval such as '30min', got {self.freq!r}."
                ) from error
            if not seconds >= 1:
                raise InvalidParameterError(f"freq must be at least a second, got {self.freq!r}.")
            return np.timedelta64(int(seconds), "s")
        if len(times) < 2:
            raise DataError("one row has no interval: pass freq, such as '30min'.")
        return np.timedelta64(np.diff(times).min(), "s")

    def starts(
        self, n_rows: int, times: NDArray[np.datetime64] | None, length: int
    ) -> NDArray[np.int64]:
        """Return where windows of this length begin; depends on public time stamps only."""
        if n_rows < length:
            return np.zeros(0, dtype=np.int64)
        follows = np.ones(n_rows - 1, dtype=bool)
        if times is not None:
            follows = np.diff(times) == self.step(times)
        joined = np.concatenate([[0], np.cumsum(follows)])
        first = np.arange(n_rows - length + 1)
        return first[joined[first + length - 1] - joined[first] == length - 1]

    def transform(self, X: Any, timestamps: Any = None) -> Windows:
        """Return all windows of a series.

        Parameters
        ----------
        X : data frame with a DatetimeIndex, or array, shape (n_rows, n_series)
        timestamps : array-like, shape (n_rows,), or None
            Of an array. Without any, rows are taken as consecutive.

        Returns
        -------
        Windows
        """
        return self.cut(read_series(X, timestamps))

    def cut(self, series: Series) -> Windows:
        """Return all windows of a series that was read."""
        n_rows, times = len(series.values), series.times
        length = self.lags + self.horizon
        starts = self.starts(n_rows, times, length)
        if not len(starts):
            raise DataError(
                f"no {length} rows in a row (lags + horizon) are without a gap: there are "
                f"{n_rows} rows. Pass a longer series, or fewer lags."
            )
        at = starts[:, None] + np.arange(length)
        first = starts + self.lags
        features = (
            np.zeros((n_rows, 0)) if times is None else calendar_features(times, self.calendar)
        )
        return Windows(
            series.values[at[:, : self.lags]],
            features[at[:, : self.lags]],
            series.values[at[:, self.lags :]],
            first,
            None if times is None else times[first],
            self.step(times),
        )
