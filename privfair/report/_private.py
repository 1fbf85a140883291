"""A report under differential privacy: tables are released first, then everything is made of them.

Once the tables are out, the rows are sealed: a section that reaches for them fails, and says so,
instead of showing a number that nobody paid for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from privfair.core import _validation as check
from privfair.core.exceptions import (
    BudgetExceededError,
    InvalidParameterError,
    MissingSensitiveFeatureError,
    PrivacyError,
    SensitiveFeatureError,
)
from privfair.core.frames import as_table, missing_mask
from privfair.core.privacy import Budget, PrivacyGuarantee
from privfair.report._clean import unique_labels
from privfair.report._config import AuditConfig
from privfair.report._context import AuditContext

__all__ = ["Sealed", "check_private", "read_public_groups", "release"]


_ASSUMPTIONS = (
    "each decision depends on its own row only: no model was trained on the audited rows, unless "
    "privately",
)


class Sealed:
    """Stands for rows that may no longer be read."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise PrivacyError(
            "this section reads the audited rows, and the report is made under differential "
            "privacy: only the tables that were released may be used."
        )

    def __getattr__(self, name: str) -> NoReturn:
        self._refuse()

    __array__ = __bool__ = __call__ = __getitem__ = __iter__ = __len__ = __eq__ = _refuse
    __ge__ = __le__ = __ne__ = __rmul__ = __radd__ = __sub__ = __contains__ = _refuse
    __invert__ = __and__ = __or__ = __add__ = __mul__ = __lt__ = __gt__ = __neg__ = _refuse
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "<rows sealed: the report is made under differential privacy>"


def check_private(config: AuditConfig, sensitive_features: Any) -> None:
    """Refuse settings that do not go together, before any data are touched."""
    if config.dp_report is None:
        if config.public_groups:
            raise InvalidParameterError(
                "public_groups is for reports under differential privacy; pass dp_report=epsilon "
                "(on the command line --dp-report), or leave it out."
            )
        return
    check.epsilon(dp_report=config.dp_report)
    if config.min_cell is not None:
        raise InvalidParameterError(
            "min_cell and dp_report were both given. Noise protects small cells already; hiding "
            "some by their true size would undo it. Choose one."
        )
    table = as_table(sensitive_features, name="sensitive_features", prefix="attribute")
    known = {*config.public_groups, *config.cuts}
    absent = [name for name in table.columns if name not in known]
    if absent:
        raise InvalidParameterError(
            f"the groups of {', '.join(absent)} are not declared. Under dp_report they must be "
            "public knowledge, since which groups occur is private: pass public_groups={'"
            f"{absent[0]}': [...]}} (on the command line --groups {absent[0]}=a,b,c)."
        )
    strange = [name for name in config.public_groups if name not in table.columns]
    if strange:
        raise InvalidParameterError(
            f"public_groups names {strange}, which is not among the sensitive features "
            f"{list(table.columns)}."
        )


