"""What the code may import, what it may draw and what it may mention."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import privfair

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "privfair"
HEAVY = ("torch", "cvxpy", "matplotlib", "sklearn", "opacus", "fairlearn")


# -- floors -------------------------------------------------------------------------------
def test_imports_only_go_down_the_floors() -> None:
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 kept, 0 broken" in run.stdout, run.stdout


def test_the_contract_notices_an_upward_import(tmp_path: Path) -> None:
    """The contract itself is tested on a small house that breaks it."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text("utf-8"))
    for room, source in {"core": "import privfair.report\n", "report": ""}.items():
        (tmp_path / "privfair" / room).mkdir(parents=True)
        (tmp_path / "privfair" / room / "__init__.py").write_text(source)
    (tmp_path / "privfair" / "__init__.py").write_text("")
    run = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as c; c()",
            "--no-cache",
        ],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode != 0, run.stdout
    assert "privfair.core is not allowed to import privfair.report" in run.stdout, run.stdout


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text("utf-8"), str(path))


# Private modules that another room may use, with the reason.
SHARED_PRIVATE = {
    "privfair.core._lazy": "the one helper behind every package's lazy public names",
    "privfair.core._format": "directed rounding and JSON-safe numbers, for all that show one",
    "privfair.core._validation": "the validators, whose messages name parameter and value",
}

# A command group is the other face of one room, and may use its internals.
FRONTS = {
    "privfair/cli/data.py": "datasets",
    "privfair/cli/ledger.py": "accounting",
    **{
        path.relative_to(ROOT).as_posix(): "ldp" for path in (PACKAGE / "cli" / "ldp").glob("*.py")
    },
}


def test_no_room_reaches_into_the_private_modules_of_another() -> None:
    found = []
    for name, tree in _modules():
        room = name.split("/")[1]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                targets = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            else:
                continue
            for target in targets:
                parts = target.split(".")
                private = [
                    part
                    for part in parts[2:]
                    if part.startswith("_") and not part.startswith("__")
                ]
                if (
                    parts[0] == "privfair"
                    and len(parts) > 2
                    and private
                    and parts[1] not in {room, FRONTS.get(name)}
                    and not any(target.startswith(allowed) for allowed in SHARED_PRIVATE)
                ):
                    found.append(f"{name}:{node.lineno} {target}")
    assert not sorted(set(found))


