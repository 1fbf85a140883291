"""How often the interval for the cost of no information, by score alone, holds the true cost.

A population with ten score bins and two groups whose scores differ by ``shift`` standard
deviations; 200 tables of each size; nominal level 95 %, so that 0.91 .. 0.98 is what 200 draws of
a true 0.95 show. "bootstrap" is the interval from resamples alone (200 of each table), "reported"
has the upper end of at least the largest limit over all prices. The resampled programs are solved
by their dual, which for two groups is the least of a piecewise linear function of one number: its
values at the corners. The true cost is checked against the solver of the report.
"""

from __future__ import annotations

import numpy as np
from _record import record
from scipy.special import expit
from scipy.stats import norm

from privfair.core.statistics import multinomial_resamples
from privfair.report._frontier import interval_of, rule_of
from privfair.report._parity import most_cost

TABLES, B, SEED = 200, 200, 0
SIZES = (500, 1500, 10_000)
SETTINGS = {  # difference of the groups' scores, share of the second group, slope of the label
    "scores 0.1 apart": (0.1, 0.33, 1.5),
    "scores 0.2 apart": (0.2, 0.33, 1.5),
    "scores 0.8 apart": (0.8, 0.33, 1.5),
    "scores 0.8 apart, group of 5 %": (0.8, 0.05, 1.5),
    "scores 0.3 apart, steep": (0.3, 0.33, 4.0),
}


def population(shift: float, share: float, slope: float) -> tuple[np.ndarray, np.ndarray]:
    """Return shares by group, client, label and score bin, and which bins the model accepts."""
    ends = np.concatenate([[-np.inf], norm.ppf(np.arange(1, 10) / 10), [np.inf]])
    given = np.diff(norm.cdf(ends[None] + np.array([[0.0], [shift]])), axis=1)
    middle = norm.ppf((np.arange(10) + 0.5) / 10)
    positive = expit(slope * middle - 0.5)
    mass = given * np.array([[1 - share], [share]])
    return np.stack([mass * (1 - positive), mass * positive], axis=1)[:, None], positive > 0.5


def costs(p: np.ndarray, accept: np.ndarray) -> np.ndarray:
    """Return the cost of each table, shape (n_tables, 2, 1, 2, n_bins)."""
    q = p[:, :, 0]
    gain = (q[:, :, 1] - q[:, :, 0]).sum(axis=1)
    given = q.sum(axis=2) / q.sum(axis=(2, 3))[..., None]
    apart = given[:, 0] - given[:, 1]
    corners = np.divide(gain, apart, out=np.zeros_like(gain), where=np.abs(apart) > 1e-15)
    corners = np.concatenate([corners, np.zeros((len(p), 1))], axis=1)
    dual = np.maximum(0, gain[:, None] - corners[..., None] * apart[:, None]).sum(axis=2)
    model = q[:, :, 0, ~accept].sum(axis=(1, 2)) + q[:, :, 1, accept].sum(axis=(1, 2))
    return np.asarray(model - q[:, :, 0].sum(axis=(1, 2)) - dual.min(axis=1))


def study(
    setting: tuple[float, float, float], n: int, rng: np.random.Generator
) -> dict[str, object]:
    """Return coverage and mean width of both intervals."""
    p, accept = population(*setting)
    truth = float(costs(p[None], accept)[0])
    model = p[..., 0, ~accept].sum() + p[..., 1, accept].sum()
    assert abs(truth - (model - rule_of(p, "global", 0.0, "blind").accuracy)) < 1e-6
    ends = []
    for _ in range(TABLES):
        cells = rng.multinomial(n, p.ravel()).reshape(p.shape)
        value = float(costs(cells[None] / n, accept)[0])
        draws = costs(np.asarray(multinomial_resamples(cells, B, rng)) / n, accept)
        low, high = interval_of(draws, value, 0.95)
        ends.append((low, high, max(high, min(1.0, most_cost(cells, accept, 0.95)))))
    low, old, new = np.array(ends).T
    return {
        "true_cost": truth,
        "coverage": {
            "bootstrap": float(((low <= truth) & (truth <= old)).mean()),
            "reported": float(((low <= truth) & (truth <= new)).mean()),
        },
        "mean_width": {
            "bootstrap": float((old - low).mean()), "reported": float((new - low).mean()),
        },
    }  # fmt: skip


def main() -> None:
    rng = np.random.default_rng(SEED)
    found = {
        f"{name}, {n} rows": study(setting, n, rng)
        for name, setting in SETTINGS.items()
        for n in SIZES
    }
    record(
        "parity_cost", {"tables": TABLES, "resamples": B, "settings": found}, seeds={"rng": SEED}
    )


if __name__ == "__main__":
    main()
