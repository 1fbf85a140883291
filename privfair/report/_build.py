"""One audit: inputs are checked, the release is entered into the ledger, sections are built."""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from privfair.core.exceptions import (
    DataError,
    InvalidParameterError,
    InvalidTypeError,
    PrivacyError,
    PrivfairError,
)
from privfair.core.frames import as_table, as_vector, check_aligned
from privfair.report._catalogue import catalogue
from privfair.report._clean import clean_label, clean_text
from privfair.report._config import AuditConfig
from privfair.report._context import AuditContext, Section
from privfair.report._environment import creation_date, environment
from privfair.report._inputs import binary_labels, positive_class, read_groups, read_models
from privfair.report._local import check_collection
from privfair.report._model import AuditResult, DatasetInfo, ModelInfo, SectionResult
from privfair.report._private import check_private, read_public_groups, release
from privfair.report._sections.attacks import read_attacks
from privfair.report._sweep import read_sweep

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
    ctx = _context(
        estimator_or_predictions, X, y, sensitive_features, reference,
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


# -- inputs -----------------------------------------------------------------------------------
def _context(
    subject: Any,
    X: Any,
    y: Any,
    sensitive_features: Any,
    reference: Any,
    studies: tuple[Any, Any, Any],
    ledger: Any,
    config: AuditConfig,
    seed: int,
) -> AuditContext:
    text = catalogue(config.language)
    given: dict[str, Any] = {"X": X, "y": y, "sensitive_features": sensitive_features}
    n = check_aligned(**{k: v for k, v in given.items() if v is not None})
    if n == 0:
        raise DataError("there are no rows to audit; the table is empty.")
    check_private(config, sensitive_features)
    read = read_groups if config.dp_report is None else read_public_groups
    groups, levels = read(sensitive_features, config)
    raw = None if y is None else as_vector(y, name="y")
    positive: Any = 1 if config.pos_label is None else config.pos_label
    labels = None
    if raw is not None:
        positive = positive_class(raw, config.pos_label, "y")
        labels = binary_labels(raw, positive, "y")
    dataset = config.dataset or DatasetInfo()
    if config.rows is not None:
        dataset = replace(dataset, rows=config.rows)
    if not dataset.positive:
        dataset = replace(dataset, positive=clean_label(positive))
    models, chosen = read_models(subject, reference, X, raw, positive, n, given)
    attacks, sweep, collection = studies
    check_collection(collection)
    attacked = read_attacks(attacks, models, config)
    swept = read_sweep(sweep, X, positive, n, config, dataset.rows)
    voids = _training_rows(models, dataset, config)
    voids += [m.name for m, r in attacked
              if r.details.get("voids_certificate") and m.name not in voids]  # fmt: skip
    ctx = AuditContext(
        models=models,
        reference=chosen,
        labels=labels,
        groups=groups,
        levels=levels,
        features=None if X is None else as_table(X, name="X"),
        config=config,
        dataset=dataset,
        seed=seed,
        ledger=ledger,
        text=text,
        environment=environment(),
        attacks=attacked,
        sweep=swept,
        collection=collection,
    )
    if config.dp_report is not None:
        ctx.release = release(ctx, voids)
    else:
        ctx.release = _enter(ledger, dataset, config, voids)
    return ctx


def _training_rows(models: list[Any], dataset: DatasetInfo, config: AuditConfig) -> list[str]:
    """Refuse raw numbers about rows that a certificate protects; return what they would void."""
    if dataset.rows != "training":
        return []
    if config.dp_report is not None:
        _only_private(models)
        return []
    private = [
        m.name for m in models if m.privacy is not None and math.isfinite(m.privacy.epsilon)
    ]
    if private and not config.allow_raw_training_rows:
        raise PrivacyError(
            f"the audited rows trained {', '.join(private)}, whose certificate promises that "
            "nothing else about them becomes known. Raw counts in a report would break it. Audit "
            "held-out rows, or pass allow_raw_training_rows=True (on the command line "
            "--allow-raw-training-rows): then the report shows the certificate as void."
        )
    return private


def _only_private(models: list[Any]) -> None:
    """Refuse a private report about rows that a non-private model was trained on.

    One record then changes that model, and with it the decisions on all rows: no noise of the
    size of one row would cover that. The decisions of a private model are post-processing.
    """
    for model in models:
        if model.privacy is None or not math.isfinite(model.privacy.epsilon):
            raise PrivacyError(
                f"{model.name} was trained on the audited rows without privacy, so that each of "
                "its decisions depends on all of them, and a report under differential privacy "
                "would claim too much. Audit held-out rows, or private models only."
            )


def _enter(
    ledger: Any, dataset: DatasetInfo, config: AuditConfig, voids: list[str]
) -> dict[str, Any]:
    """Write the raw report into the ledger of the audited rows, before anything is computed."""
    from privfair.accounting import default_ledger
    from privfair.accounting.events import NonPrivate

    name = f"{dataset.name} {dataset.split}".strip() + " (audited rows)"
    book = default_ledger(name) if ledger is None else ledger
    with book.spend(NonPrivate(), purpose="raw audit report") as entry:
        pass
    return {
        "kind": "raw",
        "dataset_id": str(getattr(book, "dataset_id", name)),
        "ledger": None if getattr(book, "path", None) is None else Path(book.path).name,
        "entry": int(entry.entry_id),
        "privacy": None,
        "min_cell": config.min_cell,
        "voids": voids,
    }


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
