"""At no width of the terminal is a number cut or a group's name lost."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from privfair.report import AuditConfig, audit, print_text


@pytest.fixture(scope="module")
def result():
    rng = np.random.default_rng(0)
    n = 600
    groups = np.array(["Amer-Indian-Eskimo", "Asian-Pac-Islander", "White"])[
        rng.integers(3, size=n)
    ]
    y = rng.integers(2, size=n)
    return audit(
        {"first model": (rng.random(n) < 0.4 + 0.2 * y).astype(int)},
        None,
        y,
        sensitive_features={"race": groups},
        config=AuditConfig(n_resamples=100),
    )


def shown(result, width):
    stream = io.StringIO()
    print_text(result, Console(file=stream, width=width, color_system=None))
    return stream.getvalue()


@pytest.mark.parametrize("width", [32, 40, 50, 60, 72, 80, 100, 200])
def test_every_interval_and_every_group_is_whole(result, width):
    text = shown(result, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    opened = len(re.findall(r"\[(?=[-−\d])", text))
    closed = len(re.findall(r"\[[-−\d.,\s]+\]", text))
    assert opened == closed > 10
    together = re.sub(r"\s+", "", text)
    for name in ("Amer-Indian-Eskimo", "Asian-Pac-Islander", "White"):
        assert name in together or width < 100 and _folded(name, text)


def _folded(name, text):
    """Whether the name stands in the first column, broken over lines of at least ten letters."""
    column = [line[:20].split("  ")[0].strip() for line in text.splitlines()]
    return name in "".join(column)


def test_wide_and_narrow_show_the_same_intervals(result):
    def intervals(width):
        flat = re.sub(r"\s+", " ", shown(result, width))
        return sorted(re.sub(r"\s", "", found) for found in re.findall(r"\[[-−\d., ]+\]", flat))

    assert intervals(200) == intervals(50) == intervals(80)
