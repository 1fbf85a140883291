"""What every test of privfair runs under: no network, known data, reproducible examples."""

from __future__ import annotations

import os
import random
import re
import socket
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

from privfair.core import randomness

ROOT = Path(__file__).resolve().parent
NO_REAL_DATA = "real data absent"
os.environ.setdefault("MPLBACKEND", "agg")
_STRICT = os.environ.get("STRICT_DATA", "") not in {"", "0"}


# -- data ---------------------------------------------------------------------------------
def _find_real_data() -> Path | None:
    """Return the folder that `make` would use, so that a bare `pytest` sees the same data."""
    given = os.environ.get("PRIVFAIR_DATA_DIR")
    if given is not None:
        return Path(given).resolve() if given and Path(given).is_dir() else None
    line = re.search(
        r"^PRIVFAIR_DATA_DIR \?= \$\(firstword \$\(wildcard (.+)\)\)$",
        (ROOT / "Makefile").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for name in line.group(1).split() if line else []:
        if (ROOT / name).is_dir():
            return (ROOT / name).resolve()
    return None


_REAL_DATA = _find_real_data()
if _REAL_DATA is None:
    os.environ.pop("PRIVFAIR_DATA_DIR", None)
else:
    os.environ["PRIVFAIR_DATA_DIR"] = str(_REAL_DATA)


@pytest.fixture(scope="session")
def real_data_dir() -> Path:
    """The folder with the real data sets; the test is skipped where there is none."""
    if _REAL_DATA is None:
        pytest.skip(f"{NO_REAL_DATA}: set PRIVFAIR_DATA_DIR, or put the files into ./data")
    return _REAL_DATA


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
    """Turn skips for want of real data into failures where STRICT_DATA=1."""
    report = yield
    if (
        _STRICT
        and report.skipped
        and isinstance(report.longrepr, tuple)
        and NO_REAL_DATA in report.longrepr[2]
    ):
        report.outcome = "failed"
        report.longrepr = f"STRICT_DATA=1, but this test was skipped: {report.longrepr[2]}"
    return report


def _data_state() -> str:
    return "found" if _REAL_DATA is not None else "absent"


def pytest_report_header() -> list[str]:
    suffix = ", STRICT_DATA=1: a skip for want of it is a failure" if _STRICT else ""
    return [f"real data: {_data_state()}{suffix}"]


def pytest_terminal_summary(terminalreporter: Any) -> None:
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and NO_REAL_DATA in report.longrepr[2]
    ]
    terminalreporter.write_line(f"real data: {_data_state()}, {len(skipped)} skipped")


# -- network ------------------------------------------------------------------------------
class NetworkBlockedError(RuntimeError):
    """A test tried to leave this machine."""


_network_allowed = False
_real_connect = socket.socket.connect
_real_connect_ex = socket.socket.connect_ex
_real_getaddrinfo = socket.getaddrinfo
_LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}


def _refuse(host: object) -> None:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not _network_allowed and host not in _LOCAL and host != socket.gethostname():
        raise NetworkBlockedError(
            f"A test tried to reach {host!r}. Tests run without a network; mark it `network` "
            "if it must have one."
        )


def _connect(self: socket.socket, address: Any) -> Any:
    if self.family in {socket.AF_INET, socket.AF_INET6}:
        _refuse(address[0])
    return _real_connect(self, address)


def _connect_ex(self: socket.socket, address: Any) -> Any:
    if self.family in {socket.AF_INET, socket.AF_INET6}:
        _refuse(address[0])
    return _real_connect_ex(self, address)


def _getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
    _refuse(host)
    return _real_getaddrinfo(host, *args, **kwargs)


socket.socket.connect = _connect  # type: ignore[method-assign]
socket.socket.connect_ex = _connect_ex  # type: ignore[method-assign]
socket.getaddrinfo = _getaddrinfo


