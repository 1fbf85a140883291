"""How the post-processor reads rows, makes its rule and measures it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import column_or_1d

from privfair.core import _validation as check
from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    LengthMismatchError,
    PrivacyError,
    SensitiveFeatureError,
)
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.core.quiet import untold
from privfair.fairness._contingency import ContingencyRelease
from privfair.fairness._release import release_contingency
from privfair.fairness.aglfop._bounds import FairnessBound, check_bounds
from privfair.fairness.aglfop._inputs import checked_cost
from privfair.fairness.aglfop._labels import counted, drawn_in, middles, noisy_rows
from privfair.fairness.aglfop._measures import context_index, influence
from privfair.fairness.aglfop._rows import as_rows, client_weights
from privfair.fairness.aglfop._rule import FairRule, rule_told
from privfair.fairness.aglfop._rule_program import ACCESS
from privfair.fairness.aglfop._scores import (
    ScoreBins,
    client_codes,
    client_list,
    label_codes,
    number_of_bins,
    response_method,
    responses,
)
from privfair.fairness.metrics._inputs import Groups, check_rows, read_groups, read_weights

__all__ = ["Plan", "checked", "learn", "released"]

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

_NO_BOUND_LEFT = 1e-6  # bits: what a margin leaves below this is held at zero by equalities
_LABELS = ("shrunk", "observed", "scores")
_UNSEEN = ("error", "pooled")


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that ``fit`` needs, checked; nothing has been spent."""

    estimator: Any
    bins: ScoreBins
    groups: Groups
    clients: tuple[Any, ...]
    codes: tuple[Ints, Ints, Ints, Ints]  # z, s, y, r
    weights: Array | None
    soft: Array | None  # probabilities of the labels by the estimator, where they are used
    bounds: tuple[FairnessBound, ...]
    client_weight: Array | None
    positive: int


def checked(
    model: Any, X: Any, y: Any, sensitive_features: Any, client: Any, sample_weight: Any
) -> Plan:
    """Check parameters, then rows; fit ``estimator`` if asked to."""
    _check_parameters(model, sample_weight)
    own = FairnessBound(
        model.criterion, model.eps_global, model.eps_local, model.eps_client,
        model.gap_global, model.gap_local,
    )  # fmt: skip
    bounds = check_bounds((own, *check_bounds(model.extra_bounds)))
    if y is None:
        raise LabelError(
            f"{type(model).__name__} requires y to be passed, but the target y is None: what is "
            "accurate is told by labels."
        )
    X, y = as_rows(X), as_rows(y)
    if getattr(y, "ndim", 1) == 2:
        y = column_or_1d(y, warn=True)
    n = check_rows(
        X=X, y=y, sensitive_features=sensitive_features, client=client,
        sample_weight=sample_weight,
    )  # fmt: skip
    groups = read_groups(sensitive_features, groups=model.groups)
    if (groups.codes < 0).any():
        raise SensitiveFeatureError(
            "sensitive_features has groups that are not among the declared groups. Declare every "
            "group that could occur."
        )
    if model.privacy is not None and client is not None and model.clients is None:
        raise InvalidParameterError(
            "clients is None, but under privacy= the clients must be public knowledge. Pass "
            "clients=[...], every client that could occur."
        )
    clients = client_list(client, model.clients, n)
    s = client_codes(client, clients, n)
    if (s < 0).any():
        raise DataError("client has clients that are not among the declared clients.")
    bounds = tuple(_placed(bound, clients) for bound in bounds)
    weights = read_weights(sample_weight, n)
    n_cells = len(groups.labels) * len(clients)
    # Where labels of single cells enter, by the cost or a bound, or noise does, cells are few.
    smooth = (
        model.labels != "observed"
        and model.privacy is None
        and all(bound.empty or bound.criterion == "demographic_parity" for bound in bounds)
    )
    estimator, bins, r, soft = _scored(model, X, y, sample_weight, n_cells, smooth=smooth)
    labels = label_codes(y, bins.classes, "y")
    if checked_cost(model.cost, bins.classes.size).shape[1] != bins.classes.size:
        raise LengthMismatchError("cost must have one column for each class of the estimator.")
    return Plan(
        estimator, bins, groups, clients, (groups.codes, s, labels, r), weights, soft, bounds,
        client_weights(model.client_weight, clients), _positive(model.pos_label, bins.classes),
    )  # fmt: skip