# -- what an import loads -----------------------------------------------------------------
def loaded_by(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has loaded after `code`."""
    probe = (
        f"{code}\nimport sys\n"
        f"print('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    line = next(line for line in run.stdout.splitlines() if line.startswith("LOADED"))
    return set(line.split()[1:])


def test_the_probe_sees_a_heavy_import() -> None:
    assert loaded_by("import matplotlib") == {"matplotlib"}


@pytest.mark.parametrize(
    "module",
    [
        "privfair",
        "privfair.core",
        "privfair.accounting",
        "privfair.mechanisms",
        "privfair.preprocessing",
        "privfair.datasets",
        "privfair.training",
        "privfair.dp",
        "privfair.fairness",
        "privfair.report",
        "privfair.auditing",
    ],
)
def test_importing_a_room_loads_nothing_heavy(module: str) -> None:
    if not (ROOT / (module.replace(".", "/")) / "__init__.py").is_file():
        pytest.skip(f"{module} is not in this edition")
    assert loaded_by(f"import {module}") == set()


def test_public_names_resolve() -> None:
    assert set(privfair.__all__) <= set(dir(privfair))
    for name in privfair.__all__:
        assert getattr(privfair, name) is not None
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", privfair.__version__)


# -- noise --------------------------------------------------------------------------------
# Rooms whose task is to draw noise for privacy.
NOISE_ROOMS = ("privfair/mechanisms/", "privfair/ldp/", "privfair/core/randomness.py")
# Anything else that draws random numbers, by file, with the reason why no guarantee rests on
# it. An entry that no longer matches anything is an error.
NOT_PRIVACY_NOISE: dict[str, str] = {
    "privfair/auditing/_canaries.py": "which public rows and corners become canaries",
    "privfair/auditing/_lira.py": "which half of the candidates each shadow model sees",
    "privfair/core/statistics/_bootstrap.py": "bootstrap resampling of data already held",
    "privfair/fairness/aglfop/_fresh.py": "bootstrap of a table already held, by random_state",
    "privfair/fairness/aglfop/_postprocessor.py": "decisions drawn from a rule already made",
    "privfair/fairness/_contingency.py": "simulated noise for intervals, from random_state",
    "privfair/fairness/metrics/_resample.py": "bootstrap and permutation seeds and draws",
    "privfair/fairness/pid/_private.py": "simulated releases for an interval; no data behind them",
    "privfair/fairness/pid/_tests.py": "permutations of data already held",
    "privfair/fairness/pid/_uncertainty.py": "resampling of data already held",
    "privfair/fairness/sep/_null.py": "null gaps of a table already held or released",
    "privfair/core/statistics/_permutation.py": "the null of a raw metric, from random_state",
    "privfair/fairness/metrics/_calibration.py": "random errors of intervals, from random_state",
    "privfair/fairness/metrics/_score_table.py": "bootstrap and permutation, from random_state",
    "privfair/fairness/sep/_classifier.py": "draws of randomised decisions, from random_state",
    "privfair/fairness/sep/_minibatch.py": "the order of rows in batches",
    "privfair/fairness/sep/_network.py": "initial weights of hidden layers",
    "privfair/fairness/dcov/_calibrate.py": "the seed of the folds, from random_state",
    "privfair/fairness/dcov/_independence.py": "the null of a raw test, from random_state",
    "privfair/fairness/dcov/_jsd.py": "the null of a raw divergence, from random_state",
    "privfair/fairness/dcov/_table.py": "the null of a raw metric, from random_state",
    "privfair/fairness/dcov/_sliced.py": "directions of projections, from random_state",
    "privfair/testing/_metric.py": "made-up decisions with which a metric is tried",
    "privfair/testing/_penalty.py": "made-up scores with which a penalty's bound is attacked",
    "privfair/datasets/_lookalike.py": "synthetic rows from published rates; no data behind them",
    "privfair/synthesis/_coding.py": "numbers inside a public bin, after the release",
    "privfair/synthesis/_one_way.py": "rows drawn from counts already released",
    "privfair/dp/_search.py": "public positions for validation, seeds of initial weights",
    "privfair/dp/forecasting/_forecaster.py": "seeds of trees and of runs on released rows",
    "privfair/dp/forecasting/_networks.py": "initial weights of recurrent layers",
    "privfair/fairness/dcov/_network.py": "the order of rows in training without privacy",
    "privfair/training/_base.py": "the seed of a run without privacy, taken from random_state",
    "privfair/training/_models.py": "initial weights of hidden layers",
}
DRAWS = {
    "normal",
    "standard_normal",
    "laplace",
    "gumbel",
    "exponential",
    "standard_exponential",
    "gamma",
    "standard_gamma",
    "poisson",
    "geometric",
    "binomial",
    "multinomial",
    "multivariate_normal",
    "standard_cauchy",
    "logistic",
    "random",
    "integers",
    "uniform",
    "choice",
    "permutation",
    "shuffle",
    "permuted",
    "rvs",
    "hypergeometric",
    "multivariate_hypergeometric",
    "negative_binomial",
    "dirichlet",
    "zipf",
    "standard_t",
    "random_raw",
    "normal_",
    "uniform_",
    "exponential_",
    "bernoulli_",
    "geometric_",
    "cauchy_",
    "log_normal_",
    "random_",
}
TORCH_DRAWS = {
    "randn",
    "randn_like",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randperm",
    "normal",
    "bernoulli",
    "poisson",
    "multinomial",
    "binomial",
}
NUMPY_TYPES = {"Generator", "SeedSequence", "BitGenerator", "RandomState", "PCG64", "Philox"}


def _dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def random_draws(tree: ast.Module) -> list[tuple[int, str]]:
    """Find what draws random numbers: calls, and imports of generators."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            module = getattr(node, "module", None) or ""
            for name in names:
                full = f"{module}.{name}" if module else name
                if full.split(".")[0] in {"random", "secrets"} or full.startswith(
                    ("numpy.random", "torch.distributions")
                ):
                    found.append((node.lineno, f"import {full}"))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            dotted = _dotted(node.func)
            head, tail = dotted.split(".")[0], node.func.attr
            if head == "torch":
                draws = tail in TORCH_DRAWS
            elif dotted.startswith(("np.random.", "numpy.random.")):
                draws = tail not in NUMPY_TYPES
            else:
                draws = tail in DRAWS
            if draws:
                found.append((node.lineno, dotted))
    return found


def test_the_search_for_noise_finds_it() -> None:
    bad = {
        "import torch\ntorch.randn(3)": 1,
        "import numpy as np\nnp.random.normal()": 1,
        "rng.standard_normal(3)": 1,
        "self._rng.laplace(0, 1)": 1,
        "t.normal_(0, 1)": 1,
        "scipy.stats.norm.rvs(size=3)": 1,
        "import random": 1,
        "from numpy.random import default_rng": 1,
        "np.random.default_rng(3)": 1,
        "def f(rng: np.random.Generator) -> None: ...": 0,
        "x.sum()": 0,
    }
    for source, count in bad.items():
        assert len(random_draws(ast.parse(source))) == count, source


def test_privacy_noise_is_drawn_in_its_rooms_only() -> None:
    drawing = {
        name: random_draws(tree) for name, tree in _modules() if not name.startswith(NOISE_ROOMS)
    }
    drawing = {name: draws for name, draws in drawing.items() if draws}
    unexplained = {name: draws for name, draws in drawing.items() if name not in NOT_PRIVACY_NOISE}
    assert not unexplained, (
        "These files draw random numbers. Draw privacy noise in privfair.mechanisms or "
        "privfair.ldp; if no guarantee rests on the draw, list the file with the reason."
    )
    stale = set(NOT_PRIVACY_NOISE) - set(drawing)
    assert not stale, "these entries no longer match anything"


# Where the secret stream may be opened: noise, Poisson sampling, canaries, local randomisers.
SECRET_STREAM_ROOMS = (
    "privfair/core/",
    "privfair/mechanisms/",
    "privfair/training/",
    "privfair/ldp/",
    "privfair/auditing/",
    "privfair/dp/_search.py",  # how many runs a search makes, and with which settings
    "privfair/cli/doctor.py",
    "privfair/testing/_mechanism.py",  # watches it, to see that a charge comes first
)


def test_the_secret_stream_is_opened_in_its_rooms_only() -> None:
    users = {
        name
        for name, tree in _modules()
        for node in ast.walk(tree)
        if (isinstance(node, ast.Name) and node.id in {"secret_stream", "SecretStream"})
        or (isinstance(node, ast.Attribute) and node.attr in {"secret_stream", "SecretStream"})
    }
    assert "privfair/core/randomness.py" in users, "the search finds it"
    assert not {name for name in users if not name.startswith(SECRET_STREAM_ROOMS)}


# -- what committed files mention ---------------------------------------------------------
def _tracked() -> list[Path]:
    run = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if run.returncode == 0 and run.stdout:
        return [ROOT / name for name in run.stdout.split("\0") if name]
    ignored = {".venv", ".git", "build", "dist", "reports", "_build", "__pycache__"}
    return [p for p in ROOT.rglob("*") if p.is_file() and not ignored & set(p.parts)]


# Written in pieces, so that this file does not contain what it forbids.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w./])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me|Us" + r"ers)/\w",
    "a registry's host": r"py" + r"pi\.org|python" + r"hosted\.org|download\.py" + r"torch\.org"
    r"|registry\.np" + r"mjs|/opt/py" + r"pi",
    "a page outside this repository": r"\bspe" + r"cs/|\bsha" + r"red/|\bDESI" + r"GN\.md"
    r"|\bDECIS" + r"IONS\b|\bBRI" + r"EF\.md",
}
DATA_PATH_LINE = "PRIVFAIR_DATA_DIR ?= $(firstword $(wildcard data ../sha" + "red/datasets))"


