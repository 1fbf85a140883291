"""Make ``sampled_gaussian.json``: reference values by two independent implementations.

``upper`` is dp_accounting 0.6.0's connect-the-dots PLD at a step at which it had converged (or
the finest that was affordable). ``low`` and ``high`` are the error interval of Opacus 1.6.0's
PRV accountant (Gopi, Lee, Wutschitz 2021), which brackets the true epsilon. Run by hand:

    python tests/accounting/golden/make_sampled_gaussian.py
"""

from __future__ import annotations

import itertools
import json
import math
from importlib.metadata import version
from pathlib import Path

import dp_accounting as dpa
from dp_accounting.pld import PLDAccountant
from opacus.accountants.prv import PRVAccountant

CASES = [
    (q, sigma, steps, delta)
    for (q, sigma, steps), delta in itertools.product(
        [
            (0.001, 0.6, 1000), (0.001, 0.8, 10000), (0.001, 1.5, 20000), (0.004, 1.1, 14062),
            (0.01, 0.6, 300), (0.01, 0.8, 1000), (0.01, 1.1, 1000), (0.01, 2.0, 4000),
            (0.01, 5.0, 4000), (0.0314, 3.1139, 640), (0.05, 1.0, 60), (0.05, 4.0, 400),
            (0.1, 1.0, 10), (0.1, 3.0, 512), (0.1258, 7.398, 240), (0.3, 2.0, 20),
            (0.3, 10.0, 100), (0.5, 1.0, 1), (0.5, 1.6, 3), (0.9, 5.0, 30),
        ],
        [1e-4, 1e-6, 1e-8],
    )
]  # fmt: skip


def upper(q: float, sigma: float, steps: int, delta: float) -> tuple[float, float]:
    spread = q * math.sqrt(math.expm1(1 / sigma**2))
    step = min(1e-4, max(spread / 20, 2e-6))
    accountant = PLDAccountant(value_discretization_interval=step)
    event = dpa.PoissonSampledDpEvent(q, dpa.GaussianDpEvent(sigma))
    accountant.compose(dpa.SelfComposedDpEvent(event, steps))
    return accountant.get_epsilon(delta), step


def bracket(q: float, sigma: float, steps: int, delta: float) -> tuple[float, float]:
    accountant = PRVAccountant()
    accountant.history = [(sigma, q, steps)]
    found = accountant._get_dprv(eps_error=0.01, delta_error=delta / 1000)
    low, _, high = found.compute_epsilon(delta, delta / 1000, 0.01)
    return low, high


def main() -> None:
    rows = []
    for q, sigma, steps, delta in CASES:
        value, step = upper(q, sigma, steps, delta)
        try:
            low, high = bracket(q, sigma, steps, delta)
        except (RuntimeError, ValueError):
            low, high = None, None
        rows.append(
            {"q": q, "sigma": sigma, "steps": steps, "delta": delta, "upper": value,
             "grid": step, "low": low, "high": high}
        )  # fmt: skip
        print(rows[-1], flush=True)
    found = {
        "what": "epsilon of Poisson-sampled Gaussians, add/remove",
        "made_by": Path(__file__).name,
        "versions": {
            name: version(name) for name in ("dp-accounting", "opacus", "numpy", "scipy")
        },
        "rows": rows,
    }
    Path(__file__).with_name("sampled_gaussian.json").write_text(
        json.dumps(found, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