def _check_parameters(model: Any, sample_weight: Any) -> None:
    if not hasattr(model.estimator, "fit") or not hasattr(model.estimator, "predict"):
        raise InvalidTypeError(
            f"estimator must be a classifier, got {type(model.estimator).__name__}."
        )
    check.one_of(ACCESS, access=model.access)
    check.one_of(_UNSEEN, unseen_client=model.unseen_client)
    check.boolean(prefit=model.prefit)
    check.non_negative(margin=model.margin)
    if check.one_of(_LABELS, labels=model.labels) == "scores":
        if not hasattr(model.estimator, "predict_proba"):
            raise InvalidParameterError(
                "labels='scores' takes probabilities for labels, and estimator has no "
                "predict_proba. Use labels='observed'."
            )
        if model.privacy is not None:
            raise PrivacyError(
                "labels='scores' under privacy= is refused: a row would be spread over cells by "
                "its exact score, which no count covers. Use labels='shrunk', which reads bins."
            )
    if model.privacy is None:
        return
    if not isinstance(model.privacy, Budget):
        raise InvalidTypeError(
            f"privacy must be a Budget, got {type(model.privacy).__name__}. Write "
            "privacy=Budget(epsilon=1.0)."
        )
    if model.groups is None:
        raise InvalidParameterError(
            "groups is None, but under privacy= the groups must be public knowledge. Pass "
            "groups=[...], every group that could occur."
        )
    if not model.prefit:
        raise PrivacyError(
            "prefit=False under privacy= is refused: the estimator would be trained on the rows "
            "without privacy. Train it privately, or on other rows, and pass prefit=True."
        )
    if sample_weight is not None:
        raise PrivacyError(
            "sample_weight under privacy= is refused: one row's weight has no public bound here, "
            "so that no noise would cover it. Leave the weights out."
        )


def _scored(
    model: Any, X: Any, y: Any, sample_weight: Any, n_cells: int, *, smooth: bool
) -> tuple[Any, ScoreBins, Ints, Array | None]:
    method = response_method(model.estimator, model.bins)
    soft = None
    private = model.privacy is not None
    # Under privacy no row's own score may be used, but through its bin.
    scored = model.labels != "observed" and not private
    scored = scored and hasattr(model.estimator, "predict_proba")

    def planned(output: Any, classes: Any) -> ScoreBins:
        bins = model.bins
        if isinstance(bins, str) and bins == "auto":
            crossed = n_cells * (classes.size if classes.size > 2 else 1)
            bins = number_of_bins(len(output), crossed, smooth=smooth)
            bins += bins % 2 if private else 0  # public edges: one at 1/2, where decisions turn
        return ScoreBins.plan(bins, method, output, classes, public=private)

    if model.prefit:
        classes = getattr(model.estimator, "classes_", None)
        if classes is None:
            raise InvalidParameterError(
                "estimator is not fitted (it has no classes_). Fit it first, or pass "
                "prefit=False. Where the post-processor is cloned, wrap it: "
                "sklearn.frozen.FrozenEstimator."
            )
        with untold(private, "estimator"):
            output = responses(model.estimator, X, method)
        bins = planned(output, np.asarray(classes))
        if scored:
            soft = _probabilities(output if method == "predict_proba" else
                                  model.estimator.predict_proba(X))  # fmt: skip
        return model.estimator, bins, bins.codes(output), soft
    from sklearn.model_selection import cross_val_predict

    base = clone(model.estimator)
    given = {} if sample_weight is None else {"sample_weight": sample_weight}
    base.fit(X, y, **given)

    def across_folds(name: str) -> Any:
        return cross_val_predict(
            clone(model.estimator), X, y, cv=check.positive_int(cv=model.cv), method=name,
            params=given,
        )  # fmt: skip

    output = across_folds(method)
    if scored:
        soft = _probabilities(output if method == "predict_proba" else
                              across_folds("predict_proba"))  # fmt: skip
    bins = planned(output, np.asarray(base.classes_))
    return base, bins, bins.codes(output), soft


def _probabilities(output: Any) -> Array:
    values = np.asarray(output, dtype=float)
    if not np.isfinite(values).all() or (values < 0).any():
        raise DataError("the estimator's probabilities must be finite and non-negative.")
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _placed(bound: FairnessBound, clients: tuple[Any, ...]) -> FairnessBound:
    """Return the bound with its clients as positions."""
    if not bound.eps_client:
        return bound
    unknown = [c for c in bound.eps_client if c not in clients]
    if unknown:
        raise InvalidParameterError(
            f"eps_client names {len(unknown)} clients that do not occur or are not declared."
        )
    return replace(bound, eps_client={clients.index(c): e for c, e in bound.eps_client.items()})


def _positive(pos_label: Any, classes: NDArray[Any]) -> int:
    if pos_label is None:
        return int(classes.size) - 1
    places = np.flatnonzero(np.asarray(classes == pos_label))
    if places.size == 0:
        raise LabelError("pos_label is not among the classes of the estimator.")
    return int(places[0])


# --- the rule -----------------------------------------------------------------------------------