@pytest.fixture(autouse=True)
def _no_network(request: pytest.FixtureRequest) -> Iterator[None]:
    global _network_allowed
    _network_allowed = request.node.get_closest_marker("network") is not None
    yield
    _network_allowed = False


# -- how many tests there are -------------------------------------------------------------
_COUNTS = pytest.StashKey[dict[str, int]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Count the tests by folder, for the floor that `tests/test_tests.py` asserts."""
    counts: dict[str, int] = {}
    for item in items:
        relative = item.path.relative_to(ROOT)
        room = "/".join(relative.parts[:2])
        counts[room] = counts.get(room, 0) + 1
    config.stash[_COUNTS] = counts


@pytest.fixture(scope="session")
def collected_counts(pytestconfig: pytest.Config) -> dict[str, int]:
    """How many tests each folder (or file at the top of `tests`) brought into this run."""
    return pytestconfig.stash[_COUNTS]


# -- randomness ---------------------------------------------------------------------------
_REPEATS = os.environ.get("HYPOTHESIS_PROFILE", "default") == "default"


class _RepeatedEntropy:
    """Stand in for the operating system's entropy: new bytes for each call, the same per run.

    What asks for secret noise, or for a generator without a seed, runs as it would otherwise,
    unseeded in every respect that it can see, and cannot fail by chance. A forked child is given
    real entropy, for it would repeat its parent's.
    """

    def __init__(self) -> None:
        self._source: random.Random | None = None
        self._process = os.getpid()

    def seed(self, name: str | None) -> None:
        self._source = None if name is None else random.Random(name)

    def urandom(self, n: int) -> bytes:
        if self._source is None or os.getpid() != self._process:
            return os.urandom(n)
        return self._source.randbytes(n)


_entropy = _RepeatedEntropy()
if _REPEATS:
    randomness.os = _entropy  # type: ignore[attr-defined]
    random._urandom = _entropy.urandom  # type: ignore[attr-defined]  # numpy and secrets read it


def _seed(name: str, *, entropy: bool = False) -> None:
    """Seed by a name all that has no seed, so that it repeats in every order and process."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - this is the generator that is meant
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(seed)
    if _REPEATS:
        _entropy.seed(None if entropy else name)
        randomness._drop_all()  # what a stream shared by several tests has left over


def pytest_configure(config: pytest.Config) -> None:
    """Leave the order of the tests to pytest-randomly, and the seeds to the hooks below.

    It seeds each test anew in every run: what touches a global generator would then pass or
    fail by chance.
    """
    if hasattr(config.option, "randomly_reset_seed"):
        config.option.randomly_reset_seed = False


def pytest_collectstart(collector: pytest.Collector) -> None:
    _seed(collector.nodeid)  # modules draw as they are imported


def _seed_for(item: pytest.Item) -> None:
    _seed(item.nodeid, entropy=item.get_closest_marker("entropy") is not None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    _seed_for(item)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Iterator[Any]:
    """Let a fixture that tests share not depend on which of them comes first."""
    if fixturedef.scope == "function":
        return (yield)
    _seed(f"{fixturedef.baseid}::{fixturedef.argname}[{request.param_index}]")
    try:
        return (yield)
    finally:
        _seed_for(request._pyfuncitem)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _seed_for(item)


# -- mutmut -------------------------------------------------------------------------------
if "MUTANT_UNDER_TEST" in os.environ and not hasattr(pytest.Item, "_nodeid"):
    # mutmut 3.8 reads an attribute that pytest 9.2 no longer has.
    pytest.Item._nodeid = property(lambda self: self.nodeid)  # type: ignore[attr-defined]


# -- hypothesis ---------------------------------------------------------------------------
# By default the same examples in every run: a red build means that the code changed. Hypothesis
# would also draw the literals of all modules imported so far, which follow the order of the
# tests and every edit of an unrelated file.
if _REPEATS:
    providers._get_local_constants = lambda: providers._local_constants
settings.register_profile(
    "default",
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("nightly", max_examples=5_000, deadline=None, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