def read_public_groups(
    sensitive_features: Any, config: AuditConfig
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Return the group of each row and the declared groups; None for a row outside them."""
    from privfair.fairness import bin_sensitive

    table = as_table(sensitive_features, name="sensitive_features", prefix="attribute")
    names = unique_labels(table.columns, 40)
    columns: dict[str, NDArray[Any]] = {}
    levels: dict[str, list[str]] = {}
    for raw in table.columns:
        values = table.column(raw)
        gone = missing_mask(values)
        if gone.any() and config.missing_group is None:
            raise MissingSensitiveFeatureError(
                f"sensitive feature {raw!r} has missing values. Pass missing_group='missing' (on "
                "the command line --missing-group) to count them as a group of their own."
            )
        if raw in config.cuts:
            cuts = [float(c) for c in config.cuts[raw]]
            values = bin_sensitive(values, cuts, name=raw, missing_group=config.missing_group)
            edges = [cuts[0] - 1, *((a + b) / 2 for a, b in zip(cuts, cuts[1:], strict=False))]
            order = list(bin_sensitive([*edges, cuts[-1] + 1], cuts).tolist())
        else:
            order = [str(v) for v in config.public_groups[raw]]
        if config.missing_group is not None and config.missing_group not in order:
            order.append(config.missing_group)
        if len(order) < 2 or len(set(order)) != len(order):
            raise SensitiveFeatureError(
                f"public_groups[{raw!r}] must name at least two groups, each one once."
            )
        label = unique_labels(order)
        text = [config.missing_group if g else _text(v) for v, g in zip(values, gone, strict=True)]
        columns[names[raw]] = np.array([label.get(v) for v in text], dtype=object)
        levels[names[raw]] = [label[v] for v in order]
    return columns, levels


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _budgets(ctx: AuditContext) -> tuple[int, float]:
    """Return the number of tables and the epsilon of each; they sum to no more than asked."""
    epsilon = float(ctx.config.dp_report or 0)
    tables = len(ctx.models) * (len(ctx.groups) + len(list(ctx.crossings())))
    # A little less than the share, so that no order of adding them up passes the whole.
    each = epsilon / tables * (1 - 1e-12)
    return tables, each


def release(ctx: AuditContext, voids: Sequence[str]) -> dict[str, Any]:
    """Release one table per model and crossing, seal the rows, and return the release entry.

    Each table counts every row at most once, so that discrete Laplace noise makes it private;
    the tables compose to the epsilon of the report. The ledger is charged for each before its
    noise is drawn.
    """
    from privfair.accounting import default_ledger
    from privfair.report._estimates import DISPARITIES, RATES, compute

    name = f"{ctx.dataset.name} {ctx.dataset.split}".strip() + " (audited rows)"
    book = default_ledger(name) if ctx.ledger is None else ctx.ledger
    tables, each = _budgets(ctx)
    left = book.remaining() if hasattr(book, "remaining") else None
    if left is not None and left.epsilon < each * tables:
        raise BudgetExceededError(
            f"the report needs epsilon {each * tables:g}, and the ledger of the audited rows has "
            f"{left.epsilon:g} left. Nothing was spent.",
            left,
        )
    wanted = tuple(dict.fromkeys((*RATES, "balanced_accuracy", *DISPARITIES)))
    crossings = [*ctx.singles(), *ctx.crossings()]
    guarantees: list[PrivacyGuarantee] = []
    for model in ctx.models:
        for crossing in crossings:
            found = compute(ctx, model, crossing, wanted, privacy=Budget(each), ledger=book)
            ctx.released[(model.id, crossing.attributes)] = found
            promise = next(iter(found.values())).privacy
            if promise is None:
                raise PrivacyError("a table was released without a guarantee; this is a defect.")
            guarantees.append(promise)
    total = reduce(lambda a, b: a.compose(b), guarantees)
    total = replace(total, assumptions=(*total.assumptions, *_ASSUMPTIONS))
    seal(ctx)
    return {
        "kind": "dp",
        "dataset_id": str(getattr(book, "dataset_id", name)),
        "ledger": None if getattr(book, "path", None) is None else Path(book.path).name,
        "entry": None,
        "privacy": total.to_dict(),
        "min_cell": None,
        "voids": list(voids),
    }


def seal(ctx: AuditContext) -> None:
    """Take the rows out of the context."""
    closed: Any = Sealed()
    ctx.models = [replace(m, decisions=closed, scores=None, probability=False) for m in ctx.models]
    by_id = {m.id: m for m in ctx.models}
    ctx.attacks = [(by_id[model.id], result) for model, result in ctx.attacks]
    ctx.labels = None if ctx.labels is None else closed
    ctx.groups = dict.fromkeys(ctx.groups, closed)
    ctx.features = None
    ctx._crossings = {k: replace(c, codes=closed) for k, c in ctx._crossings.items()}
