"""Socio-economic parity in a form that a private trainer can take: one record, one bounded row."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privfair.core import _validation as check
from privfair.core.exceptions import (
    AccountingAssumptionError,
    InvalidParameterError,
    InvalidTypeError,
)
from privfair.core.frames import as_table
from privfair.fairness.sep._effort import EffortRule
from privfair.fairness.sep._prices import Prices
from privfair.fairness.sep._rules import Rule
from privfair.fairness.sep._sets import REFERENCES, memberships, read_sets

__all__ = ["SEPPenalty"]

Floats = NDArray[np.float64]
_COUNT_WEIGHT = 0.5
"""What a record adds to the size of a set, beside at most 1 to its sum of decisions.

Sizes do not change during a run and are averaged over all of it; sums of decisions do change.
"""

_STEP = {"soft": 1.0, "hard_surrogate": 3.0}


class SEPPenalty:
    r"""Socio-economic parity as a penalty for private training, with prices that follow the gaps.

    For every declared group the gap :math:`E[h \mid R] - E[h \mid G_j]` is to be at most
    ``tolerance``. At each step the trainer releases, with noise and from the batch of the
    gradient, sums of h and sizes of R and of all :math:`G_j`; from these follow noisy gaps
    :math:`v_j`, and prices :math:`\lambda_j \leftarrow \max(0, \lambda_j + \eta_t \pi_{G_j} (v_j -
    \text{tolerance}))` by dual ascent, with steps that shrink and are smaller for smaller sets,
    whose gaps are noisier. The weight of a record's score is :math:`\sum_j \tilde\lambda_j (1_R /
    \pi_R - 1_{G_j} / \pi_{G_j})` with the prices and shares of earlier steps: it depends on that
    record and on released sums only.

    Parameters
    ----------
    groups : sequence or mapping
        All protected groups, public: a list of labels of one column, or a mapping of columns to
        labels, which are crossed. Records of other groups are in the reference set only.
    ses : SESRule
        Who is underprivileged, by constant thresholds; ``&`` and ``|`` are fine.
    effort : EffortRule or None, default=None
        Who shows effort (CSEP), by a constant threshold; None is SEP.
    column : str, default="sex"
        Name of the protected column where ``groups`` is a list.
    tolerance : float, default=0.01
        Largest gap aimed at, at least 0.
    one_sided : bool, default=True
        Whether only gaps to the disadvantage of target sets are priced.
    constrain : {"soft", "hard_surrogate"}, default="soft"
        Whether h is the score, or the decision at 0.5. Gaps and prices are then those of
        decisions, which have no slope: scores are pushed by that of a sigmoid in their place.
    temperature : float, default=0.2
        Of that sigmoid, above 0: how far from 0.5 scores are still pushed.
    lift_only : bool, default=False
        Drop the reference's part of the weights, so that nobody's score is pushed down.
    no_leveling_down : bool, default=True
        Whether rates of target sets are priced that fall below what they were before prices
        began, so that a gap is not closed by selecting fewer people of everybody. It costs no
        privacy. A trainer that does not say how many steps there are has no such start.
    warm_up : float, default=0.2
        Share of the steps, in (0, 1), without any price, for ``no_leveling_down``: its second half
        gives the rates of the model without the constraint.
    reference : {"conditional", "overall"}, default="conditional"
    step : float or None, default=None
        Dual step at the start, above 0: :math:`\eta_t = step / \sqrt{1 + t / 50}`. None is 1 for
        scores and 3 for decisions, of which only those near 0.5 are pushed.
    rho : float, default=1.0
        Weight of the current gap beside the price, at least 0.
    max_price : float, default=5.0
        Largest price of one unit of gap, above 0.
    ema : float, default=0.9
        Decay in [0, 1) of the moving average over released sums of decisions.
    strength : float, default=1.0
        Factor of the penalty in the loss, at least 0.

    Attributes
    ----------
    decomposable : bool
        True.
    n_features : int
        ``2 + 2 n_groups``.
    feature_bound : float
        ``sqrt(2 (1 + 1/4))``: a record is in the reference set and in at most one target set.
    names : list of str
        Names of the groups, labels of several columns joined by commas.
    gaps : ndarray of shape (n_groups,)
        Gaps as last released; NaN where a set is too small to be told from noise.
    base_rates : ndarray of shape (n_groups,)
        Rates of target sets before prices began, as released; NaN without the guard.
    prices : ndarray of shape (n_groups,)
        Both follow ``absorb``. A trainer works on a copy of its own, so that those of the penalty
        that was handed in stay as they are; :class:`DPSEPClassifier` shows those of the run.

    Raises
    ------
    AccountingAssumptionError
        A rule by which one record decides about others: a quantile of the data, a composite, a
        rank within types.

    Notes
    -----
    *Privacy.* ``docs/proofs/socio-economic-parity.md``. Give the columns of the rules and the
    protected columns together as ``sensitive_features``; membership is a function of one record
    and of the public constants here. The guard against levelling down compares released sums
    with earlier released sums. ``gaps``, ``prices`` and ``base_rates`` are made of these and of
    public constants: showing them costs nothing.

    *Training on.* Every run begins anew. One of ``partial_fit`` starts without prices too, and
    the rates that it keeps are those of the model as it found it, trained on without prices.

    *Fairness.* Decisions: prices follow their gaps, pushes the slope of a sigmoid (Cotter, Jiang
    and Sridharan 2019). A run prices the gaps of its iterates; of their average, which a trainer
    may return, gaps of scores are near those, gaps of decisions less so.

    *Cost.* O(n_groups) for each record.

    References
    ----------
    Roy, Rizou, Papadopoulos, Ntoutsi 2025, arXiv 2503.23056. Abadi et al. 2016, arXiv 1607.00133.
    Cotter, Jiang, Sridharan 2019, arXiv 1804.06500.

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.dp import DPClassifier
    >>> from privfair.fairness import SEPPenalty, SESRule
    >>> rng = np.random.default_rng(0)
    >>> wealth, sex = rng.integers(0, 2, 4000), rng.choice(["f", "m"], 4000)
    >>> X = np.column_stack([rng.normal(wealth), rng.normal(size=4000)])
    >>> y = X.sum(axis=1) + rng.logistic(size=4000) > 0.5
    >>> penalty = SEPPenalty(["f", "m"], SESRule("wealth", "<", 1), tolerance=0.0)
    >>> clf = DPClassifier(epsilon=3.0, schema="as_is", fairness_penalty=penalty)
    >>> clf = clf.fit(X, y, sensitive_features={"sex": sex, "wealth": wealth})
    >>> p = clf.predict_proba(X)[:, 1]
    >>> bool(p.mean() - p[(sex == "f") & (wealth < 1)].mean() < 0.06), clf.privacy_.epsilon <= 3
    (True, True)
    """

    decomposable = True
    requires: frozenset[str] = frozenset()

    def __init__(
        self,
        groups: Any,
        ses: Rule,
        effort: EffortRule | None = None,
        *,
        column: str = "sex",
        tolerance: float = 0.01,
        one_sided: bool = True,
        constrain: str = "soft",
        temperature: float = 0.2,
        lift_only: bool = False,
        no_leveling_down: bool = True,
        warm_up: float = 0.2,
        reference: str = "conditional",
        step: float | None = None,
        rho: float = 1.0,
        max_price: float = 5.0,
        ema: float = 0.9,
        strength: float = 1.0,
    ) -> None:
        _check_public(ses, effort)
        self.ses, self.effort = ses, effort
        self.groups = _declared(groups, column)
        self.tolerance = check.non_negative(tolerance=tolerance)
        self.one_sided = check.boolean(one_sided=one_sided)
        self.constrain = check.one_of(("soft", "hard_surrogate"), constrain=constrain)
        self.temperature = check.positive(temperature=temperature)
        self.lift_only = check.boolean(lift_only=lift_only)
        self.no_leveling_down = check.boolean(no_leveling_down=no_leveling_down)
        self.warm_up = check.real(warm_up=warm_up)
        if not 0.0 < self.warm_up < 1.0:
            raise InvalidParameterError(f"warm_up must be in (0, 1), got {self.warm_up}.")
        self.reference = check.one_of(REFERENCES, reference=reference)
        self.step = _STEP[self.constrain] if step is None else check.positive(step=step)
        self.rho = check.non_negative(rho=rho)
        self.max_price = check.positive(max_price=max_price)
        self.ema = check.real(ema=ema)
        if not 0.0 <= self.ema < 1.0:
            raise InvalidParameterError(f"ema must be in [0, 1), got {self.ema}.")
        self.strength = check.non_negative(strength=strength)
        n = math.prod(len(labels) for labels in self.groups.values())
        self._inside, self._target = memberships(n, self.effort is not None, self.reference)
        self.n_features = 2 + 2 * n
        self.feature_bound = math.sqrt(2.0 * (1.0 + _COUNT_WEIGHT**2))
        self._state = Prices(
            n, count_weight=_COUNT_WEIGHT, tolerance=self.tolerance, one_sided=self.one_sided,
            lift_only=self.lift_only, guard=self.no_leveling_down, step=self.step, rho=self.rho,
            max_price=self.max_price, ema=self.ema,
        )  # fmt: skip

    # -- the contract of a bounded penalty -------------------------------------------------
    def encode_sensitive(self, sensitive_features: Any) -> NDArray[np.int64]:
        """Return the number of each record's cell (group, status, effort), shape (n_rows,).

        Parameters
        ----------
        sensitive_features : data frame or mapping
            The protected columns and those that the rules read, by name.
        """
        _check_public(self.ses, self.effort)  # attributes may have been changed since
        table = as_table(sensitive_features, name="sensitive_features", prefix="s")
        if not table.has_names:
            raise InvalidTypeError(
                "sensitive_features must name its columns: the protected ones "
                f"{list(self.groups)} and those of the rules. Pass a data frame or a mapping."
            )
        protected = {name: table.column(name) for name in self.groups}
        status = {name: table.column(name) for name in self.ses.columns}
        shown = None
        if self.effort is not None:
            shown = {self.effort.column: table.column(self.effort.column)}
        sets = read_sets(
            protected, self.ses, effort=self.effort, ses_features=status, effort_features=shown,
            reference=self.reference, groups=self.groups, rows=np.zeros(table.n_rows),
        )  # fmt: skip
        return sets.cells

    def observe_noise(self, std: float) -> None:
        """Learn the standard deviation of the noise in what ``absorb`` will get; public."""
        self._state.noise = check.non_negative(std=std)

    def observe_steps(self, steps: int) -> None:
        """Learn how many releases there will be, a public constant: the start has no prices."""
        if self.no_leveling_down:
            steps = check.positive_int(steps=steps)
            # However long the start is to be: of two releases or more the last one has prices.
            self._state.until = min(max(1, round(self.warm_up * steps)), steps - 1)

    def features(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return each record's row: h in each of its sets, then its share of their sizes.

        Parameters
        ----------
        scores : Tensor, shape (batch,)
            In [0, 1]; others are clamped.
        sensitive : Tensor, shape (batch,)
            Cells, as :meth:`encode_sensitive` numbers them.
        y, **columns
            Not used.
        """
        member = self._member(sensitive, scores)
        h = self._h_of(scores)[0]
        return torch.cat([member * h[:, None], _COUNT_WEIGHT * member], dim=1)

    def absorb(self, noisy_sum_over_B: Tensor) -> None:
        """Take in a released sum over the batch constant, shape (n_features,)."""
        self._state.absorb(noisy_sum_over_B.detach().double().cpu().numpy().reshape(2, -1))

    def weights(
        self, scores: Tensor, sensitive: Tensor, *, y: Tensor | None = None, **columns: Any
    ) -> Tensor:
        """Return the weight of each score, shape (batch,); zero before the first release."""
        if self._state.push is None:
            return torch.zeros_like(scores)
        with torch.no_grad():
            push = torch.as_tensor(self._state.push, dtype=scores.dtype, device=scores.device)
            return (self._member(sensitive, scores) @ push) * self._h_of(scores)[1]

    def __call__(
        self,
        scores: Tensor,
        sensitive: Tensor,
        *,
        y: Tensor | None = None,
        sample_weight: Tensor | None = None,
        **columns: Any,
    ) -> Tensor:
        """Return the sum of a batch's gaps beyond ``tolerance``, a 0-d tensor with a gradient.

        Not for training, where :meth:`weights` stands for it.
        """
        mass = torch.ones_like(scores) if sample_weight is None else sample_weight.to(scores)
        member = self._member(sensitive, scores) * mass[:, None]
        size = member.sum(dim=0)
        h = scores.clamp(0.0, 1.0)
        if self.constrain != "soft":
            h = torch.sigmoid((h - 0.5) / self.temperature)
        rate = (member * h[:, None]).sum(dim=0) / size.clamp(min=1e-12)
        gap = torch.where(size[1:] > 0, rate[0] - rate[1:], torch.zeros_like(rate[1:]))
        worse = gap if self.one_sided else gap.abs()
        return (worse - self.tolerance).clamp(min=0.0).sum()

    @property
    def names(self) -> list[str]:
        """Names of the groups, in the order of ``gaps`` and ``prices``."""
        return [", ".join(map(str, labels)) for labels in itertools.product(*self.groups.values())]

    @property
    def prices(self) -> Floats:
        """Price of one unit of each gap; below zero where the reverse gap is priced."""
        up, down = self._state.up, self._state.down
        return up.copy() if self.one_sided else up - down

    @property
    def gaps(self) -> Floats:
        """Gaps as last released; NaN where a set is too small to be told from noise."""
        return self._state.gaps

    @property
    def base_rates(self) -> Floats:
        """Rates of target sets before prices began, as released; NaN without the guard."""
        return self._state.base_rates

    # -- parts -----------------------------------------------------------------------------
    def _member(self, sensitive: Tensor, like: Tensor) -> Tensor:
        """Return which sets each record is in, shape (batch, 1 + n_groups), as 0 and 1."""
        table = torch.as_tensor(
            np.column_stack([self._inside, self._target]), dtype=like.dtype, device=like.device
        )
        return table[sensitive.long().clamp(0, len(table) - 1)]

    def _h_of(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return h in [0, 1], and the slope at which a score is pushed, in [0, 1]."""
        p = scores.clamp(0.0, 1.0)
        if self.constrain == "soft":
            return p, torch.ones_like(p)
        near = torch.sigmoid((p - 0.5) / self.temperature)
        return (p > 0.5).to(p), 4 * near * (1 - near)


def _declared(groups: Any, column: str) -> dict[str, list[Any]]:
    given = dict(groups) if isinstance(groups, Mapping) else {column: groups}
    for labels in given.values():
        if isinstance(labels, str) or not isinstance(labels, Iterable):
            raise InvalidTypeError(
                "groups must list the labels of every protected column, such as ['f', 'm']; got "
                f"{type(labels).__name__}."
            )
    found = {name: list(labels) for name, labels in given.items()}
    if not found or not all(found.values()):
        raise InvalidParameterError(
            "groups must list the labels of every protected column, as public knowledge."
        )
    if any(len({str(v) for v in labels}) < len(labels) for labels in found.values()):
        raise InvalidParameterError("groups must list every label once.")
    return found


def _check_public(ses: Any, effort: Any) -> None:
    if not isinstance(ses, Rule):
        raise InvalidTypeError(
            f"ses must be a rule with constant thresholds, got {type(ses).__name__}. Write "
            "SESRule(column, '<', threshold)."
        )
    if effort is not None and not isinstance(effort, EffortRule):
        raise InvalidTypeError(f"effort must be an EffortRule, got {type(effort).__name__}.")
    for rule in (ses, effort):
        if rule is not None and not rule.public:
            raise AccountingAssumptionError(
                f"the rule '{rule}' is learnt from the data: one record could move others in and "
                "out of a set, and its influence on the sums would have no bound. Use a constant "
                "threshold; one from the data can be paid for with "
                "privfair.mechanisms.DPQuantile."
            )
