"""Write a benchmark's results with what is needed to repeat and to doubt them."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import resource
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = ("numpy", "scipy", "pandas", "scikit-learn", "torch", "fairlearn", "dp-accounting")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.processor()


def _revision() -> str:
    run = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=RESULTS.parent, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    return run.stdout.strip() or "unknown"


def record(
    name: str, results: Mapping[str, Any], *, seeds: Mapping[str, int] | None = None
) -> Path:
    """Write ``benchmarks/results/<name>.json`` and print what it holds.

    Parameters
    ----------
    name : str
        The benchmark.
    results : mapping
        Raw values first, summaries of them second; ratios within one run rather than seconds.
    seeds : mapping, optional
        The seeds used, by what they seed.
    """
    payload = {
        "benchmark": name,
        "results": dict(results),
        "seeds": dict(seeds or {}),
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "revision": _revision(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": {package: _version(package) for package in PACKAGES},
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(payload, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(json.dumps(payload["results"], indent=2))
    print(f"written: {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return path


def record_part(
    name: str, part: str, found: Mapping[str, Any], *, seeds: Mapping[str, int] | None = None
) -> Path:
    """Write one part of a benchmark's results and keep the others as they were.

    ``runs`` in the results says of each part when it ran and at which revision, and of a part
    that was run in pieces of which cells that is true.

    Parameters
    ----------
    name : str
        The benchmark.
    part : str
        Key of its results; ``"part: cell"`` replaces one cell within a part.
    found : mapping
        The new values, of the part or of the cell.
    seeds : mapping, optional
        As for :func:`record`.
    """
    path = RESULTS / f"{name}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"results": {}}
    results = old["results"]
    origin = {key: old.get(key) for key in ("revision", "when")}
    runs = results.pop("runs", dict.fromkeys(results, origin))
    key, _, cell = part.partition(": ")
    if cell:
        results.setdefault(key, {})[cell] = dict(found)
    else:
        results[key] = dict(found)
        runs = {run: value for run, value in runs.items() if not run.startswith(f"{key}: ")}
    record(name, {**results, "runs": runs}, seeds=seeds)
    new = json.loads(path.read_text(encoding="utf-8"))
    new["results"]["runs"][part] = {key: new[key] for key in ("revision", "when")}
    path.write_text(json.dumps(new, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return path
