"""The row on Gaussian differential privacy: only where it is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from privfair.accounting.events import Composed, Gaussian, Laplace, PoissonSampled, SelfComposed
from privfair.report import AuditConfig, Predictions, audit

from .conftest import guarantee


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ((Gaussian(2.0),), "0.5"),
        # 1/4 + 4/16 + 1/2, and its root: 1
        ((Gaussian(2.0), SelfComposed(Gaussian(4.0), 4), Composed((Gaussian(2**0.5),))), "1"),
        ((PoissonSampled(0.1, Gaussian(2.0)),), "not valid"),
        ((Gaussian(2.0), Laplace(1.0)), "not valid"),
        ((), "not stated"),
    ],
)
def test_mu_is_stated_where_all_events_are_gaussian_on_all_rows(
    events: tuple[Any, ...], says: str
) -> None:
    y = np.arange(400) % 2
    made = audit(
        Predictions(y, privacy=guarantee(events=events)), None, y,
        sensitive_features={"sex": ["f", "m", "m", "f"] * 100},
        config=AuditConfig(n_resamples=100, sections=("privacy",)),
    )  # fmt: skip
    section = made.section("privacy")
    assert section.status == "ok", section.reason
    (table,) = [t for t in section.tables if t.id.startswith("certificate-")]
    shown = dict(table.rows)["Gaussian differential privacy, mu"]
    if says[0].isdigit():
        assert float(says) <= float(shown) <= float(says) * 1.02
    else:
        assert shown.startswith(says)
    assert any(t.id.startswith("events-") for t in section.tables) is bool(events)
