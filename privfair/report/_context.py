"""What sections build from: checked inputs, counts made once, and seeds of their own."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from privfair.report._catalogue import Catalogue
from privfair.report._config import AuditConfig
from privfair.report._inputs import AuditedModel, slugs
from privfair.report._model import DatasetInfo, SectionResult

if TYPE_CHECKING:
    from privfair.core.frames import Table as FrameTable
    from privfair.report._clients import Clients
    from privfair.report._local import LocalCollection
    from privfair.report._socio import Socio
    from privfair.report._sweep import SweepDecisions

__all__ = ["AuditContext", "Crossing", "Section"]

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Section:
    """A plugin of the report.

    Parameters
    ----------
    id : str
        Anchor in the page and key in the JSON; also the name under which it is registered.
    title : str
        Key of the catalogue, or the title itself.
    build : callable
        ``build(ctx) -> SectionResult``. An exception marks the section as failed, with its
        reason, and leaves the others alone.
    requires : tuple of str
        Among "labels", "scores", "features", "privacy", "groups"; a section whose needs are not
        met appears as not applicable, with the reason.
    order : int
        Place in the report: 100 is the first section after the summary.
    last : bool
        Built after all others (the summary needs their findings); its place is by ``order``.
    when : callable or None
        ``when(ctx) -> bool``: a section that answers False is left out, unless the configuration
        names it.
    """

    id: str
    title: str
    build: Callable[[AuditContext], SectionResult]
    requires: tuple[str, ...] = ()
    order: int = 1000
    last: bool = False
    when: Callable[[AuditContext], bool] | None = None


@dataclass(frozen=True, eq=False)
class Crossing:
    """One or more attributes crossed: the groups that occur, and the group of each row.

    Attributes
    ----------
    attributes : tuple of str
    labels : tuple of tuple of str
        ``labels[k]`` holds one value per attribute.
    codes : ndarray of int
        Group of each row; -1 for rows of suppressed groups.
    absent : int
        Number of combinations that no row has.
    suppressed : tuple of tuple of str
        Labels of the groups that are not shown.
    """

    attributes: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    codes: Ints
    absent: int = 0
    suppressed: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> list[str]:
        """The groups as text."""
        return [" × ".join(label) for label in self.labels]

    @property
    def name(self) -> str:
        """The attributes as text."""
        return " × ".join(self.attributes)

    def counts(self, *masks: NDArray[np.bool_]) -> Ints:
        """Return rows per group and value of each mask, shape (n_groups, 2, 2, ...)."""
        code, inside = self.codes, self.codes >= 0
        for mask in masks:
            code = 2 * code + mask
        shape = (len(self.labels), *(2 for _ in masks))
        flat = np.bincount(code[inside], minlength=int(np.prod(shape)))
        return flat.reshape(shape).astype(np.int64)


@dataclass(eq=False)
class AuditContext:
    """Inputs and shared results of one audit: what a section builds from.

    Parameters
    ----------
    models : list of AuditedModel
        The subject first.
    reference : str
        Identifier of the model that changes are measured against.
    labels : ndarray of bool or None
        True where the outcome is positive.
    groups : dict of str to ndarray
        Clean group of each row, by attribute.
    levels : dict of str to list of str
        The groups of each attribute, in order.
    features : privfair.core.Table or None
        Features of the audited rows.
    config : AuditConfig
        The settings.
    dataset : DatasetInfo
        What was audited.
    seed : int
        Seed of the audit; :meth:`seed_for` derives others from it.
    ledger : Ledger or None
        Ledger of the audited rows.
    text : Catalogue
        Texts of the report's language.
    release : dict
        How the audited rows reach the report.
    results : list of SectionResult
        Sections built so far.
    environment : dict
        Versions and platform.
    attacks : list of (AuditedModel, AttackResult)
        Attacks on privacy that were run.
    sweep : SweepDecisions or None
        What models at several epsilons decide about the audited rows.
    collection : LocalCollection or None
        Sums of locally randomised reports.
    clients : Clients or None
        The client of each row.
    socio : Socio or None
        Status and effort of each row.
    released : dict
        Estimates from released tables, by model and attributes; empty for a raw report. When it
        is not, labels, groups and decisions are sealed and raise on use.

    Notes
    -----
    Read estimates through :func:`privfair.report.estimates`, which serves raw reports and
    reports under differential privacy alike.
    """

    models: list[AuditedModel]
    reference: str
    labels: NDArray[np.bool_] | None
    groups: dict[str, NDArray[Any]]
    levels: dict[str, list[str]]
    features: FrameTable | None
    config: AuditConfig
    dataset: DatasetInfo
    seed: int
    ledger: Any
    text: Catalogue
    release: dict[str, Any] = field(default_factory=dict)
    results: list[SectionResult] = field(default_factory=list)
    environment: dict[str, Any] = field(default_factory=dict)
    attacks: list[tuple[AuditedModel, Any]] = field(default_factory=list)
    sweep: SweepDecisions | None = None
    collection: LocalCollection | None = None
    clients: Clients | None = None
    socio: Socio | None = None
    released: dict[tuple[str, tuple[str, ...]], Any] = field(default_factory=dict)
    _crossings: dict[tuple[str, ...], Crossing] = field(default_factory=dict)
    _cache: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.attribute_ids = slugs(self.groups, "attribute_")
        self.n = len(next(iter(self.groups.values())))

    @property
    def private(self) -> bool:
        """Whether only released tables may be read."""
        return bool(self.released)

    def sizes(self, crossing: Crossing) -> list[int]:
        """Return the rows of each group: counted, or as released."""
        if not self.private:
            return [int(n) for n in crossing.counts()]
        found = self.released[(self.subject.id, crossing.attributes)]["selection_rate"]
        return [max(0, int(n)) for n in found.by_group["n_group"]]

    @property
    def subject(self) -> AuditedModel:
        """The first model."""
        return self.models[0]

    def finding_id(self, base: str, model: AuditedModel) -> str:
        """Return a finding's identifier: plain for the subject, ``@model`` for others."""
        return base if model is self.subject else f"{base}@{model.id}"

    def seed_for(self, *parts: Any) -> int:
        """Return a seed that depends on the audit's seed and on what it is for."""
        text = repr((self.seed, *map(str, parts))).encode()
        return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")

    def crossing(self, *attributes: str) -> Crossing:
        """Return the groups that these attributes make together; only those that occur.

        Under ``min_cell`` the small groups, and those that would reveal them, are left out:
        they are named in ``suppressed``, and their rows have the code -1.
        """
        if attributes not in self._crossings:
            self._crossings[attributes] = self._shown(self._cross(attributes))
        return self._crossings[attributes]

    def _shown(self, crossing: Crossing) -> Crossing:
        if self.config.min_cell is None:
            return crossing
        hidden = self.cached("suppressed", self._plan)[crossing.attributes]
        if not hidden:
            return crossing
        place = np.full(len(crossing.labels), -1)
        kept = [k for k in range(len(crossing.labels)) if k not in hidden]
        place[kept] = np.arange(len(kept))
        return Crossing(
            crossing.attributes,
            tuple(crossing.labels[k] for k in kept),
            place[crossing.codes],
            crossing.absent,
            tuple(crossing.labels[k] for k in sorted(hidden)),
        )

    def _plan(self) -> dict[tuple[str, ...], set[int]]:
        from privfair.report._suppress import plan

        names = list(self.groups)
        wanted: list[tuple[str, ...]] = [(name,) for name in names]
        for depth in range(2, min(self.config.intersections, len(names)) + 1):
            wanted += combinations(names, depth)
        codes = {attributes: self._cross(attributes).codes for attributes in wanted}
        masks = [] if self.labels is None else [self.labels]
        limit = self.config.min_cell or 0
        decisions = [m.decisions for m in self.models]
        if self.sweep is not None:
            decisions += [d for runs in self.sweep.decisions.values() for d in runs]
        return plan(codes, masks, decisions, limit)

    def note_of_suppressed(self, crossing: Crossing) -> tuple[str, ...]:
        """Return the note below a table that leaves groups out; empty if it does not."""
        if not crossing.suppressed:
            return ()
        names = ", ".join(" × ".join(label) for label in crossing.suppressed)
        return (
            f"Not shown, because a count is below {self.config.min_cell} or would reveal one that "
            f"is: {names}.",
        )

    def small(self, count: int) -> bool:
        """Whether a count may not be shown."""
        return self.config.min_cell is not None and 0 < count < self.config.min_cell

    def _cross(self, attributes: tuple[str, ...]) -> Crossing:
        code = np.zeros(self.n, dtype=np.int64)
        outside = np.zeros(self.n, dtype=bool)
        for name in attributes:
            where = {level: k for k, level in enumerate(self.levels[name])}
            place = np.array([where.get(v, -1) for v in self.groups[name].tolist()])
            outside |= place < 0
            code = code * len(where) + np.maximum(place, 0)
        if self.config.dp_report is not None:
            # Which combinations occur is private: all are groups.
            labels = tuple(product(*(self.levels[name] for name in attributes)))
            return Crossing(attributes, labels, np.where(outside, -1, code))
        sizes = [len(self.levels[name]) for name in attributes]
        present, codes = np.unique(code, return_inverse=True)
        found = []
        for value in present.tolist():
            parts = []
            for size, name in zip(reversed(sizes), reversed(attributes), strict=True):
                value, at = divmod(value, size)
                parts.append(self.levels[name][at])
            found.append(tuple(reversed(parts)))
        absent = int(np.prod(sizes)) - len(found)
        return Crossing(attributes, tuple(found), codes.astype(np.int64), absent)

    def singles(self) -> Iterator[Crossing]:
        """Yield each attribute alone."""
        for name in self.groups:
            yield self.crossing(name)

    def crossings(self) -> Iterator[Crossing]:
        """Yield crossings of two attributes, then of three, as far as configured."""
        names = list(self.groups)
        for depth in range(2, min(self.config.intersections, len(names)) + 1):
            for chosen in combinations(names, depth):
                yield self.crossing(*chosen)

    def crossing_id(self, crossing: Crossing) -> str:
        """Return the identifier of a crossing, ``sex`` or ``sex_x_race``."""
        return "_x_".join(self.attribute_ids[name] for name in crossing.attributes)

    def cached(self, key: Any, make: Callable[[], Any]) -> Any:
        """Return a shared result, made on first use."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def has(self, need: str) -> bool:
        """Whether the audit has what a section requires."""
        return {
            "labels": self.labels is not None,
            "scores": any(m.scores is not None for m in self.models),
            "features": self.features is not None,
            "privacy": any(m.privacy is not None for m in self.models),
            "groups": bool(self.groups),
        }[need]
