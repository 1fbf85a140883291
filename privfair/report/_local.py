"""Local collections in a report: what was estimated, and what the randomisers withstand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from privfair.core import _validation as check
from privfair.core.exceptions import DataError, InvalidParameterError, InvalidTypeError
from privfair.report._clean import clean_label, clean_text

if TYPE_CHECKING:
    from privfair.core.estimate import Estimate
    from privfair.ldp import Aggregator, FrequencyEstimate, FrequencyProtocol
    from privfair.report._model import AuditResult

__all__ = ["LocalCollection", "LocalColumn", "attack_view", "check_collection", "ldp_report",
           "read_collection"]  # fmt: skip

_SMALL = 6  # values of a domain whose reports are all listed


@dataclass(frozen=True, eq=False)
class LocalCollection:
    """Sums of locally randomised reports, column by column, for a report.

    Parameters
    ----------
    aggregators : mapping of str to Aggregator
        By the name of the column.
    strategy : {"smp", "spl"}, default="smp"
        Whether each user reports on one column, or on all of them.
    edges : mapping of str to sequence of float
        Ends of the bins of binned numeric columns: their mean is bounded.
    confidence : float, default=0.95
    simultaneous : bool, default=False
        Whether the intervals of a column hold together.
    postprocess : str or None, default=None
        As in ``Aggregator.estimate``.
    trials : int, default=20000
        Reports that the attack draws for each of two values; 0 leaves the attack out.
    fraction : float, default=0.01
        Share of fake users in the poisoning bound.
    shuffle_delta : float or None, default=None
        If reports pass a trusted shuffler: the delta at which the central epsilon is stated.

    Examples
    --------
    >>> from privfair.ldp import GRR, Aggregator, randomize
    >>> sums = Aggregator(GRR(3, 1.0), ["a", "b", "c"])
    >>> sums = sums.partial_fit(randomize(sums.protocol, [0, 1, 2] * 50, noise_random_state=0))
    >>> LocalCollection({"answer": sums}, trials=0).epsilon
    1.0
    """

    aggregators: Mapping[str, Aggregator]
    strategy: str = "smp"
    edges: Mapping[str, Sequence[float]] = field(default_factory=dict)
    confidence: float = 0.95
    simultaneous: bool = False
    postprocess: str | None = None
    trials: int = 20_000
    fraction: float = 0.01
    shuffle_delta: float | None = None

    def __post_init__(self) -> None:
        from privfair.ldp import Aggregator

        if not isinstance(self.aggregators, Mapping) or not self.aggregators:
            raise InvalidTypeError(
                "aggregators must be a mapping of column names to Aggregator, with at least one."
            )
        for name, one in self.aggregators.items():
            if not isinstance(one, Aggregator):
                raise InvalidTypeError(
                    f"column {name!r} must have an Aggregator, got {type(one).__name__}."
                )
        check.one_of(("smp", "spl"), strategy=self.strategy)
        check.confidence(confidence=self.confidence)
        if not 0.0 < self.fraction < 1.0:
            raise InvalidParameterError(f"fraction must be in (0, 1), got {self.fraction!r}.")
        if self.trials and self.trials < 200:
            raise InvalidParameterError(f"trials must be 0 or at least 200, got {self.trials!r}.")
        if stray := set(self.edges) - set(self.aggregators):
            raise InvalidParameterError(
                f"edges names columns that are not there: {sorted(stray)}."
            )

    @property
    def epsilon(self) -> float:
        """Local privacy of all that one user sends."""
        each = [float(a.protocol.epsilon) for a in self.aggregators.values()]
        return max(each) if self.strategy == "smp" else math.fsum(each)

    @property
    def n_reports(self) -> int:
        """Number of reports, all columns together."""
        return sum(a.n_reports_ for a in self.aggregators.values())


@dataclass(frozen=True, eq=False)
class LocalColumn:
    """What a section shows of one column: made once, before anything is rendered."""

    name: str
    protocol: FrequencyProtocol
    estimate: FrequencyEstimate | None
    mean: Estimate | None
    attack: dict[str, Any]


def check_collection(given: Any) -> None:
    """Refuse what is no collection."""
    if given is not None and not isinstance(given, LocalCollection):
        raise InvalidTypeError(
            f"collection must be a LocalCollection, got {type(given).__name__}."
        )


def read_collection(given: LocalCollection) -> list[LocalColumn]:
    """Return what a section shows of each column."""
    from privfair.ldp import binned_mean

    out = []
    for name, sums in given.aggregators.items():
        found = mean = None
        if sums.n_reports_:
            found = sums.estimate(given.postprocess, given.confidence, given.simultaneous)
            if name in given.edges:
                joint = sums.estimate(None, given.confidence, True)
                mean = binned_mean(joint, given.edges[name])
        view = attack_view(
            sums.protocol, trials=given.trials, fraction=given.fraction,
            users=sums.n_reports_ if given.shuffle_delta is not None else None,
            delta=given.shuffle_delta,
            attributes=len(given.aggregators) if given.strategy == "smp" else 1,
        )  # fmt: skip
        out.append(LocalColumn(clean_label(name), sums.protocol, found, mean, view))
    return out


def attack_view(
    protocol: FrequencyProtocol,
    *,
    trials: int = 20_000,
    confidence: float = 1 - 1e-6,
    fraction: float = 0.01,
    users: int | None = None,
    delta: float | None = None,
    attributes: int = 1,
) -> dict[str, Any]:
    """Return what is computed and measured about a local randomiser, as JSON data.

    Parameters
    ----------
    protocol : FrequencyProtocol
    trials : int, default=20000
        Reports that the attack draws for each of two values, as a client draws them; 0 for none.
    confidence : float, default=1 - 1e-6
        Probability with which the lower bound holds.
    fraction : float, default=0.01
        Share of fake users in the poisoning bound.
    users : int or None
        Reports that pass a trusted shuffler; None for no shuffler.
    delta : float or None
        Of the shuffled reports.
    attributes : int, default=1
        Number of columns of which each user reports a random one: fake users all take this one.

    Returns
    -------
    dict
        Epsilon by listing all reports of a domain of at most six values, a lower bound from the
        attack, how often the best guess from one report is right, how far fake users raise a
        frequency, the central epsilon behind the shuffler, and whether anything contradicts the
        declared epsilon.

    Notes
    -----
    Privacy: reads no report of a user. O(trials k).

    References
    ----------
    Arcolezi, Gambs 2024, arXiv 2309.01597. Cheu, Smith, Ullman 2021, arXiv 1909.09630.

    Examples
    --------
    >>> from privfair.ldp import GRR
    >>> view = attack_view(GRR(4, 1.0), trials=0)
    >>> view["exact_epsilon"] <= 1.0, round(view["attack_success"], 3), view["contradicted"]
    (True, 0.475, False)
    """
    from privfair.ldp import shuffle_epsilon
    from privfair.ldp.audit import attack_success, black_box, exact_epsilon, max_manipulation

    small = _small(protocol)
    exact = exact_epsilon(small)
    lower = event = shuffled = None
    if trials:
        attack = black_box(protocol, n_trials=trials, alpha=1.0 - confidence)
        lower, event = attack.lower_epsilon, attack.details["event"]
    if users and delta is not None:
        shuffled = shuffle_epsilon(protocol, users, delta).to_dict()
    return {
        "protocol": protocol.name,
        "k": protocol.k,
        "declared_epsilon": protocol.epsilon,
        "exact_epsilon": exact,
        "exact_k": small.k,
        "lower_epsilon": lower,
        "event": event,
        "trials": trials,
        "confidence": confidence,
        "attack_success": attack_success(protocol),
        "guess_without_report": 1.0 / protocol.k,
        "fake_users": fraction,
        "poisoning_bound": float(max_manipulation(protocol, fraction, attributes=attributes)),
        "shuffled": shuffled,
        "contradicted": exact > protocol.epsilon
        or (lower is not None and lower > protocol.epsilon),
    }


def _small(protocol: FrequencyProtocol) -> FrequencyProtocol:
    """Return the protocol on a domain that is small enough to list every report."""
    # A given size of subsets need not exist there; every size has the same ratio.
    own = {"omega": None} if hasattr(protocol, "omega") else {}
    return replace(protocol, k=min(protocol.k, _SMALL), **own)


def ldp_report(
    collection: LocalCollection, *, title: str = "", source: str = "", embedded: bool = False
) -> AuditResult:
    """Return a report about a local collection alone: estimates, intervals, attack view.

    Parameters
    ----------
    collection : LocalCollection
    title : str
        By default one that names the columns.
    source : str
        Where the reports are from, in words.
    embedded : bool, default=False
        Whether the users were rows of an embedded data set.

    Returns
    -------
    AuditResult
        With one section, ``ldp``; renders as any other report does.

    Raises
    ------
    DataError
        No column has a report.

    Notes
    -----
    To put the same section into an audit of decisions, pass ``collection=`` to
    :func:`privfair.report.audit`. Privacy: post-processing of reports, at no cost; the attack
    view reads no report.

    Examples
    --------
    >>> from privfair.ldp import GRR, Aggregator, randomize
    >>> sums = Aggregator(GRR(3, 1.0), ["a", "b", "c"])
    >>> sums = sums.partial_fit(randomize(sums.protocol, [0, 1, 2] * 50, noise_random_state=0))
    >>> result = ldp_report(LocalCollection({"answer": sums}, trials=0))
    >>> result.section("ldp").table("ldp-answer").rows[0][0]
    'a'
    """
    from privfair.accounting import guarantee
    from privfair.accounting.events import LocalDP
    from privfair.report._catalogue import catalogue
    from privfair.report._clean import unique_labels
    from privfair.report._environment import creation_date, environment
    from privfair.report._model import AuditResult, DatasetInfo, ModelInfo
    from privfair.report._sections.ldp import section

    created = creation_date()
    columns = read_collection(collection)
    if all(c.estimate is None for c in columns):
        raise DataError("no report has arrived yet: there is nothing to report on.")
    text = catalogue("en")
    names = ", ".join(c.name for c in columns)
    labels = unique_labels([c.name for c in columns])
    models = tuple(
        ModelInfo(
            f"m{at + 1}", f"{c.protocol.name} ({labels[c.name]})", "randomiser",
            type(c.protocol).__name__,
            {"k": str(c.protocol.k), "epsilon": f"{c.protocol.epsilon:g}"},
            privacy=guarantee(c.protocol.event(), delta=0.0).to_dict(),
        )
        for at, c in enumerate(columns)
    )  # fmt: skip
    notice = text("notice.embedded", name=source or "the data") if embedded else ""
    return AuditResult(
        title=clean_text(title) or f"Local collection of {names}",
        created=created,
        dataset=DatasetInfo(
            name=clean_label(source or "local reports"), embedded=embedded, rows="unknown"
        ),
        models=models,
        sections=(section(columns, collection, text),),
        notice=notice,
        counts={"n_rows": collection.n_reports, "n_positive": None, "groups": {}},
        release={
            "kind": "local",
            "dataset_id": "local reports",
            "ledger": None,
            "entry": None,
            "privacy": guarantee(LocalDP(collection.epsilon), delta=0.0).to_dict(),
            "min_cell": None,
            "voids": [],
        },
        config={"confidence": collection.confidence},
        environment=environment(),
    )
