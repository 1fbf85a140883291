"""One audit: inputs are checked, the release is entered into the ledger, sections are built."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    PrivfairError,
)
from privfair.report._clean import clean_label, clean_text
from privfair.report._config import AuditConfig
from privfair.report._context import AuditContext, Section
from privfair.report._environment import creation_date
from privfair.report._given import read_context
from privfair.report._model import AuditResult, DatasetInfo, ModelInfo, SectionResult

__all__ = ["audit", "available_sections", "dataset_info"]

_LOG = logging.getLogger("privfair.report")
_NEEDS = {
    "labels": "no labels were given",
    "scores": "no model has scores, only decisions",
    "features": "no features were given",
    "privacy": "no model has a privacy guarantee",
    "groups": "no sensitive features were given",
}


def audit(
    estimator_or_predictions: Any,
    X: Any,
    y: Any,
    *,
    sensitive_features: Any,
    client: Any = None,
    ses: Any = None,
    effort: Any = None,
    ses_features: Any = None,
    effort_features: Any = None,
    reference: Any = None,
    attacks: Any = None,
    sweep: Any = None,
    collection: Any = None,
    ledger: Any = None,
    config: AuditConfig | None = None,
    random_state: int = 0,
) -> AuditResult:
    """Audit a model, or decisions as given: group metrics with intervals, and what is certified.

    Parameters
    ----------
    estimator_or_predictions : estimator, array-like, Predictions, or mapping of name to these
        What is audited. Several models in a mapping are compared on the same rows; the first is
        the subject of the report.
    X : array-like, data frame or None
        Features of the audited rows; None is enough for given decisions.
    y : array-like, shape (n_rows,), or None
        Labels. Without them only selection rates can be compared.
    sensitive_features : array-like or data frame, shape (n_rows,) or (n_rows, n_attributes)
        One or more attributes, matched by position; a different row index is an error.
    client : array-like, shape (n_rows,), or None
        Which client (hospital, branch, site) each row belongs to. Disparities are then split
        into what the decision does in every client and what the clients' mixture does.
    ses : SESRule, str, array-like of bool, mapping of name to these, or None
        Who is underprivileged (:mod:`privfair.fairness.sep`): a rule on columns, the name of a
        preset, or True and False for each row. A section of its own then shows socio-economic
        parity.
    effort : EffortRule, str, array-like of bool, or None
        Who shows effort, for the conditional form of socio-economic parity and effort curves.
    ses_features, effort_features : data frame or None
        The columns that these rules read; None takes ``X``.
    reference : str, estimator, array-like, Predictions or None
        The model against which changes are measured: the name of one in the mapping, or a model
        that is then added to the report. None takes the first.
    attacks : AttackResult, sequence of these, mapping of model name to these, or None
        Attacks on privacy that were run (:mod:`privfair.auditing`); they stand beside the
        certificate in a section of their own. Without a mapping they are about the first model.
    sweep : PrivacySweep or None
        The model at several epsilons and without privacy
        (:func:`privfair.report.privacy_sweep`); a section of its own shows whom privacy costs
        what.
    collection : LocalCollection or None
        Sums of locally randomised reports (:mod:`privfair.ldp`); a section of its own shows
        frequencies with intervals and what the randomisers withstand.
    ledger : Ledger or None
        The ledger of the audited rows. A raw report writes a ``NonPrivate`` entry into it before
        the rows are read; a ledger with a cap refuses that. None uses an in-memory ledger.
    config : AuditConfig or None
        Settings; None takes the defaults.
    random_state : int, default=0
        Seeds bootstrap and permutations, never privacy noise.

    Returns
    -------
    AuditResult

    Raises
    ------
    LabelError, SensitiveFeatureError, LengthMismatchError, ProbabilityRangeError
        The data cannot be audited as they are; the message says what to do.
    PrivacyError
        The audited rows trained a private model, and raw numbers about them were not allowed.

    Notes
    -----
    O(rows x attributes) to tabulate; the bootstrap works on tables, so that its cost does not
    depend on the number of rows.

    Privacy: the report is computed from the audited rows as they are. It is not differentially
    private, says so, and is entered into the ledger as such. With ``config.dp_report`` it is made
    of tables that are released under that epsilon, with discrete Laplace noise, one per model and
    crossing; unit record, relation zero-out (the number of rows is public). The certificates it
    shows cover the rows that trained the models.

    References
    ----------
    Hardt, Price, Srebro 2016, arXiv 1610.02413. Mitchell et al. 2019, arXiv 1810.03993.

    Examples
    --------
    >>> from privfair.report import AuditConfig, audit
    >>> y = [0, 1, 1, 0, 1, 0, 1, 0] * 10
    >>> decisions = [0, 1, 1, 0, 0, 0, 1, 1] * 10
    >>> sex = ["f", "f", "f", "f", "m", "m", "m", "m"] * 10
    >>> result = audit(decisions, None, y, sensitive_features={"sex": sex},
    ...                config=AuditConfig(n_resamples=200))
    >>> result.findings["fairness.dpd.sex"].value.estimate
    0.0
    """
    started = time.perf_counter()
    created = creation_date()
    config = AuditConfig() if config is None else config
    if not isinstance(config, AuditConfig):
        raise InvalidTypeError(f"config must be an AuditConfig, got {type(config).__name__}.")
    if isinstance(random_state, bool) or not isinstance(random_state, int) or random_state < 0:
        raise InvalidTypeError(
            f"random_state must be a non-negative int, got {random_state!r}: a report states the "
            "seed with which it can be made again."
        )
    sections = _sections(config)
    ctx = read_context(
        estimator_or_predictions, X, y, sensitive_features, client,
        (ses, effort, ses_features, effort_features), reference,
        (attacks, sweep, collection), ledger,
        config, random_state,
    )  # fmt: skip
    built = _run(sections, ctx)
    result = _assemble(ctx, built, created)
    if "SOURCE_DATE_EPOCH" not in os.environ:
        _LOG.info("audit took %.1f s", time.perf_counter() - started)
    return result


def dataset_info(bunch: Any, *, rows: str = "unknown", split: str = "") -> DatasetInfo:
    """Return what a report says about a loaded data set.

    Parameters
    ----------
    bunch : DatasetBunch
        From a loader of :mod:`privfair.datasets`.
    rows : {"held_out", "training", "unknown"}
        Whose rows are audited.
    split : str
        Which part of the data set.

    Returns
    -------
    DatasetInfo

    Examples
    --------
    >>> from privfair.datasets import make_adult_like
    >>> dataset_info(make_adult_like(100, random_state=0), rows="held_out").rows
    'held_out'
    """
    privacy = bunch.get("privacy")
    if privacy is not None and hasattr(privacy, "to_dict"):
        privacy = privacy.to_dict()
    names = list(bunch.get("target_names") or [])
    return DatasetInfo(
        name=clean_label(_title(bunch)),
        version=clean_label(bunch.get("version") or ""),
        split=clean_label(split) if split else "",
        sha256={clean_label(k): clean_label(v) for k, v in (bunch.get("sha256") or {}).items()},
        verified=bunch.get("verified"),
        embedded=bool(bunch.get("embedded", False)),
        source=clean_text(bunch.get("source") or ""),
        license=clean_text(bunch.get("license") or ""),
        caveats=tuple(clean_text(c) for c in bunch.get("caveats") or ()),
        rows=rows,
        positive=clean_label(f"{bunch.get('target_name')} = {names[1]}") if len(names) > 1 else "",
        certificate=dict(privacy) if isinstance(privacy, Mapping) else None,
    )


def _title(bunch: Any) -> str:
    name = str(bunch.get("name") or "unnamed data")
    return {"adult": "Adult", "compas": "COMPAS", "german": "German credit"}.get(name, name)


# -- sections ---------------------------------------------------------------------------------
def available_sections() -> list[Section]:
    """Return all sections: those of this package, and those that others registered.

    Examples
    --------
    >>> available_sections()[0].id
    'summary'
    """
    from privfair.core import registry
    from privfair.report import _sections  # noqa: F401 - registers the standard ones

    found = [registry.load("report_sections", n) for n in registry.available("report_sections")]
    return sorted(found, key=lambda s: (s.order, s.id))


def _sections(config: AuditConfig) -> list[Section]:
    found = available_sections()
    if config.sections is None:
        return found
    known = [s.id for s in found]
    unknown = [name for name in config.sections if name not in known]
    if unknown or not config.sections:
        raise InvalidParameterError(
            f"sections {unknown} are unknown; there are {', '.join(known)}."
        )
    return [s for s in found if s.id in config.sections]


def _run(sections: list[Section], ctx: AuditContext) -> list[SectionResult]:
    built: dict[str, SectionResult] = {}
    named = ctx.config.sections or ()
    sections = [s for s in sections if s.when is None or s.id in named or s.when(ctx)]
    for section in sorted(sections, key=lambda s: s.last):
        built[section.id] = _distinct(_build_one(section, ctx), list(built.values()))
        ctx.results = list(built.values())
    return [built[s.id] for s in sections]


def _distinct(result: SectionResult, before: list[SectionResult]) -> SectionResult:
    """Give a finding whose identifier is taken a number: nothing that was found gets lost."""
    taken = {f.id for s in before for f in s.findings}
    findings = []
    for finding in result.findings:
        name, again = finding.id, 2
        while name in taken:
            name, again = f"{finding.id}_{again}", again + 1
        taken.add(name)
        findings.append(finding if name == finding.id else replace(finding, id=name))
    return replace(result, findings=tuple(findings))


def _build_one(section: Section, ctx: AuditContext) -> SectionResult:
    title = ctx.text.get(section.title, section.title)
    missing = [_NEEDS[need] for need in section.requires if not ctx.has(need)]
    if missing:
        return SectionResult(
            section.id, title, "not_applicable", f"{'; '.join(missing)}.".capitalize()
        )
    try:
        result = section.build(ctx)
    except Exception as error:
        _LOG.info("section %s failed: %s", section.id, type(error).__name__)
        _LOG.debug("traceback", exc_info=error)
        return SectionResult(section.id, title, "failed", _reason(error))
    if not isinstance(result, SectionResult) or result.id != section.id:
        reason = "The plugin returned no result of its own name. This is a defect of the plugin."
        return SectionResult(section.id, title, "failed", reason)
    return result


def _reason(error: Exception) -> str:
    """Say why a section failed; a foreign message may quote data, so it is left out."""
    if isinstance(error, PrivfairError):
        return clean_text(error)
    if isinstance(error, ImportError):
        return f"A package is missing: {clean_label(error.name or 'unknown')}."
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else "unknown"
    return f"Unexpected {type(error).__name__} ({where}). The other sections are not affected."


# -- result -----------------------------------------------------------------------------------
def _notice(ctx: AuditContext) -> str:
    parts = []
    if ctx.dataset.embedded:
        parts.append(ctx.text("notice.embedded", name=ctx.dataset.name))
    if any(getattr(m.privacy, "seeded", False) for m in ctx.models):
        parts.append(ctx.text("notice.seeded"))
    return " ".join(parts)


def _model_info(ctx: AuditContext) -> tuple[ModelInfo, ...]:
    from privfair.report._sections.privacy import effective_guarantee

    return tuple(
        ModelInfo(
            m.id, m.name, m.kind, m.class_name, m.parameters, m.scores is not None,
            None if m.privacy is None else effective_guarantee(ctx, m).to_dict(),
        )
        for m in ctx.models
    )  # fmt: skip


def _assemble(ctx: AuditContext, sections: list[SectionResult], created: str) -> AuditResult:
    counts: dict[str, Any] = {
        "n_rows": ctx.n,
        "n_positive": None if ctx.labels is None or ctx.private else int(ctx.labels.sum()),
        "groups": {
            c.name: dict(zip(c.names, ctx.sizes(c), strict=True))
            | {label[0]: None for label in c.suppressed}
            for c in ctx.singles()
        },
    }
    if ctx.clients is not None and not ctx.private and ctx.config.min_cell is None:
        sizes = np.bincount(ctx.clients.codes, minlength=len(ctx.clients.labels))
        counts["clients"] = dict(zip(ctx.clients.labels, sizes.tolist(), strict=True))
    title = clean_text(ctx.config.title or "") or f"Audit of {ctx.dataset.name}"
    return AuditResult(
        title=title,
        created=created,
        dataset=ctx.dataset,
        models=_model_info(ctx),
        sections=tuple(sections),
        notice=_notice(ctx),
        language=ctx.config.language,
        counts=counts,
        release=ctx.release,
        config={**ctx.config.to_dict(), "random_state": ctx.seed},
        environment=ctx.environment,
    )