def learn(model: Any, plan: Plan) -> None:
    """Make the table, then the rule, and store both."""
    shape = (len(plan.groups.labels), len(plan.clients), plan.bins.classes.size, plan.bins.size)
    release = None
    noise = 0.0
    informed: float | None = None
    told: Array | None
    if model.privacy is None:
        p, told, precision = counted(plan.codes, plan.weights, plan.soft, shape, model.labels)
        n = plan.codes[0].size
        if plan.weights is not None:  # rows of unequal weight tell as much as so many equal ones
            informed = float(plan.weights.sum() ** 2 / (plan.weights**2).sum())
    else:
        release = released(plan.codes, shape, model.privacy, model.ledger,
                            model.noise_random_state, "AGLFOP post-processing: table")  # fmt: skip
        p, n, noise = release.probabilities(), release.n, release.noise.variance
        told, precision = None, 0.0
        if model.labels == "shrunk":
            mean = middles(plan.bins, shape)
            told, precision = drawn_in(p, noisy_rows(p, n, noise), mean)
    given: dict[str, Any] = {
        "access": model.access,
        "cost": model.cost,
        "client_weight": plan.client_weight,
        "positive": plan.positive,
    }
    result = rule_told(p, told, plan.bounds, **given)
    taken: dict[str, float] = {}
    if model.margin > 0:
        tighter, taken = _tightened(p, result, plan, float(model.margin), informed or n, noise)
        result = rule_told(p, told, tighter, **given)
    _store(model, plan, result, p)
    model.margin_ = taken
    model.release_ = release
    model._weighted = plan.weights is not None
    model._table = p
    model.label_precision_ = precision
    model.n_fit_ = n
    model.private_ = release is not None
    if release is None:
        model.privacy_ = PrivacyGuarantee.none("non_private")
    else:
        note = "the estimator was trained on other rows, or privately: its cost is not in here"
        model.privacy_ = replace(release.privacy, assumptions=(*release.privacy.assumptions, note))


def released(
    codes: tuple[Ints, ...],
    shape: tuple[int, ...],
    privacy: Any,
    ledger: Any,
    noise_random_state: int | None,
    purpose: str,
) -> ContingencyRelease:
    """Release the table of rows, charged before its noise is drawn."""
    names = ("z", "client", "y", "r")
    return release_contingency(
        dict(zip(names, codes, strict=True)),
        {name: list(range(size)) for name, size in zip(names, shape, strict=True)},
        privacy=privacy,
        ledger=ledger,
        purpose=purpose,
        noise_random_state=noise_random_state,
    )


def _tightened(
    p: Array, result: FairRule, plan: Plan, margin: float, n: float, noise: float
) -> tuple[tuple[FairnessBound, ...], dict[str, float]]:
    """Return the bounds less ``margin`` standard errors of the informations of ``result``."""
    n_s, n_y = p.shape[1], p.shape[2]
    taken: dict[str, float] = {}

    def less(prefix: str, name: str, bound: FairnessBound, scope: Any, eps: Any) -> Any:
        if eps is None:
            return None
        index = context_index(n_s, n_y, bound.criterion, scope, plan.positive)
        pull = influence(p, result.rule, *index)
        variance = float((p * pull**2).sum()) / n + noise * float((pull**2).sum()) / n**2
        taken[prefix + name] = margin * math.sqrt(variance)
        left = eps - taken[prefix + name]
        return left if left > _NO_BOUND_LEFT else 0.0

    out = []
    for bound in plan.bounds:
        prefix = bound.criterion + ":" if len(plan.bounds) > 1 else ""
        out.append(
            replace(
                bound,
                eps_global=less(prefix, "global", bound, "global", bound.eps_global),
                eps_local=less(prefix, "local", bound, "local", bound.eps_local),
                eps_client={
                    c: less(prefix, f"client:{c}", bound, c, e)
                    for c, e in (bound.eps_client or {}).items()
                },
            )
        )
    return tuple(out), taken


def _store(model: Any, plan: Plan, result: FairRule, p: Array) -> None:
    model.estimator_ = plan.estimator
    model._score_bins = plan.bins
    model._bounds = plan.bounds
    model._positive = plan.positive
    model.classes_ = plan.bins.classes
    model.groups_ = plan.groups.labels
    model.clients_ = plan.clients
    model.result_ = result
    model.rule_ = result.rule
    model.pooled_rule_ = np.einsum("s,zsrk->zrk", p.sum(axis=(0, 2, 3)), result.rule)
    model.accuracy_ = result.accuracy
    model.accuracy_bound_ = 1.0 - result.lower
    prefix = model.criterion + ":" if len(plan.bounds) > 1 else ""
    model.price_global_ = result.prices.get(prefix + "global", 0.0)
    model.price_local_ = result.prices.get(prefix + "local", 0.0)
    model.prices_ = result.prices
    model.price_degenerate_ = result.price_degenerate
    model.status_ = result.status
    model.achieved_global_ = result.achieved[prefix + "global"]
    model.achieved_local_ = result.achieved[prefix + "local"]
    model.achieved_ = result.achieved
    model.gaps_ = result.gaps
    if hasattr(plan.estimator, "n_features_in_"):
        model.n_features_in_ = plan.estimator.n_features_in_
    if hasattr(plan.estimator, "feature_names_in_"):
        model.feature_names_in_ = plan.estimator.feature_names_in_
