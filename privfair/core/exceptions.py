"""The exception tree of privfair.

Every class carries ``exit_code``, the status with which the command line ends when it meets
the error, so that a new error class needs no change in the command line. Classes also derive
from the built-in exception that generic handlers expect.
"""

from __future__ import annotations

__all__ = [
    "AccountingAssumptionError",
    "BudgetExceededError",
    "ColumnNotFoundError",
    "ConfigError",
    "ConvergenceError",
    "ConvergenceWarning",
    "DataError",
    "DataIntegrityError",
    "DataNotAvailableError",
    "DataVerificationWarning",
    "ForeignSamplerError",
    "IncompatibleNeighboringError",
    "InvalidBudgetError",
    "InvalidParameterError",
    "InvalidSampleRateError",
    "InvalidStepsError",
    "InvalidTypeError",
    "LabelError",
    "LedgerError",
    "LengthMismatchError",
    "LogIntegrityError",
    "MissingDependencyError",
    "MissingSensitiveFeatureError",
    "NumericsError",
    "OutputTargetError",
    "PrivacyContradictionError",
    "PrivacyError",
    "PrivfairError",
    "PrivfairWarning",
    "ProbabilityRangeError",
    "ReportError",
    "SchemaError",
    "SchemaVersionError",
    "SensitiveFeatureError",
    "SingleGroupError",
    "SmallGroupError",
    "SmallSampleWarning",
    "SolverError",
    "UnsafeFileError",
    "UnsupportedEventError",
    "UtilityWarning",
    "WeakGuaranteeError",
]


class PrivfairError(Exception):
    """Base class of all errors that privfair raises on purpose."""

    exit_code = 1


# --- parameters -----------------------------------------------------------------------------


class InvalidParameterError(PrivfairError, ValueError):
    """A parameter has a value outside its allowed range."""

    exit_code = 2


class InvalidTypeError(PrivfairError, TypeError):
    """A parameter has a type that is never coerced (booleans and strings as numbers, say)."""

    exit_code = 2


class InvalidBudgetError(InvalidParameterError):
    """An epsilon or delta is NaN, infinite where it may not be, or out of range."""


class InvalidSampleRateError(InvalidParameterError):
    """A sampling probability is not in (0, 1]."""


class InvalidStepsError(InvalidParameterError):
    """A number of steps is not a non-negative integer."""


class OutputTargetError(InvalidParameterError):
    """An output path cannot be written: a directory, or in a missing folder."""


class ConfigError(InvalidParameterError):
    """A configuration file or key is unknown or malformed."""


class MissingDependencyError(PrivfairError, ImportError):
    """An optional dependency, solver or device is needed and absent."""

    exit_code = 7


class ConvergenceError(PrivfairError, RuntimeError):
    """An algorithm ended without a usable answer or bound."""

    exit_code = 8


class SolverError(ConvergenceError):
    """An optimisation solver ended without an answer, or with one that fails its checks.

    Attributes
    ----------
    status : str
        What the solver said of itself.
    """

    def __init__(self, message: str, status: str = "") -> None:
        super().__init__(message)
        self.status = status


# --- privacy --------------------------------------------------------------------------------


class PrivacyError(PrivfairError):
    """A privacy guarantee cannot be given."""

    exit_code = 2


class WeakGuaranteeError(PrivacyError, ValueError):
    """Epsilon above 20 or delta of at least 1/n, without ``allow_weak=True``."""


class AccountingAssumptionError(PrivacyError, ValueError):
    """An assumption of the accountant does not hold, so that no bound would be valid."""


class IncompatibleNeighboringError(AccountingAssumptionError):
    """Events under different neighbouring relations or units cannot be composed."""


class UnsupportedEventError(PrivacyError, ValueError):
    """An event that the accountant cannot price; it is never skipped and never free."""


class NumericsError(PrivacyError, ValueError):
    """A mechanism's numerical class is weaker than allowed (see ``allow_idealized``)."""


class ForeignSamplerError(PrivacyError, TypeError):
    """Batches were drawn by a sampler that the accountant knows nothing about."""


class BudgetExceededError(PrivacyError):
    """A spend would pass the cap; raised before any data are touched.

    Attributes
    ----------
    remaining : Budget or None
        What is left under the cap.
    """

    exit_code = 5

    def __init__(self, message: str, remaining: object | None = None) -> None:
        super().__init__(message)
        self.remaining = remaining


class PrivacyContradictionError(PrivacyError):
    """An audited lower bound lies above the certified upper bound."""

    exit_code = 5


class LedgerError(PrivacyError):
    """A ledger cannot be opened, read or written."""

    exit_code = 4


class LogIntegrityError(LedgerError):
    """A hash-chained log was altered, truncated or is not one of ours."""


# --- data -----------------------------------------------------------------------------------


class DataError(PrivfairError, ValueError):
    """The data given cannot be used."""

    exit_code = 3


class DataIntegrityError(DataError):
    """A file does not have the checksum that its registry entry states."""

    exit_code = 4


class UnsafeFileError(DataError):
    """A file could execute code or exhaust memory when read."""

    exit_code = 4


class DataNotAvailableError(PrivfairError, FileNotFoundError):
    """A data set was not found and may not or cannot be downloaded."""

    exit_code = 3


class SchemaError(DataError):
    """Data and public schema do not fit each other, or the schema itself is malformed."""


class ColumnNotFoundError(DataError, KeyError):
    """A named column is not in the table."""

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0]) if self.args else ""


class LengthMismatchError(DataError):
    """Arrays that belong together have different lengths or row indices."""


class LabelError(DataError):
    """Labels or decisions are not of the kind that the method needs."""


class ProbabilityRangeError(DataError):
    """Scores given as probabilities lie outside [0, 1]."""


class SensitiveFeatureError(DataError):
    """A sensitive feature cannot be used as it is."""


class SingleGroupError(SensitiveFeatureError):
    """A sensitive feature has one group only, so that there is nothing to compare."""


class MissingSensitiveFeatureError(SensitiveFeatureError):
    """A sensitive feature has missing values and no policy for them was given."""


class SmallGroupError(DataError):
    """A group is too small for the computation asked for."""


# --- reports --------------------------------------------------------------------------------


class ReportError(PrivfairError):
    """A report cannot be built, read or rendered."""

    exit_code = 8


class SchemaVersionError(ReportError, ValueError):
    """A file was written by a newer or unreadable version of its schema."""

    exit_code = 4


# --- warnings: for utility only, never for a guarantee --------------------------------------


class PrivfairWarning(UserWarning):
    """Base class of privfair's warnings."""


class UtilityWarning(PrivfairWarning):
    """A result is valid and probably less useful than it could be."""


class ConvergenceWarning(PrivfairWarning):
    """An answer is returned whose proven error is above the tolerance asked for."""


class SmallSampleWarning(PrivfairWarning):
    """An estimate rests on few observations."""


class DataVerificationWarning(PrivfairWarning):
    """A data file was used although its checksum does not match (``verify=False``)."""
