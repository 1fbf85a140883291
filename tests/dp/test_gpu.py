"""The same training on a CUDA device."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from privfair.accounting import Ledger
from privfair.dp import DPClassifier

from .test_classifier import SCHEMA, table

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("options", [{}, {"hidden_layer_sizes": (8,)}])
@pytest.mark.parametrize("epsilon", [1.0, float("inf")])
def test_cuda_agrees_with_the_cpu(options, epsilon):
    X, y = table(2_000)
    fits = [
        DPClassifier(
            epsilon=epsilon, schema=SCHEMA, device=device, random_state=0, ledger=Ledger(),
            noise_random_state=0, epochs=5, **options,
        ).fit(X, y)
        for device in ("cpu", "cuda")
    ]  # fmt: skip
    np.testing.assert_allclose(
        fits[0].predict_proba(X), fits[1].predict_proba(X), rtol=1e-3, atol=1e-4
    )
    assert fits[0].privacy_ == fits[1].privacy_


def test_cuda_keeps_the_class_of_the_noise():
    X, y = table(500)
    clf = DPClassifier(schema=SCHEMA, device="cuda", ledger=Ledger(), epochs=1).fit(X, y)
    assert clf.privacy_.numerics == "hardened" and clf.privacy_.certified
