"""``privfair doctor``: can this machine do what privfair promises?"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from privfair import __version__
from privfair.cli._common import ExitCode, clean, example, finish, output

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Check", "command"]

OK, NOTE, MISSING = "ok", "note", "missing"
_MARK = {OK: "ok", NOTE: "--", MISSING: "MISSING"}


@dataclass(frozen=True)
class Check:
    """One line of the examination.

    Attributes
    ----------
    area : str
        Environment, packages, solvers, devices, data, ledger or randomness.
    name : str
        What was looked at.
    status : str
        "ok"; "note" for what works and may surprise; "missing" for what privfair needs.
    detail : str
        What was found, and what to do about it.
    """

    area: str
    name: str
    status: str
    detail: str


def _environment() -> Iterator[Check]:
    version = platform.python_version()
    supported = sys.version_info >= (3, 11)
    yield Check(
        "environment", "python", OK if supported else MISSING,
        version if supported else f"{version}; privfair needs 3.11 or newer",
    )  # fmt: skip
    yield Check("environment", "platform", OK, f"{platform.system()} {platform.machine()}")
    yield Check("environment", "privfair", OK, __version__)
    cores = os.cpu_count() or 1
    yield Check("environment", "cores", OK, str(cores))


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str]:
    """Return what the installed privfair asks for, from its own metadata."""
    try:
        return list(importlib.metadata.requires("privfair") or [])
    except importlib.metadata.PackageNotFoundError:
        source = Path(__file__).resolve().parents[2] / "pyproject.toml"
        if not source.is_file():
            return []
        import tomllib

        project = tomllib.loads(source.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {})
        return [
            *project["dependencies"],
            *(f"{need}; extra == '{name}'" for name, needs in extras.items() for need in needs),
        ]


def _pins() -> dict[str, str]:
    """Return the verified versions, where the source tree with constraints.txt is at hand."""
    source = Path(__file__).resolve().parents[2] / "constraints.txt"
    if not source.is_file():
        return {}
    lines = source.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def _packages() -> Iterator[Check]:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = _pins()
    extras: dict[str, list[str]] = {}
    for text in _requirements():
        need = Requirement(text)
        if need.marker is not None and "extra" in str(need.marker):
            extra = str(need.marker).split("extra ==")[-1].strip(" '\"")
            extras.setdefault(extra, []).append(need.name)
            continue
        found = _installed(need.name)
        if found is None:
            detail = f"not installed; needed: {need.name}{need.specifier}"
            yield Check("packages", need.name, MISSING, detail)
        elif not need.specifier.contains(found, prereleases=True):
            detail = f"{found}; needed: {need.name}{need.specifier}"
            yield Check("packages", need.name, MISSING, detail)
        else:
            pin = pins.get(canonicalize_name(need.name))
            same = pin is None or found.split("+")[0] == pin
            detail = found if same else f"{found}; verified with {pin}"
            yield Check("packages", need.name, OK if same else NOTE, detail)
    for extra, names in sorted(extras.items()):
        if extra in {"dev", "docs"}:
            continue
        absent = [name for name in names if _installed(name) is None]
        detail = f"not installed: pip install 'privfair[{extra}]'" if absent else "installed"
        yield Check("packages", f"[{extra}]", NOTE if absent else OK, detail)


def _solvers() -> Iterator[Check]:
    try:
        import cvxpy
    except ImportError as error:
        yield Check("solvers", "cvxpy", MISSING, f"cannot be imported: {error}")
        return
    present = set(cvxpy.installed_solvers())
    for name in ("CLARABEL", "SCS", "OSQP", "HIGHS"):
        needed = name == "CLARABEL"
        status = OK if name in present else MISSING if needed else NOTE
        yield Check("solvers", name, status, "present" if name in present else "absent")


def _devices() -> Iterator[Check]:
    try:
        import torch
    except ImportError as error:
        yield Check("devices", "torch", MISSING, f"cannot be imported: {error}")
        return
    yield Check("devices", "cpu", OK, f"{torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield Check("devices", f"cuda:{index}", OK, torch.cuda.get_device_name(index))
    else:
        yield Check("devices", "cuda", NOTE, "no CUDA device; training runs on the CPU")


def _data() -> Iterator[Check]:
    folder = os.environ.get("PRIVFAIR_DATA_DIR")
    if not folder:
        yield Check(
            "data", "PRIVFAIR_DATA_DIR", NOTE,
            "not set; without real files the embedded editions are used, and said so",
        )  # fmt: skip
    elif not Path(folder).is_dir():
        yield Check("data", "PRIVFAIR_DATA_DIR", NOTE, f"{folder} is not a folder")
    else:
        yield Check("data", "PRIVFAIR_DATA_DIR", OK, folder)
    yield from _known_sets()


def _known_sets() -> Iterator[Check]:
    """Say which data sets are found; reading and hashing them is `privfair data verify`."""
    from privfair.datasets import available_datasets, dataset_info, is_available

    for name in available_datasets():
        if is_available(name):
            yield Check("data", name, OK, "found; `privfair data verify` compares checksums")
        elif dataset_info(name)["embedded"]:
            yield Check("data", name, NOTE, "absent; an embedded private edition stands in")
        else:
            yield Check("data", name, NOTE, f"absent; see `privfair data info {name}`")


def _ledger() -> Iterator[Check]:
    """Write, sync and remove a file where a ledger would go."""
    for label, find in (("current folder", os.getcwd), ("temporary", tempfile.gettempdir)):
        try:
            folder = find()
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".privfair-doctor-") as file:
                file.write(b"probe")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            detail = f"cannot be written ({error.strerror}); give --ledger a path that can"
            yield Check("ledger", label, NOTE, detail)
        else:
            yield Check("ledger", label, OK, f"{folder} can be written and synced")


def _randomness() -> Iterator[Check]:
    """Draw from the operating system twice; look for a stuck or a biased source.

    A fair source fails one of the two tests with probability below 1e-9.
    """
    try:
        first, second = os.urandom(1 << 16), os.urandom(1 << 16)
    except NotImplementedError:
        yield Check("randomness", "operating system", MISSING, "no source of entropy")
        return
    n_bits = 8 * (len(first) + len(second))
    ones = int.from_bytes(first + second, "big").bit_count()
    # 7 standard deviations of Binomial(n, 1/2).
    biased = abs(ones - n_bits / 2) > 7 * (n_bits / 4) ** 0.5
    if first == second or biased:
        detail = "the source repeats itself or is biased: do not release anything from here"
        yield Check("randomness", "operating system", MISSING, detail)
    else:
        yield Check("randomness", "operating system", OK, "two draws differ, bits are balanced")
    yield _secret_stream()


def _secret_stream() -> Check:
    from privfair.core.randomness import secret_stream

    one, two = secret_stream(), secret_stream()
    draws = [stream.bytes(32) for stream in (one, two, one)]
    if len(set(draws)) == len(draws):
        return Check("randomness", "secret stream", OK, "independent draws differ")
    return Check(
        "randomness", "secret stream", MISSING, "a draw repeated: do not release anything"
    )


_AREAS: tuple[Callable[[], Iterator[Check]], ...] = (
    _environment, _packages, _solvers, _devices, _data, _ledger, _randomness,
)  # fmt: skip


def examine() -> list[Check]:
    """Run all checks; one that fails to run is itself a finding."""
    checks: list[Check] = []
    for area in _AREAS:
        try:
            checks.extend(area())
        except Exception as error:
            name = area.__name__.strip("_")
            detail = f"the check ended with {type(error).__name__}"
            checks.append(Check(name, name, MISSING, detail))
    return checks


def _table(checks: list[Check]) -> Callable[[Console], None]:
    def render(console: Console) -> None:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for heading in ("area", "what", "status", "found"):
            table.add_column(heading, overflow="fold")
        style = {OK: "green", NOTE: "yellow", MISSING: "bold red"}
        for check in checks:
            table.add_row(
                check.area, Text(clean(check.name)),
                Text(_MARK[check.status], style=style[check.status]), Text(clean(check.detail)),
            )  # fmt: skip
        console.print(table)
        missing = sum(check.status == MISSING for check in checks)
        console.print(
            f"{missing} requirement(s) missing." if missing else "All requirements are met."
        )

    return render


@click.command()
@example("privfair doctor")
def command() -> None:
    """Check the environment: versions, solvers, devices, data, ledger and randomness.

    Ends with exit code 7 if something that privfair needs is missing.
    """
    checks = examine()
    missing = any(check.status == MISSING for check in checks)
    payload = {
        "version": __version__,
        "status": MISSING if missing else OK,
        "checks": [asdict(check) for check in checks],
    }
    output(payload, _table(checks))
    finish(ExitCode.MISSING if missing else ExitCode.OK)