def forbidden_in(text: str) -> list[str]:
    text = text.replace(DATA_PATH_LINE, "")
    return [
        f"{what}: {match.group(0)!r}"
        for what, pattern in FORBIDDEN.items()
        for match in re.finditer(pattern, text)
    ]


def test_the_search_for_mentions_finds_them() -> None:
    assert forbidden_in("see spe" + "cs/x.md")
    assert forbidden_in("open /wo" + "rk/main")
    assert forbidden_in("index-url = https://py" + "pi.org/simple")
    assert not forbidden_in("https://doi.org/10.24432/C5XW20 and a/workbook/x and homework/")


def test_no_committed_file_mentions_what_it_must_not() -> None:
    found = {}
    for path in _tracked():
        try:
            text = path.read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        if hits := forbidden_in(text):
            found[path.relative_to(ROOT).as_posix()] = hits[:3]
    assert not found


def test_no_personal_or_generated_file_is_committed() -> None:
    # The ledgers of the embedded editions hold their whole budget, and no data.
    kept = {ROOT / "datasets" / "releases" / f"{name}.ledger.db" for name in ("adult", "compas")}
    bad = [
        path.relative_to(ROOT).as_posix()
        for path in _tracked()
        if path not in kept
        and (
            path.suffix in {".pkl", ".pickle", ".joblib", ".pt", ".pth", ".db", ".pyc"}
            or path.name in {".env", "adult.data", "adult.test", "compas-scores-two-years.csv"}
        )
    ]
    assert not bad


# -- set-up -------------------------------------------------------------------------------
def test_constraints_satisfy_what_the_package_asks_for() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    )
    assert all(name == canonicalize_name(name) for name in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["dev"], *extras["data"], *extras["docs"]]:
        need = Requirement(text)
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), text
    assert pins["torch"] == "2.13.0"
    assert pins["click"] == "8.5.1"
    assert pins["rich"].startswith("14.")


def test_continuous_integration_runs_make_test_and_nothing_else() -> None:
    lines = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "$0")/.."', "exec make test"]
