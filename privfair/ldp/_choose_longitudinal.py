"""Which longitudinal protocol fits a domain, two epsilons and what a user may ever spend."""

from __future__ import annotations

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.ldp._chains import LGRR, LOLOHA
from privfair.ldp._choose import Selection
from privfair.ldp._longitudinal import LongitudinalProtocol
from privfair.ldp._unary_chains import LOSUE, LSUE

__all__ = ["choose_longitudinal"]


def choose_longitudinal(
    k: int,
    eps_perm: float,
    eps_1: float,
    *,
    reports: float = 1,
    n_distinct: int | None = None,
    max_epsilon: float | None = None,
    max_report_bits: int | None = None,
) -> Selection:
    """Choose the longitudinal protocol of least variance within limits, and show the comparison.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    eps_perm : float
        In (0, 50]: epsilon of any number of reports about one value.
    eps_1 : float
        In (0, eps_perm): epsilon of the first report.
    reports : int or inf, default=1
        Rounds over which estimates are averaged.
    n_distinct : int or None, default=None
        How many different values a user has at most; None stands for all k.
    max_epsilon : float or None, default=None
        Most that a user may ever spend, over all values.
    max_report_bits : int or None, default=None
        Most bits that a report may take.

    Returns
    -------
    Selection
        Rows with the variance of the mean over the rounds at frequency 0 (per user), bits, what
        a user may ever spend, and why a protocol was left out.

    Raises
    ------
    InvalidParameterError
        No protocol is within the limits.

    Notes
    -----
    Without limits and for one report, the rule of the paper: LGRR for k below 3 e^eps_1 + 2,
    LOSUE otherwise. BiLOLOHA is LOLOHA with two buckets.

    References
    ----------
    Arcolezi, Couchot, Al Bouna, Xiao 2022, arXiv 2111.04636.

    Examples
    --------
    >>> choose_longitudinal(16, 2.0, 1.0).best.name, choose_longitudinal(5, 2.0, 1.0).best.name
    ('LOSUE', 'LGRR')
    >>> found = choose_longitudinal(1000, 2.0, 1.0, max_epsilon=4.0)
    >>> found.best, found.table.loc["LOSUE", "excluded"]
    (LOLOHA(k=1000, eps_perm=2.0, eps_1=1.0, variant='tight', g=2), 'epsilon 2000')
    """
    if max_epsilon is not None:
        check.positive(max_epsilon=max_epsilon)
    if max_report_bits is not None:
        check.positive_int(max_report_bits=max_report_bits)
    if n_distinct is not None:
        check.positive_int(n_distinct=n_distinct)
    named: list[tuple[str, LongitudinalProtocol]] = [
        ("LGRR", LGRR(k, eps_perm, eps_1)),
        ("LOSUE", LOSUE(k, eps_perm, eps_1)),
        ("LSUE", LSUE(k, eps_perm, eps_1)),
        ("LOLOHA", LOLOHA(k, eps_perm, eps_1)),
        ("BiLOLOHA", LOLOHA(k, eps_perm, eps_1, 2)),
    ]
    rows = []
    for at, (name, protocol) in enumerate(named):
        spent = protocol.event(min(n_distinct or k, k)).eps0
        variance = protocol.variance_over_time(reports)
        out = ""
        if max_epsilon is not None and spent > max_epsilon:
            out = f"epsilon {spent:g}"
        elif max_report_bits is not None and protocol.report_bits > max_report_bits:
            out = f"{protocol.report_bits} bits per report"
        row = {
            "protocol": name, "variance": variance, "report_bits": protocol.report_bits,
            "epsilon_ever": spent, "excluded": out,
        }  # fmt: skip
        rows.append((bool(out), variance, at, protocol, row))
    rows.sort(key=lambda row: row[:3])
    if rows[0][0]:
        least = min(row[4]["epsilon_ever"] for row in rows)
        raise InvalidParameterError(
            f"no longitudinal protocol is within the limits: the least that a user may ever spend "
            f"is {least:g}, and BiLOLOHA takes 65 bits per report. Raise max_epsilon or "
            "max_report_bits, or lower eps_perm."
        )
    return Selection(rows[0][3], tuple(row[4] for row in rows))
