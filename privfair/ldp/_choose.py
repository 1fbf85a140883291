"""Which protocol fits a domain, an epsilon and the limits of device and server."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.ldp._direct import GRR, SS
from privfair.ldp._hashing import OLH
from privfair.ldp._protocol import FrequencyProtocol, check_domain, check_local_epsilon
from privfair.ldp._structured import HR, PGR
from privfair.ldp._unary import OUE

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Selection", "choose"]

_CANDIDATES = (GRR, SS, OUE, OLH, HR, PGR)  # on a tie the one with the simpler client first


@dataclass(frozen=True, eq=False)
class Selection:
    """The protocol chosen, and how all candidates compare.

    Attributes
    ----------
    best : FrequencyProtocol
    rows : tuple of dict
        Protocol, variance of one report at frequency 0, bits, server operations, and why it was
        left out, if it was.
    """

    best: FrequencyProtocol
    rows: tuple[dict[str, object], ...]

    @property
    def table(self) -> pd.DataFrame:
        """The comparison as a data frame, best first."""
        import pandas as pd

        return pd.DataFrame(list(self.rows)).set_index("protocol")

    def _repr_html_(self) -> str:
        cells = "".join(
            "<tr>" + "".join(f"<td>{html.escape(str(v))}</td>" for v in row.values()) + "</tr>"
            for row in self.rows
        )
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.rows[0])
        return f"<table><tr>{head}</tr>{cells}</table>"


def choose(
    k: int,
    epsilon: float,
    *,
    max_report_bits: int | None = None,
    max_server_ops: float | None = None,
    n: int | None = None,
) -> Selection:
    """Choose the pure protocol of least variance within limits, and show the comparison.

    Parameters
    ----------
    k : int
        Size of the domain, at least 2.
    epsilon : float
        In (0, 50].
    max_report_bits : int or None
        Most bits that a report may take.
    max_server_ops : float or None
        Most operations that the server may spend; needs ``n``.
    n : int or None
        Expected number of reports.

    Returns
    -------
    Selection

    Raises
    ------
    InvalidParameterError
        No candidate is within the limits; the message names the closest.

    Notes
    -----
    Compared is the variance at frequency 0, since most values of a large domain are rare. The
    classical rule, GRR for k below 3 e^epsilon + 2 and OUE otherwise, looks at these two only.

    References
    ----------
    Wang, Blocki, Li, Jha 2017, USENIX Security.

    Examples
    --------
    >>> selection = choose(1024, 1.0, max_report_bits=20)
    >>> selection.best.name
    'PGR'
    >>> selection.table.loc["OUE", "excluded"]
    '1024 bits per report'
    """
    k, epsilon = check_domain(k), check_local_epsilon(epsilon=epsilon)
    if max_report_bits is not None:
        check.positive_int(max_report_bits=max_report_bits)
    if n is not None:
        check.positive_int(n=n)
    if max_server_ops is not None:
        check.positive(max_server_ops=max_server_ops)
        if n is None:
            raise InvalidParameterError("max_server_ops needs n, the expected number of reports.")
    rows = []
    for at, make in enumerate(_CANDIDATES):
        protocol = make(k, epsilon)
        work = _operations(protocol, n or 1)
        out = ""
        if max_report_bits is not None and protocol.report_bits > max_report_bits:
            out = f"{protocol.report_bits} bits per report"
        elif max_server_ops is not None and work > max_server_ops:
            out = f"{work:.2g} operations of the server"
        rows.append(
            (bool(out), protocol.variance(), at, protocol,
             {"protocol": protocol.name, "variance": protocol.variance(),
              "report_bits": protocol.report_bits, "server_ops": work, "excluded": out})
        )  # fmt: skip
    rows.sort(key=lambda row: row[:3])
    if rows[0][0]:
        least = min(rows, key=lambda row: row[3].report_bits)
        raise InvalidParameterError(
            f"no protocol is within the limits. {least[3].name} has the shortest reports, "
            f"{least[3].report_bits} bits; raise max_report_bits or max_server_ops."
        )
    return Selection(rows[0][3], tuple(row[4] for row in rows))


def _operations(protocol: FrequencyProtocol, n: int) -> float:
    """Return roughly how many elementary operations the server needs for n reports."""
    k = float(protocol.k)
    if isinstance(protocol, OLH):
        return n * k
    if isinstance(protocol, SS | OUE):
        return n * k / 8
    if isinstance(protocol, HR):
        return n + protocol.K_ * protocol.K_.bit_length()
    if isinstance(protocol, PGR):
        cells = float(protocol.r_**protocol.t_)
        return n + cells * math.log2(cells)
    return n + k
