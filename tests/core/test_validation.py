"""Each validator refuses its bad values with its own class and a message that names them."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privfair.core import _validation as check
from privfair.core import exceptions as exc


@pytest.mark.parametrize("bad", [True, "1", None, [1.0], np.array([1.0]), 1 + 0j])
@pytest.mark.parametrize(
    "validator",
    [check.real, check.positive, check.non_negative, check.probability, check.sample_rate],
)
def test_non_numbers_are_a_type_error_that_names_the_parameter(validator, bad):
    with pytest.raises(exc.InvalidTypeError, match="clip_norm") as info:
        validator(clip_norm=bad)
    assert isinstance(info.value, TypeError)


@pytest.mark.parametrize("good", [np.float32(0.5), np.array(0.5), 0.5])
def test_numpy_scalars_and_0d_arrays_are_numbers(good):
    assert check.probability(rate=good) == 0.5


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 0.0])
def test_epsilon(bad):
    with pytest.raises(exc.InvalidBudgetError, match="epsilon must be a positive finite number"):
        check.epsilon(epsilon=bad)


def test_epsilon_inf_only_where_allowed():
    assert check.epsilon(epsilon=math.inf, allow_inf=True) == math.inf
    with pytest.raises(exc.InvalidBudgetError):
        check.epsilon(epsilon=math.nan, allow_inf=True)


@pytest.mark.parametrize("bad", [0.0, 1.0, 1.5, -1e-9, math.nan, math.inf])
def test_delta(bad):
    with pytest.raises(exc.InvalidBudgetError, match=r"delta must be in \(0, 1\)"):
        check.delta(delta=bad)


def test_delta_zero_where_allowed():
    assert check.delta(delta=0.0, allow_zero=True) == 0.0


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.0001, math.nan])
def test_sample_rate(bad):
    with pytest.raises(exc.InvalidSampleRateError, match="sample_rate"):
        check.sample_rate(sample_rate=bad)


@pytest.mark.parametrize("bad", [1.5, -1, math.nan, math.inf])
def test_steps(bad):
    with pytest.raises(exc.InvalidStepsError, match="steps must be an integer"):
        check.steps(steps=bad)


def test_one_of_suggests_the_nearest():
    with pytest.raises(exc.InvalidParameterError, match="Did you mean 'zero_out'"):
        check.one_of(["zero_out", "add_remove"], neighboring="zero-out")


def test_one_of_does_not_take_one_for_true():
    with pytest.raises(exc.InvalidParameterError):
        check.one_of([True, False], flag=1)


@pytest.mark.parametrize(
    ("epsilon", "delta", "n"), [(20.5, 1e-6, 1000), (1.0, 1e-3, 1000), (1.0, 0.5, 10)]
)
def test_weak_settings_need_a_word(epsilon, delta, n):
    with pytest.raises(exc.WeakGuaranteeError, match="allow_weak=True"):
        check.strong_enough(epsilon, delta, n)
    check.strong_enough(epsilon, delta, n, allow_weak=True)


def test_strong_settings_and_the_explicit_non_private_twin_pass():
    check.strong_enough(20.0, 1e-6, 1000)
    check.strong_enough(math.inf, 1e-6, 1000)
    check.strong_enough(1.0, 0.9, None)


@given(st.floats(min_value=1e-300, max_value=1e300))
def test_every_positive_finite_number_is_positive(value):
    assert check.positive(x=value) == value


@given(st.one_of(st.floats(max_value=0.0), st.just(math.nan), st.just(math.inf)))
def test_nothing_else_is(value):
    with pytest.raises(exc.InvalidParameterError):
        check.positive(x=value)


def test_every_error_class_is_exported_and_has_an_exit_code():
    for name in exc.__all__:
        cls = getattr(exc, name)
        if issubclass(cls, Warning):
            assert issubclass(cls, exc.PrivfairWarning)
        else:
            assert issubclass(cls, exc.PrivfairError)
            assert cls.exit_code in {1, 2, 3, 4, 5, 7, 8}


def test_a_missing_column_reads_as_a_sentence_not_as_a_repr():
    assert str(exc.ColumnNotFoundError("column 'x' is not here")) == "column 'x' is not here"
