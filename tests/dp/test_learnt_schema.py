"""A schema that was learnt privately is paid for in every certificate that rests on it."""

import numpy as np
import pandas as pd
import pytest

from privfair.accounting import Ledger
from privfair.core.exceptions import IncompatibleNeighboringError
from privfair.dp import DPClassifier, PrivateTableEncoder

RNG = np.random.default_rng(0)
X = pd.DataFrame({"a": RNG.normal(50, 10, 2000), "b": RNG.normal(0, 1, 2000)})
Y = (X["a"] > 50).astype(int)


def learnt(**settings):
    encoder = PrivateTableEncoder(epsilon=0.4, delta=1e-6, ledger=Ledger(), **settings)
    return encoder.fit(X)


def fitted(schema, **settings):
    return DPClassifier(
        epsilon=0.6, schema=schema, epochs=1, batch_size=200, ledger=Ledger(), **settings
    ).fit(X, Y)


def test_the_cost_of_the_schema_is_in_the_certificate():
    encoder = learnt()
    model, public = fitted(encoder.schema_), fitted(type(encoder.schema_)(dict(encoder.schema_)))
    assert len(model.privacy_.events) > len(public.privacy_.events)
    assert model.privacy_.epsilon > public.privacy_.epsilon
    assert model.privacy_.certified


def test_a_seed_in_the_schema_is_not_forgotten():
    model = fitted(learnt(noise_random_state=3).schema_)
    assert model.privacy_.seeded
    assert not model.privacy_.certified


def test_another_relation_is_refused_before_the_charge():
    ledger = Ledger(neighboring="add_remove")
    model = DPClassifier(
        schema=learnt().schema_, neighboring="add_remove", n_public=2000, ledger=ledger
    )
    with pytest.raises(IncompatibleNeighboringError, match="Learn the schema under the same"):
        model.fit(X, Y)
    assert len(ledger) == 0
