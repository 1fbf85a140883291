"""What starting costs: CPU time of imports and of light commands, beside an empty interpreter.

Budgets: `privfair --help` < 0.5 s, `privfair accountant epsilon` < 3 s, both on an idle machine.
The other commands of the accountant are there to compare with it.
CPU time of the child process, median of seven starts; the first start, which may compile bytecode,
is left out.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from pathlib import Path

from _record import record

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 7
PLAN = "--noise-multiplier 1.1 --sample-rate 0.01 --steps 1000"


def _accountant(line: str) -> list[str]:
    return ["-m", "privfair", "accountant", *line.split()]


CASES = {
    "empty interpreter": ["-c", "pass"],
    "import privfair": ["-c", "import privfair"],
    "privfair --help": ["-m", "privfair", "--help"],
    "privfair accountant --help": ["-m", "privfair", "accountant", "--help"],
    "privfair accountant epsilon": _accountant(f"epsilon {PLAN} --delta 1e-5"),
    "privfair accountant noise": _accountant(
        "noise --epsilon 1 --sample-rate 0.01 --steps 1000 --delta 1e-5"
    ),
    "privfair accountant delta": _accountant(f"delta --epsilon 1.5 {PLAN}"),
    "privfair accountant curve": _accountant(f"curve {PLAN} --delta 1e-5"),
    "privfair accountant compare": _accountant(f"compare {PLAN} --delta 1e-5"),
    "privfair accountant validate": _accountant(f"validate --epsilon 1.6 {PLAN} --delta 1e-5"),
    "privfair accountant explain": _accountant("explain --epsilon 1 --delta 1e-5"),
    "import click": ["-c", "import click"],
    "import pandas": ["-c", "import pandas"],
    "import torch": ["-c", "import torch"],
}  # fmt: skip


def cpu_seconds(arguments: list[str]) -> float:
    """Return the CPU time of one start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def main() -> None:
    results: dict[str, object] = {}
    empty = None
    for name, arguments in CASES.items():
        cpu_seconds(arguments)
        seconds = [cpu_seconds(arguments) for _ in range(REPEATS)]
        median = statistics.median(seconds)
        empty = median if empty is None else empty
        results[name] = {
            "cpu_seconds": [round(value, 4) for value in seconds],
            "median": round(median, 4),
            "times_an_empty_interpreter": round(median / empty, 2),
        }
    record("startup", results)


if __name__ == "__main__":
    main()
