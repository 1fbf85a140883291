"""From an exception to one line on stderr and the exit code that scripts rely on."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["ExitCode", "combine_exit_codes", "exit_code_of", "message_of"]


class ExitCode:
    """The exit codes: documented in docs/reference/cli.md, tested one by one."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    INTEGRITY = 4
    PRIVACY = 5
    FAIL_ON = 6
    MISSING = 7
    NOT_CONVERGED = 8
    INTERRUPTED = 130
    BROKEN_PIPE = 141


# If several things went wrong, the one that casts most doubt on the rest is reported.
_PRECEDENCE = (
    ExitCode.INTERRUPTED,
    ExitCode.INTEGRITY,
    ExitCode.PRIVACY,
    ExitCode.DATA,
    ExitCode.NOT_CONVERGED,
    ExitCode.MISSING,
    ExitCode.FAIL_ON,
    ExitCode.USAGE,
    ExitCode.INTERNAL,
)


def combine_exit_codes(codes: Iterable[int]) -> int:
    """Return the code that stands for several (4 before 5, 3, 8, 7 and 6).

    Examples
    --------
    >>> combine_exit_codes([6, 0, 5]), combine_exit_codes([]), combine_exit_codes([8, 7])
    (5, 0, 8)
    """
    present = {code for code in codes if code != ExitCode.OK}
    for code in _PRECEDENCE:
        if code in present:
            return code
    return max(present, default=ExitCode.OK)


def exit_code_of(error: BaseException) -> int:
    """Return the exit code of an exception; of a group, the combined one."""
    if isinstance(error, BaseExceptionGroup):
        return combine_exit_codes(exit_code_of(inner) for inner in error.exceptions)
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, click.FileError):
        return ExitCode.DATA
    # PrivfairError and click's errors say it themselves.
    own = getattr(error, "exit_code", None)
    if isinstance(own, int) and not isinstance(own, bool):
        return own
    if isinstance(error, BrokenPipeError):
        return ExitCode.BROKEN_PIPE
    if isinstance(
        error,
        FileNotFoundError
        | PermissionError
        | IsADirectoryError
        | NotADirectoryError
        | FileExistsError
        | UnicodeDecodeError,
    ):
        return ExitCode.DATA
    if isinstance(error, ImportError):
        return ExitCode.MISSING
    return ExitCode.INTERNAL


def message_of(error: BaseException) -> str:
    """Return what the user is told: what happened, without a traceback."""
    if isinstance(error, BaseExceptionGroup):
        return "\n".join(message_of(inner) for inner in error.exceptions)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = str(error).strip()
    if exit_code_of(error) == ExitCode.INTERNAL and not hasattr(error, "exit_code"):
        # The message of an unforeseen error may quote data; its class cannot.
        return (
            f"unexpected {type(error).__name__}. This is a defect in privfair; "
            "run again with -vv for the traceback, and please report it without private data."
        )
    return text or type(error).__name__
