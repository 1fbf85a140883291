"""Canaries: records of nobody that are planted, each by a secret coin, to be looked for later."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privfair.auditing._membership import loss_scores
from privfair.auditing._one_run import one_run_audit
from privfair.core import _validation as check
from privfair.core.attack import AttackResult
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LengthMismatchError,
    SchemaError,
)
from privfair.core.frames import Table, as_table, as_vector, is_dataframe
from privfair.core.randomness import check_random_state, secret_stream
from privfair.core.schema import Numeric, Schema

__all__ = ["CanarySet", "audit_estimator", "draw_inclusion", "insert_canaries"]

KINDS = ("mislabeled", "rare")


def draw_inclusion(m: int, *, noise_random_state: int | None = None) -> NDArray[np.bool_]:
    """Toss one fair coin per canary, from the secret stream.

    Parameters
    ----------
    m : int
        Number of canaries, at least 1.
    noise_random_state : int or None, default=None
        None draws from the operating system's entropy: whoever could foresee the coins could
        pass any audit. An int makes them repeatable, for tests.

    Returns
    -------
    ndarray of bool, shape (m,)

    References
    ----------
    Steinke, Nasr, Jagielski 2023, arXiv 2305.08846.

    Examples
    --------
    >>> draw_inclusion(1000).dtype, 350 < draw_inclusion(1000).sum() < 650
    (dtype('bool'), np.True_)
    """
    m = check.positive_int(m=m)
    stream = secret_stream(noise_random_state)
    bits = np.frombuffer(stream.bytes(-(-m // 8)), dtype=np.uint8)
    return np.unpackbits(bits)[:m].astype(bool)


@dataclass(frozen=True, eq=False)
class CanarySet:
    """Training rows with canaries behind them, and the coins that say which were included.

    Attributes
    ----------
    X : data frame or ndarray
        The rows given, then all canaries, in the type that was given.
    y : ndarray, shape (n_rows + m,)
        Labels of both.
    canaries : data frame or ndarray
        The canaries alone.
    labels : ndarray, shape (m,)
        Their labels.
    included : ndarray of bool, shape (m,)
        Secret until the model is released.
    kind : str
        How they were made.
    seeded : bool
        Whether the coins can be tossed again.
    """

    X: Any
    y: NDArray[Any]
    canaries: Any
    labels: NDArray[Any]
    included: NDArray[np.bool_] = field(repr=False)
    kind: str = "mislabeled"
    seeded: bool = False

    @property
    def m(self) -> int:
        """The number of canaries."""
        return len(self.included)

    @property
    def sample_weight(self) -> NDArray[np.float64]:
        """Weight 0 for excluded canaries, 1 for everything else.

        A record of weight 0 contributes nothing, so that inclusion is a ``zero_out`` pair.
        """
        ones = np.ones(len(self.y) - self.m)
        return np.concatenate([ones, self.included.astype(float)])

    @property
    def rows(self) -> NDArray[np.intp]:
        """Positions of the rows without the excluded canaries, for an ``add_remove`` pair."""
        return np.flatnonzero(self.sample_weight)

    def training_rows(self) -> tuple[Any, NDArray[Any]]:
        """Return X and y without the excluded canaries."""
        return _take(self.X, self.rows), self.y[self.rows]


def insert_canaries(
    X: Any,
    y: Any,
    n_canaries: int,
    *,
    kind: str = "mislabeled",
    schema: Schema | None = None,
    source: tuple[Any, Any] | None = None,
    classes: Sequence[Any] | None = None,
    random_state: Any = None,
    noise_random_state: int | None = None,
) -> CanarySet:
    """Append canaries to training rows, each included by a secret fair coin.

    Parameters
    ----------
    X : data frame or array, shape (n_rows, n_columns)
        Training rows; only their columns and number are used.
    y : array-like, shape (n_rows,)
        Labels.
    n_canaries : int
        At least 1.
    kind : {"mislabeled", "rare"}, default="mislabeled"
        ``"mislabeled"``: rows of ``source`` with a wrong label. ``"rare"``: combinations that
        hardly occur, every number at one end of its range, every category drawn uniformly, a
        label drawn uniformly.
    schema : Schema or None
        Public ranges and categories of the columns, for ``"rare"``.
    source : tuple of (X, y), or None
        Rows that are not to be protected (public, or made up), with their labels: the canaries
        are made from them. Needed for ``"mislabeled"``, and for ``"rare"`` without a schema.
    classes : sequence or None
        All labels, public; None takes those of ``source``.
    random_state : int, Generator or None
        Which rows and corners become canaries.
    noise_random_state : int or None, default=None
        Makes the coins repeatable, for tests.

    Returns
    -------
    CanarySet

    Raises
    ------
    InvalidParameterError, DataError, SchemaError
        Not enough is known to make canaries of this kind.

    Notes
    -----
    O(n_rows + n_canaries). Privacy: canaries are made from ``source`` and ``schema`` alone, never
    from the training rows. Were they copies of training rows, scores of canaries would be
    unaccounted statistics of those rows. The number of rows changes by ``n_canaries``, known in
    advance, and never by the coins: under ``zero_out`` excluded canaries stay, with weight 0.

    References
    ----------
    Jagielski, Ullman, Oprea 2020, arXiv 2006.07709. Carlini et al. 2019, arXiv 1802.08232.

    Examples
    --------
    >>> import numpy as np
    >>> X, y = np.zeros((5, 2)), np.array([0, 1, 0, 1, 0])
    >>> source = np.ones((4, 2)), np.array([1, 1, 0, 0])
    >>> s = insert_canaries(X, y, 3, source=source)
    >>> s.X.shape, len(s.y), s.m, s.sample_weight[:5].tolist()
    ((8, 2), 8, 3, [1.0, 1.0, 1.0, 1.0, 1.0])
    """
    check.one_of(KINDS, kind=kind)
    m = check.positive_int(n_canaries=n_canaries)
    rng = check_random_state(random_state)
    table, target = as_table(X, name="X"), as_vector(y, name="y")
    if len(target) != table.n_rows:
        raise LengthMismatchError(f"X has {table.n_rows} rows and y has {len(target)}.")
    if kind == "mislabeled" or schema is None:
        if source is None:
            raise InvalidParameterError(
                f"kind={kind!r} needs source=(X, y): rows that nobody's privacy depends on, from "
                "which canaries are made. Training rows would not do: their scores would be "
                "unaccounted statistics. With a schema, kind='rare' needs no rows."
            )
        given = as_table(source[0], name="source X"), as_vector(source[1], name="source y")
        if given[0].columns != table.columns:
            raise DataError("the columns of source must be those of X, in the same order.")
        if len(given[1]) != given[0].n_rows or not len(given[1]):
            raise LengthMismatchError("source must be (X, y) with as many labels as rows, >= 1.")
    else:
        given = None
    known = _classes(classes, given, kind)
    if kind == "mislabeled":
        columns, labels = _mislabeled(given, known, m, rng)  # type: ignore[arg-type]
    else:
        columns = _rare(table, given, schema, m, rng)
        labels = known[rng.integers(len(known), size=m)]
    labels = np.asarray(labels, dtype=np.result_type(target.dtype, labels.dtype))
    canaries = _like(X, columns)
    return CanarySet(
        _append(X, canaries), np.concatenate([target, labels]), canaries, labels,
        draw_inclusion(m, noise_random_state=noise_random_state), kind,
        noise_random_state is not None,
    )  # fmt: skip


def _classes(classes: Any, given: Any, kind: str) -> NDArray[Any]:
    if classes is None and given is None:
        raise InvalidParameterError(
            "classes must list all labels where no source is given; reading them from the "
            "training rows would be a release."
        )
    known = np.unique(given[1] if classes is None else as_vector(classes, name="classes"))
    if kind == "mislabeled" and len(known) < 2:
        raise InvalidParameterError(
            "a mislabeled canary needs two labels at least; source has one. Pass classes=[...]."
        )
    return known


def _mislabeled(
    given: tuple[Table, NDArray[Any]], classes: NDArray[Any], m: int, rng: np.random.Generator
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    table, target = given
    if m > table.n_rows:
        raise DataError(
            f"{m} canaries need as many rows of source, which has {table.n_rows}: two canaries "
            "that are the same row cannot be told apart."
        )
    rows = rng.permutation(table.n_rows)[:m]
    at = np.searchsorted(classes, target[rows])
    if (classes[np.minimum(at, len(classes) - 1)] != target[rows]).any():
        raise DataError("source has a label that is not in classes.")
    moved = (at + rng.integers(1, len(classes), size=m)) % len(classes)
    return {name: table.column(name)[rows] for name in table.columns}, classes[moved]


def _rare(
    table: Table,
    given: tuple[Table, NDArray[Any]] | None,
    schema: Schema | None,
    m: int,
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    if schema is not None:
        absent = [name for name in table.columns if name not in schema]
        if absent:
            raise SchemaError(f"the schema does not describe the columns {absent}.")
    out = {}
    for name in table.columns:
        if schema is not None:
            column = schema[name]
            values: Any = (
                np.array([column.low, column.high])
                if isinstance(column, Numeric)
                else _objects(column.values)
            )
        else:
            found = given[0].column(name)  # type: ignore[index]
            numeric = found.dtype.kind in "fiu"
            values = np.array([found.min(), found.max()]) if numeric else np.unique(found)
        kind = table.column(name).dtype.kind
        if kind in "iu" and np.all(np.asarray(values, dtype=float) % 1 == 0):
            values = np.asarray(values).astype(np.int64)
        out[name] = values[rng.integers(len(values), size=m)]
    return out


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    out = np.empty(len(values), dtype=object)
    out[:] = values
    return out


# -- tables -----------------------------------------------------------------------------------
def _like(X: Any, columns: dict[str, NDArray[Any]]) -> Any:
    """Return columns as a table of the type of X."""
    import pandas as pd

    if not is_dataframe(X):
        return np.column_stack(list(columns.values()))
    if isinstance(X, pd.DataFrame):
        frame = pd.DataFrame(columns)
        frame.columns = X.columns
        return frame
    import narwhals as nw

    view = nw.from_native(X, eager_only=True)
    made = zip(view.columns, columns.values(), strict=True)
    series = {name: values.tolist() for name, values in made}
    return nw.from_dict(series, schema=view.schema, backend=view.implementation).to_native()


def _append(X: Any, canaries: Any) -> Any:
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return pd.concat([X, canaries], ignore_index=True)
    if is_dataframe(X):
        import narwhals as nw

        pair = [nw.from_native(part, eager_only=True) for part in (X, canaries)]
        return nw.concat(pair).to_native()
    return np.concatenate([np.asarray(X), canaries])


def _take(X: Any, rows: NDArray[np.intp]) -> Any:
    import pandas as pd

    if isinstance(X, pd.DataFrame):
        return X.iloc[rows].reset_index(drop=True)
    return X[rows] if not is_dataframe(X) else X[rows.tolist()]


# -- the audit of an estimator ----------------------------------------------------------------
def audit_estimator(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    n_canaries: int = 500,
    kind: str = "mislabeled",
    schema: Schema | None = None,
    source: tuple[Any, Any] | None = None,
    classes: Sequence[Any] | None = None,
    k_plus: int | None = None,
    k_minus: int | None = None,
    beta: float = 0.05,
    test: str = "epsilon",
    reference: Any = None,
    random_state: Any = None,
    noise_random_state: int | None = None,
) -> AttackResult:
    """Train a private estimator once, with canaries among its rows, and attack it.

    Parameters
    ----------
    estimator : estimator
        Unfitted, private, with ``neighboring`` "zero_out" (``fit`` takes ``sample_weight``) or
        "add_remove"; it is cloned. Its own ledger is charged, once, for the training rows.
    X, y : data frame or array, array-like
        Training rows and labels.
    n_canaries, kind, schema, source, classes, random_state
        As in :func:`insert_canaries`; ``schema=None`` takes the estimator's, where it has one.
    k_plus, k_minus : int or None
        Number of canaries guessed as included and as excluded; None takes a tenth of them.
    beta : float, default=0.05
        In (0, 1): probability with which the lower bound may be wrong.
    test : {"epsilon", "curve", "gdp"}, default="epsilon"
        What is put to the test: see :func:`one_run_audit`.
    reference : fitted estimator or None
        A public model whose loss on each canary is subtracted, which tells canaries that are
        hard to fit from those that were left out.
    noise_random_state : int or None, default=None
        Makes the coins repeatable, for tests; the estimator has a seed of its own.

    Returns
    -------
    AttackResult
        ``model`` is the fitted estimator. Deploy that one and the audit costs no privacy; deploy
        another fit of the same rows, and both are charged.

    Raises
    ------
    InvalidParameterError
        The estimator has no ``neighboring``, or there is not enough to make canaries from.

    Notes
    -----
    One fit, and O(n_canaries) on top. Black box: only the final model's loss on each canary is
    used, which is far weaker than the attacker whom the certificate bounds. With ``schema=None``
    under ``zero_out`` the encoder still sees excluded canaries, so that only the training is
    attacked. Canaries cost accuracy; compare ``model`` with a fit without them.

    References
    ----------
    Steinke, Nasr, Jagielski 2023, arXiv 2305.08846.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.dp import DPClassifier
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(1000, 3))
    >>> y = (X[:, 0] > 0).astype(int)
    >>> source = rng.normal(size=(200, 3)), rng.integers(0, 2, 200)
    >>> model = DPClassifier(epsilon=2.0, schema="as_is", epochs=2)
    >>> audit_estimator(model, X, y, n_canaries=100, source=source).verdict
    'no violation found'
    """
    from sklearn.base import clone

    relation = getattr(estimator, "neighboring", None)
    check.one_of(("zero_out", "add_remove"), neighboring=relation)
    own = getattr(estimator, "schema", None)
    canaries = insert_canaries(
        X, y, n_canaries, kind=kind, source=source, classes=classes, random_state=random_state,
        schema=schema if schema is not None or not isinstance(own, Schema) else own,
        noise_random_state=noise_random_state,
    )  # fmt: skip
    fitted = clone(estimator)
    if relation == "zero_out":
        fitted.fit(canaries.X, canaries.y, sample_weight=canaries.sample_weight)
    else:
        fitted.fit(*canaries.training_rows())
    certified = getattr(fitted, "privacy_", None)
    if certified is None:
        raise InvalidTypeError(
            f"{type(estimator).__name__} has no privacy_ after fit; audit_estimator attacks "
            "certificates. Use membership_inference for models without one."
        )
    scores = loss_scores(fitted, canaries.canaries, canaries.labels)
    if reference is not None:
        scores = scores - loss_scores(reference, canaries.canaries, canaries.labels)
    tenth = max(1, canaries.m // 10)
    result = one_run_audit(
        scores, canaries.included,
        k_plus=tenth if k_plus is None else k_plus,
        k_minus=(tenth if canaries.m > 1 else 0) if k_minus is None else k_minus,
        beta=beta, test=test, certified=certified, target=type(estimator).__name__,
    )  # fmt: skip
    caveats = [
        "Black box: the final model's loss on each canary. The certificate bounds an attacker "
        "who sees every step."
    ]
    if own is None and relation == "zero_out":
        caveats.append("The encoder saw excluded canaries too: only the training was attacked.")
    if not math.isfinite(certified.epsilon):
        caveats.append("The attacked model claims no privacy.")
    return replace(
        result,
        model=fitted,
        caveats=tuple(caveats),
        details={**result.details, "canaries": canaries.kind, "seeded": canaries.seeded},
    )
