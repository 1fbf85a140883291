"""Guarantees: flags cannot be lost, unsafe is infinite, composition never under-counts."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfair.core.exceptions import IncompatibleNeighboringError, InvalidParameterError
from privfair.core.privacy import Budget, PrivacyGuarantee, advantage, posterior, tradeoff_at


def made(epsilon=1.0, delta=1e-6, **fields):
    return PrivacyGuarantee(epsilon, delta, **fields)


def test_unsafe_with_a_finite_epsilon_cannot_be_built():
    with pytest.raises(InvalidParameterError, match="unsafe"):
        made(unsafe=("non_private",))


@pytest.mark.parametrize(
    "fields",
    [
        {"seeded": True},
        {"numerics": "idealized"},
        {"epsilon": math.inf, "unsafe": ("x",)},
        {"epsilon": math.inf},
    ],
)
def test_each_flag_alone_voids_the_certificate(fields):
    assert made().certified
    assert not made(**fields).certified


@pytest.mark.parametrize("field", ["unit", "neighboring", "accountant", "numerics"])
def test_labels_are_checked(field):
    with pytest.raises(InvalidParameterError, match=field):
        made(**{field: "nonsense"})


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [({"unit": "record"}, {"unit": "user"}), ({}, {"neighboring": "replace_one"})],
)
def test_different_relations_do_not_compose(mine, theirs):
    with pytest.raises(IncompatibleNeighboringError, match="compose only under one"):
        made(**mine).compose(made(**theirs))


def test_composition_adds_without_profiles_and_ors_the_flags():
    both = made(1.0, 1e-6, numerics="exact", assumptions=("a",)).compose(
        made(0.5, 2e-6, numerics="hardened", seeded=True, assumptions=("a", "b"))
    )
    assert both.epsilon == 1.5
    assert both.delta == pytest.approx(3e-6)
    assert both.numerics == "hardened"
    assert both.seeded
    assert both.assumptions == ("a", "b")
    assert both.accountant == "basic"


def test_composition_with_something_unsafe_is_unsafe():
    both = made().compose(PrivacyGuarantee.none("non_private"))
    assert both.epsilon == math.inf
    assert both.unsafe == ("non_private",)


class _Line:
    """A profile whose epsilon is constant, to see that the smaller bound is taken."""

    accountant = "pld"

    def __init__(self, value):
        self.value = value

    def epsilon(self, delta):
        return self.value

    def delta(self, epsilon):
        return 0.0

    def beta(self, alpha):
        return 1 - alpha

    def compose(self, other):
        return _Line(0.9 * (self.value + other.value))


def test_composition_takes_the_smaller_of_profile_and_sum():
    both = made(1.0, profile=_Line(1.0)).compose(made(1.0, profile=_Line(1.0)))
    assert both.epsilon == pytest.approx(1.8)
    assert both.accountant == "pld"


def test_json_is_strict_and_inf_is_a_string():
    data = PrivacyGuarantee.none("non_private").to_dict()
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["epsilon"] == "inf"
    assert data["certified"] is False


def test_explain_says_seeded_first_and_never_rounds_epsilon_down():
    text = made(0.99991, seeded=True).explain()
    assert text.startswith("SEEDED")
    assert "(1, 1e-06)" in text


def test_explain_of_no_guarantee_names_the_reason():
    assert "non_private" in PrivacyGuarantee.none("non_private").explain()


def test_curve_without_profile_knows_only_its_own_point():
    curve = dict(made(1.0, 1e-6).curve([1e-8, 1e-6, 1e-5]))
    assert curve == {1e-8: math.inf, 1e-6: 1.0, 1e-5: 1.0}


def test_the_guessing_bound_holds_for_the_gaussian_and_is_near_it():
    # Two unit Gaussians at distance mu: the best guess is right with probability Phi(mu / 2).
    from scipy.stats import norm

    from privfair.accounting import Gaussian, guarantee
    from privfair.core.privacy import guessing

    found = guarantee(Gaussian(2.0), delta=1e-5)
    assert norm.cdf(0.25) <= guessing(found.epsilon, found.delta)
    assert "right with a probability of at most" in found.explain()
    assert "except with" not in found.explain()


def test_posterior_and_advantage_against_closed_forms():
    # Binary randomised response attains both: e/(1+e) and (e-1)/(e+1).
    assert posterior(1.0) == pytest.approx(math.e / (1 + math.e))
    assert advantage(1.0) == pytest.approx((math.e - 1) / (math.e + 1))
    assert advantage(1e4) == 1.0


@given(st.floats(0, 10), st.floats(0, 0.5), st.floats(0, 1))
def test_tradeoff_is_below_chance_and_consistent_with_the_definition(epsilon, delta, alpha):
    beta = tradeoff_at(alpha, epsilon, delta)
    assert 0 <= beta <= 1 - alpha + 1e-12
    # (epsilon, delta)-DP: TPR <= e^eps FPR + delta, for the test and for its complement.
    assert 1 - beta <= math.exp(epsilon) * alpha + delta + 1e-9
    assert 1 - alpha <= math.exp(epsilon) * beta + delta + 1e-9


def test_budget_checks_its_numbers():
    assert Budget(math.inf).epsilon == math.inf
    for bad in [(-1.0, 0.0), (math.nan, 0.0), (1.0, 1.0), (1.0, -1e-9)]:
        with pytest.raises(InvalidParameterError):
            Budget(*bad)


def test_directed_rounding_leaves_round_numbers_alone():
    from privfair.core._format import format_lower, format_upper, round_up

    for text in ("0.1", "1e-05", "0.3", "2.5", "1e-06"):
        assert format_upper(float(text)) == text
        assert format_lower(float(text)) == text
    assert round_up(0.10001, 4) == 0.1001
    assert round_up(np.float64(0.1)) == 0.1
