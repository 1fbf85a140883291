"""Learning on randomised rows: laws by enumeration, unbiasedness, naive Bayes, prices."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from sklearn.naive_bayes import CategoricalNB

from privfair.accounting import Ledger
from privfair.core import Categorical, Numeric, Schema
from privfair.core.exceptions import (
    InvalidParameterError,
    InvalidTypeError,
    LabelError,
    SchemaError,
    WeakGuaranteeError,
)
from privfair.ldp import LDPNaiveBayes, LDPTransformer

SCHEMA = Schema({"a": Categorical(["x", "y"]), "b": Categorical([1, 2, 3])})
ROWS = pd.DataFrame({"a": ["x", "y", "y"], "b": [1, 2, 3]})
WIDE = Schema({name: Categorical(list(range(k))) for name, k in (("p", 2), ("q", 3), ("r", 4))})


def law(randomiser, row):
    """Return the probability of everything that a device with this row can send."""
    d = len(randomiser.protocols)
    subsets = list(combinations(range(d), randomiser.per_row))
    out = {}
    for chosen in subsets:
        parts = [randomiser.protocols[j] for j in chosen]
        for sent in product(*(list(part.outputs()) for part in parts)):
            chance = 1
            for part, y, j in zip(parts, sent, chosen, strict=True):
                chance = chance * part.probability(y, row[j])
            out[chosen, sent] = chance / len(subsets)
    return out


@pytest.mark.parametrize("protocol", ["grr", "oue", "sue", "ss"])
@pytest.mark.parametrize(("strategy", "shares"), [("spl", 3), ("smp", 1), (2, 2)])
def test_epsilon_of_a_row_and_of_an_attribute_by_enumeration(protocol, strategy, shares):
    rows = pd.DataFrame({"p": [0], "q": [0], "r": [0]})
    made = LDPTransformer(
        schema=WIDE, epsilon=1.0, protocol=protocol, strategy=strategy, ledger=Ledger()
    ).fit(rows)
    laws = {row: law(made.randomiser_, row) for row in product(range(2), range(3), range(2))}
    tuple_ratio, attribute_ratio = 1, 1
    for one, two in product(laws, laws):
        ratio = max(laws[one][y] / laws[two][y] for y in laws[one])
        tuple_ratio = max(tuple_ratio, ratio)
        if sum(a != b for a, b in zip(one, two, strict=True)) == 1:
            attribute_ratio = max(attribute_ratio, ratio)
    details = made.privacy_.details
    assert details["eps_attr"] == pytest.approx(1.0 / shares)
    for found, declared in (
        (tuple_ratio, details["eps_tuple"]), (attribute_ratio, details["eps_attr"]),
    ):  # fmt: skip
        assert declared - 1e-9 < math.log(found) <= declared + 1e-15


@pytest.mark.parametrize(
    "protocol", ["grr", "oue", "sue", "ss", "olh", "blh", "hr", "pgr", "auto"]
)
@pytest.mark.parametrize("strategy", ["spl", "smp", 2])
def test_debiased_indicators_average_to_the_row(protocol, strategy):
    # 9 cells in 27 cases, |z| < 5: a right program fails once in 7,000 runs of all; the seed
    # makes it repeatable. Reports without the factor d / m would be off by more than 30 z.
    n = 20_000
    rows = pd.DataFrame({"p": np.ones(n, int), "q": np.zeros(n, int), "r": np.full(n, 3)})
    made = LDPTransformer(
        schema=WIDE, epsilon=2.0, protocol=protocol, strategy=strategy, output="debiased",
        ledger=Ledger(), noise_random_state=1,
    )  # fmt: skip
    out = made.fit_transform(rows)
    truth = made.encode(rows)
    np.testing.assert_array_equal(truth[0], [0, 1, 1, 0, 0, 0, 0, 0, 1])
    z = (out.mean(axis=0) - truth[0]) / (out.std(axis=0) / math.sqrt(n))
    assert np.abs(z).max() < 5


@pytest.mark.parametrize("strategy", ["spl", "smp"])
def test_encode_is_the_mean_of_what_transform_returns(strategy):
    n = 20_000
    rows = pd.DataFrame({"a": ["x"] * n, "b": [2] * n})
    made = LDPTransformer(
        schema=SCHEMA, protocol="oue", strategy=strategy, ledger=Ledger(), noise_random_state=2
    )
    out = made.fit_transform(rows)
    spread = np.sqrt(0.25 / n)
    assert np.abs(out.mean(axis=0) - made.encode(rows)[0]).max() < 5 * spread


def test_codes_say_what_was_not_reported():
    n = 6000
    rows = pd.DataFrame({"a": ["x"] * n, "b": [1] * n})
    made = LDPTransformer(
        schema=SCHEMA, strategy="smp", output="codes", ledger=Ledger(), noise_random_state=0
    )
    out = made.fit_transform(rows)
    absent = out == [2, 3]
    assert (absent.sum(axis=1) == 1).all()
    assert abs(absent[:, 0].mean() - 0.5) < 5 * 0.5 / math.sqrt(n)


def test_one_declaration_stands_for_all_columns():
    X = np.array([[0.0, 9.9], [5.0, 2.0]])
    made = LDPTransformer(schema=Numeric(0, 10), bins=2, output="codes", epsilon=math.inf)
    np.testing.assert_array_equal(made.fit_transform(X), [[0, 1], [1, 0]])
    assert made.privacy_.unsafe == ("non_private",)


def test_bins_of_a_long_tail_are_even_on_its_own_scale():
    made = LDPTransformer(schema={"g": Numeric(0, 99, log=True)}, bins=2).fit({"g": [1.0]})
    assert made.schema_["g"].bins == pytest.approx((9.0,))


def test_every_release_is_charged_and_composed():
    ledger = Ledger()
    made = LDPTransformer(schema=SCHEMA, epsilon=0.5, ledger=ledger).fit(ROWS)
    assert made.privacy_.epsilon == 0 and len(ledger) == 0
    for count in (1, 2, 3):
        made.transform(ROWS)
        assert made.privacy_.epsilon == pytest.approx(0.5 * count) and len(ledger) == count
    assert made.privacy_.certified and made.privacy_.neighboring == "replace_one"
    assert made.privacy_.details["eps_attr"] == 0.25
    assert ledger.spent().epsilon == pytest.approx(1.5)
    made.encode(ROWS)
    assert len(ledger) == 3


def test_noise_is_fresh_for_every_release_and_shared_by_no_row():
    rows = pd.DataFrame({"a": ["x"] * 200, "b": [1] * 200})
    made = LDPTransformer(schema=SCHEMA, ledger=Ledger()).fit(rows)
    first = made.transform(rows)
    assert not np.array_equal(first, made.transform(rows))
    assert len(np.unique(first, axis=0)) > 3


def test_rows_outside_the_schema_spend_nothing_and_are_not_quoted():
    ledger = Ledger()
    made = LDPTransformer(schema=SCHEMA, ledger=ledger).fit(ROWS)
    with pytest.raises(SchemaError, match="'a'") as caught:
        made.transform(ROWS.assign(a="secret"))
    assert "secret" not in str(caught.value)
    assert ledger.spent().epsilon == 0 and made.privacy_.details["releases"] == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"epsilon": -1.0}, InvalidParameterError),
        ({"epsilon": 30.0}, WeakGuaranteeError),
        ({"epsilon": 60.0, "allow_weak": True}, InvalidParameterError),
        ({"epsilon": True}, InvalidTypeError),
        ({"protocol": "krr"}, InvalidParameterError),
        ({"protocol": "oue", "output": "codes"}, InvalidParameterError),
        ({"strategy": 3}, InvalidParameterError),
        ({"strategy": "rsfd"}, InvalidParameterError),
        ({"schema": None}, InvalidTypeError),
        ({"schema": {"a": Categorical(["x"]), "b": Categorical([1, 2, 3])}}, SchemaError),
        ({"bins": 1}, SchemaError),
        ({"noise_random_state": -1}, InvalidParameterError),
    ],
)
def test_bad_parameters_are_refused_before_anything_is_spent(options, error):
    ledger = Ledger()
    with pytest.raises(error):
        LDPTransformer(**{"schema": SCHEMA, "ledger": ledger, **options}).fit(ROWS)
    assert len(ledger) == 0


def test_a_schema_learnt_from_rows_is_refused():
    learnt = SCHEMA.released_under(LDPTransformer(schema=SCHEMA).fit(ROWS).privacy_)
    with pytest.raises(SchemaError, match="learnt"):
        LDPTransformer(schema=learnt).fit(ROWS)


# -- naive Bayes --------------------------------------------------------------------------------
def correlated(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    p = np.where(rng.random(n) < 0.9, y, 1 - y)
    q = np.where(rng.random(n) < 0.7, y, 2)
    return pd.DataFrame({"p": p, "q": q, "r": rng.integers(0, 4, n)}), y


def test_without_noise_it_is_naive_bayes():
    X, y = correlated(500)
    ours = LDPNaiveBayes(schema=WIDE, epsilon=math.inf, smoothing=0.5).fit(X, y)
    peer = CategoricalNB(alpha=0.5, min_categories=[2, 3, 4]).fit(X, y)
    for mine, theirs in zip(ours.feature_log_prob_, peer.feature_log_prob_, strict=True):
        np.testing.assert_allclose(mine, theirs.T, atol=1e-12)
    np.testing.assert_array_equal(ours.predict(X), peer.predict(X))


@pytest.mark.parametrize("protocol", ["grr", "oue", "auto"])
@pytest.mark.parametrize("strategy", ["smp", "spl"])
def test_joint_tables_are_unbiased(protocol, strategy):
    # 60 runs, 18 cells, 6 cases: |z| < 5 fails a right program once in 16,000 times; a table
    # that forgot to correct for the randomiser would be off by more than 20 z.
    X, y = correlated(2000)
    truth = LDPNaiveBayes(schema=WIDE, epsilon=math.inf).fit(X, y).tables_raw_
    runs = [
        LDPNaiveBayes(
            schema=WIDE, protocol=protocol, strategy=strategy, epsilon=2.0, ledger=Ledger(),
            noise_random_state=seed,
        ).fit(X, y).tables_raw_
        for seed in range(60)
    ]  # fmt: skip
    for j, exact in enumerate(truth):
        cells = np.array([run[j] for run in runs])
        z = (cells.mean(axis=0) - exact) / (cells.std(axis=0, ddof=1) / math.sqrt(60))
        assert np.abs(z).max() < 5


def test_accuracy_grows_with_epsilon_up_to_the_plain_one():
    X, y = correlated(20_000)
    test, truth = correlated(4000, seed=1)

    def accuracy(epsilon):
        return np.mean(
            [
                LDPNaiveBayes(
                    schema=WIDE, epsilon=epsilon, ledger=Ledger(), noise_random_state=seed
                ).fit(X, y).score(test, truth)
                for seed in range(3)
            ]
        )  # fmt: skip

    low, high, plain = accuracy(0.02), accuracy(5.0), accuracy(math.inf)
    assert low < 0.85 < high
    assert abs(high - plain) < 0.01


def test_what_is_no_stronger_than_the_noise_is_shrunk_to_nothing():
    """Attributes without any association: what is learnt about them is noise."""
    rng = np.random.default_rng(0)
    n = 10_000
    X = pd.DataFrame({name: rng.integers(0, k, n) for name, k in (("p", 2), ("q", 3), ("r", 4))})
    y = (rng.random(n) < 0.8).astype(int)

    def effect(shrinkage):
        found = []
        for seed in range(10):
            model = LDPNaiveBayes(
                schema=WIDE, shrinkage=shrinkage, ledger=Ledger(), noise_random_state=seed
            ).fit(X, y)
            found += [np.abs(t[:, 1] - t[:, 0]).mean() for t in model.feature_log_prob_]
        return np.mean(found)

    assert effect("james_stein") < 0.5 * effect(None)


def test_naive_bayes_charges_once_for_rows_and_labels():
    X, y = correlated(200)
    ledger = Ledger()
    model = LDPNaiveBayes(schema=WIDE, epsilon=0.9, strategy="spl", ledger=ledger).fit(X, y)
    assert len(ledger) == 1 and ledger.spent().epsilon == pytest.approx(0.9)
    assert model.privacy_.epsilon == pytest.approx(0.9) and model.privacy_.certified
    assert model.privacy_.details["eps_attr"] == pytest.approx(0.3)
    model.predict(X)
    assert len(ledger) == 1


def test_labels_outside_the_public_list_spend_nothing():
    X, y = correlated(50)
    ledger = Ledger()
    for labels in ([0, 2], [0], [0, 0, 1]):
        with pytest.raises(LabelError):
            LDPNaiveBayes(schema=WIDE, classes=labels, ledger=ledger).fit(X, y)
    assert ledger.spent().epsilon == 0
    model = LDPNaiveBayes(schema=WIDE, classes=[2, 1, 0], ledger=ledger).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2]
