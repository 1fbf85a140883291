"""Black-box and white-box statistics of whole fits."""

from __future__ import annotations

import logging
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from privfair.accounting import Ledger, guarantee
from privfair.accounting.events import Gaussian
from privfair.core import Numeric, Schema
from privfair.dp import DPClassifier
from privfair.testing import dp_lower_bound
from privfair.training import DPEngine, SquaredLoss, TrainingPlan

ALPHA = 1e-6


class Recorder:
    """An optimiser that keeps the noisy sums and leaves the parameters at zero."""

    def __init__(self, batch):
        self.seen, self.batch = [], batch

    def step(self, theta, gradient):
        self.seen.append(float(gradient[0].double()) * self.batch)


def released_sums(n_records, runs, steps, sigma, seed):
    """The sum over a run of one coordinate in which only the last record has a gradient.

    The record's gradient is a multiple of a unit vector and is cut to norm 1: the strongest
    attack on one step, and the sum over steps is sufficient for Gaussian steps without sampling.
    The parameters do not move, so that ``runs`` runs are one long one, cut into pieces.
    """
    X, y = torch.zeros((5, 1)), torch.zeros(5)
    if n_records == 5:
        X[4], y[4] = 1e3, 1e4
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    recorder = Recorder(5)
    plan = TrainingPlan(5, 5, runs * steps, 1.0, sigma)
    DPEngine(module, SquaredLoss(), plan, optimizer=recorder, noise_random_state=seed).run(X, y)
    return np.array(recorder.seen).reshape(runs, steps).sum(axis=1)


@pytest.mark.statistical
def test_white_box_attack_meets_theory_and_not_more():
    """A canary's coordinate over all iterates, against the certified Gaussian.

    Two sides. (1) The mean shift is T and the standard deviation sigma sqrt(T), as accounted:
    z-test and chi-square at alpha = 1e-6, 2,000 runs; power against noise that is 15 % small is
    above 0.999. (2) The audited lower bound stays below the certified epsilon.
    """
    steps, sigma, runs = 4, 3.0, 2_000
    without = released_sums(4, runs, steps, sigma, 0)
    with_it = -released_sums(5, runs, steps, sigma, 1_000_000)
    spread = sigma * math.sqrt(steps)
    low, high = stats.chi2.ppf([ALPHA / 4, 1 - ALPHA / 4], runs - 1)
    for sample, mean in ((without, 0.0), (with_it, float(steps))):
        assert low <= (runs - 1) * sample.var(ddof=1) / spread**2 <= high * 1.001
        tolerance = stats.norm.isf(ALPHA / 4) * spread / math.sqrt(runs)
        assert abs(sample.mean() - mean) < tolerance + 1e-3
    delta = 1e-3
    certified = guarantee([Gaussian(sigma)] * steps, delta=delta).epsilon
    audited = dp_lower_bound(with_it, without, epsilon=certified, delta=delta)
    assert audited <= certified


@pytest.mark.statistical
def test_the_audit_finds_noise_that_is_too_small():
    """The same attack refutes a claim made for five times the noise that is drawn."""
    steps, sigma, runs = 4, 0.6, 1_500
    without = released_sums(4, runs, steps, sigma, 0)
    with_it = -released_sums(5, runs, steps, sigma, 1_000_000)
    claimed = guarantee([Gaussian(5 * sigma)] * steps, delta=1e-3).epsilon
    assert dp_lower_bound(with_it, without, epsilon=claimed, delta=1e-3) > claimed


@pytest.mark.statistical
def test_released_models_have_the_accounted_noise():
    """Coefficients of fits on constant features: the noise of the certificate, end to end.

    With the gradient cut to a tiny norm the coefficients are a sum of noises of known variance.
    alpha = 1e-6; 300 draws of the intercept; power against half the noise is above 0.9999.
    """
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(50, 1)), rng.integers(0, 2, 50)
    found = []
    for seed in range(300):
        clf = DPClassifier(
            schema="as_is", epochs=2, batch_size=50, optimizer="sgd", lr=1.0, ledger=Ledger(),
            max_grad_norm=1e-6, noise_random_state=seed, delta=1e-3,
        ).fit(X, y)  # fmt: skip
        found.append(clf.intercept_[0])
    # Two steps of lr 1; the average of the last half is the last iterate alone.
    assert clf.n_steps_ == 2
    sd = clf.noise_multiplier_ * 1e-6 / 50 * math.sqrt(2)
    z = np.array(found) / sd
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], len(z))
    # The gradient itself moves the mean by at most 2 C, i.e. 1e-6 * 2 / sd in these units.
    shift = 2e-6 / sd
    assert low <= ((z - z.mean()) ** 2).sum() * len(z) / (len(z) - 1) <= high
    assert abs(z.mean()) < shift + stats.norm.isf(ALPHA / 2) / math.sqrt(len(z))


# -- what a run shows ----------------------------------------------------------------------
SCHEMA = Schema({"a": Numeric(-4, 4)})


def small():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 1))
    return X, (X[:, 0] > 0).astype(int)


def test_nothing_is_printed_where_there_is_no_terminal(capsys, caplog):
    with caplog.at_level(logging.DEBUG):
        DPClassifier(schema=SCHEMA, epochs=1, ledger=Ledger(), verbose=2).fit(*small())
    out = capsys.readouterr()
    assert out.out == out.err == "" and not [r for r in caplog.records if "privfair" in r.name]


def test_a_terminal_sees_steps_and_epsilon_and_no_loss(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    DPClassifier(schema=SCHEMA, epochs=3, ledger=Ledger(), verbose=1).fit(*small())
    out = capsys.readouterr()
    assert out.out == ""
    assert "epsilon 1" in out.err and "steps" in out.err
    assert not any(word in out.err.lower() for word in ("loss", "acc", "gradient", "norm"))


def test_quiet_by_default_on_a_terminal_too(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    DPClassifier(schema=SCHEMA, epochs=1, ledger=Ledger()).fit(*small())
    assert capsys.readouterr().err == ""
