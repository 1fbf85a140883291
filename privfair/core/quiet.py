"""Code that is not ours, run on rows that are under a guarantee."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from privfair.core.exceptions import DataError

__all__ = ["untold"]


@contextmanager
def untold(private: bool, name: str) -> Iterator[None]:
    """Keep what a model says about the rows to ourselves, if they are ``private``.

    Parameters
    ----------
    private : bool
        Whether errors and warnings of the model may not be passed on: they often quote values.
    name : str
        What the model is called in the error that replaces its own.
    """
    if not private:
        yield
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception:
        raise DataError(
            f"{name} failed on the rows. Its own error may quote them and is not shown, because "
            "the answer is under a privacy guarantee. Whoever may see the rows can find it by "
            "letting the model predict them."
        ) from None
