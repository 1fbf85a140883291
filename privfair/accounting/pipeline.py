"""The guarantee of a whole pipeline: every step that learnt from the data counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from privfair.core.exceptions import InvalidTypeError
from privfair.core.privacy import PrivacyGuarantee

__all__ = ["pipeline_guarantee"]


def pipeline_guarantee(pipeline: Any) -> PrivacyGuarantee:
    """Compose the guarantees of the fitted steps of a pipeline.

    Parameters
    ----------
    pipeline : estimator, Pipeline, FeatureUnion or ColumnTransformer
        Fitted. Steps inside steps are followed.

    Returns
    -------
    PrivacyGuarantee
        The ``privacy_`` of all steps, composed on the same data. A step that learnt from the
        data and has no ``privacy_`` (a ``StandardScaler``, say) voids the whole: epsilon is
        infinite and the step is named in ``unsafe``. Steps that need no fitting are free, but
        for a ``FunctionTransformer`` with a function: nobody can tell whether that treats rows
        one by one, so that it counts as one that learnt.

    Raises
    ------
    IncompatibleNeighboringError
        Steps state guarantees for different units or relations.

    Notes
    -----
    All steps are taken to see all the data (sequential composition). The events of the steps
    are accounted jointly where all steps carry events.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from privfair.accounting import PureDP, guarantee
    >>> step = SimpleNamespace(privacy_=guarantee(PureDP(0.5), delta=0.0))
    >>> pipeline_guarantee(SimpleNamespace(steps=[("a", step), ("b", step)])).epsilon
    1.0
    """
    found = list(_walk("", pipeline))
    unsafe = [name for name, privacy in found if privacy is None]
    known = [privacy for _, privacy in found if privacy is not None]
    if unsafe:
        reasons = tuple(f"step {name!r} was fitted without accounting" for name in unsafe)
        labels: dict[str, Any] = {}
        if known:
            labels = {"unit": known[0].unit, "neighboring": known[0].neighboring}
        events = tuple(event for privacy in known for event in privacy.events)
        return PrivacyGuarantee.none(*reasons, events=events, **labels)
    if not known:
        return PrivacyGuarantee(0.0, 0.0, accountant="basic", assumptions=(_NOTHING,))
    total = known[0]
    for privacy in known[1:]:
        total = total.compose(privacy)
    return total


_NOTHING = "No step learnt anything from the data."


def _walk(name: str, item: Any) -> Iterator[tuple[str, PrivacyGuarantee | None]]:
    if item is None or (isinstance(item, str) and item in ("passthrough", "drop")):
        return
    privacy = getattr(item, "privacy_", None)
    if privacy is not None:
        if not isinstance(privacy, PrivacyGuarantee):
            raise InvalidTypeError(
                f"privacy_ of step {name!r} must be a PrivacyGuarantee, got "
                f"{type(privacy).__name__}."
            )
        yield name, privacy
        return
    parts = _parts(item)
    if parts is not None:
        for part_name, part in parts:
            yield from _walk(f"{name}__{part_name}" if name else part_name, part)
    elif _learns(item):
        yield name or type(item).__name__, None


def _parts(item: Any) -> list[tuple[str, Any]] | None:
    for attribute in ("steps", "transformer_list"):
        if hasattr(item, attribute):
            return list(getattr(item, attribute))
    if hasattr(item, "transformers_"):  # of a fitted ColumnTransformer
        return [(entry[0], entry[1]) for entry in item.transformers_]
    return None


def _learns(item: Any) -> bool:
    """Whether fitting reads the data; an estimator that does not say so is taken to."""
    if type(item).__name__ == "FunctionTransformer" and item.func is not None:
        # It has nothing to fit, and its function may still read all rows at once (centring, say).
        return True
    tags = getattr(item, "__sklearn_tags__", None)
    return True if tags is None else bool(tags().requires_fit)
