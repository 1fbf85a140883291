"""A small federation in one process: rows, scenarios, federated averaging, its fairness map.

The set-up follows Hamman and Dutta 2024 (arXiv:2307.11333): two clients, both in every round,
50 rounds of 10 local epochs, batches of 1000, Adam at 0.01, a network of 32 and 32 rectified
units, binary cross-entropy. Three ways in which rows come to clients:

* ``uniform``: at random, so that both clients have the same mix of groups;
* ``sex_skewed``: 92 % of one group in one client, 92 % of the other in the other;
* ``synergy``: client = group xor label, then 1 % of the rows change the client. (Both clients
  have many rows only where group and label are not nearly the same.)

Every client is evaluated on test rows of its own, the global numbers on the same rows.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from privfair.core import Numeric
from privfair.datasets import fetch_adult
from privfair.fairness import PIDDisparity
from privfair.fairness.aglfop import aglfop

SCENARIOS = ("uniform", "sex_skewed", "synergy")
PARTS = ("unique", "redundant", "masked", "global_disparity", "local_disparity")
SKEW, SWAP = 0.92, 0.01
LOCAL_PARITY = 2.0
"""Weight of the squared gap of mean scores within a client, beside the cross-entropy."""


@dataclass(frozen=True)
class Rows:
    """Features, label, group and client of the training or the test rows."""

    X: np.ndarray
    y: np.ndarray
    z: np.ndarray
    client: np.ndarray | None = None

    def take(self, where: np.ndarray) -> Rows:
        client = None if self.client is None else self.client[where]
        return Rows(self.X[where], self.y[where], self.z[where], client)


# -- data ---------------------------------------------------------------------------------
def synthetic(seed: int, n: int = 1000, agreement: float = 0.95) -> tuple[Rows, Rows]:
    """Two Gaussian classes; the group is the label with probability ``agreement``; 70 % train."""
    rng = np.random.default_rng(seed)
    y = np.repeat([1, 0], n // 2)
    X = np.concatenate(
        [
            rng.multivariate_normal([2, 2], [[5, 1], [1, 5]], size=n // 2),
            rng.multivariate_normal([-2, -2], [[10, 1], [1, 3]], size=n // 2),
        ]
    ).astype(np.float32)
    z = np.where(rng.random(n) < agreement, y, 1 - y)
    order = rng.permutation(n)
    rows, cut = Rows(X, y, z), int(0.7 * n)
    return rows.take(order[:cut]), rows.take(order[cut:])


def adult(rows: int | None = None) -> tuple[Rows, Rows, bool]:
    """Adult's official split without the column sex, encoded by its public schema."""
    found, embedded = [], False
    for split in ("train", "test"):
        bunch = fetch_adult(split=split, fallback="embedded")
        embedded = bool(bunch.embedded)
        columns = []
        for name in bunch.data.columns:
            if name == "sex":
                continue
            rule, column = bunch.schema[name], bunch.data[name]
            if isinstance(rule, Numeric):
                x = np.clip(column.to_numpy(float), rule.low, rule.high)
                low, high = rule.low, rule.high
                if rule.log:
                    x, low, high = np.log1p(x - low), 0.0, np.log1p(high - low)
                columns.append(((x - low) / (high - low))[:, None])
            else:
                columns.append(column.to_numpy(str)[:, None] == np.array(rule.values, dtype=str))
        X = np.concatenate(columns, axis=1).astype(np.float32)
        y = bunch.target.to_numpy().astype(int)
        z = (bunch.data["sex"] == "Male").to_numpy().astype(int)
        part = slice(None) if rows is None else slice(rows)
        found.append(Rows(X[part], y[part], z[part]))
    return found[0], found[1], embedded


def with_clients(rows: Rows, scenario: str, seed: int) -> Rows:
    """Return the rows with a client each, by scenario."""
    rng = np.random.default_rng(seed)
    draw = rng.random(len(rows.y))
    if scenario == "uniform":
        client = (draw < 0.5).astype(int)
    elif scenario == "sex_skewed":
        client = np.where(draw < SKEW, rows.z, 1 - rows.z)
    elif scenario == "synergy":
        client = np.where(draw < SWAP, 1 - (rows.z ^ rows.y), rows.z ^ rows.y)
    else:
        raise ValueError(f"scenario must be one of {SCENARIOS}, got {scenario!r}")
    return Rows(rows.X, rows.y, rows.z, client)


# -- federated averaging ------------------------------------------------------------------
def network(n_features: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(n_features, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1)
    )


def local_update(
    model: nn.Module,
    rows: Rows,
    *,
    epochs: int,
    batch: int,
    learning_rate: float,
    parity: float,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """Train a copy on one client's rows and return its weights, as a client would send them."""
    model = copy.deepcopy(model)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    X, y, z = torch.from_numpy(rows.X), torch.from_numpy(rows.y).float(), torch.from_numpy(rows.z)
    for _ in range(epochs):
        for part in torch.randperm(len(y), generator=generator).split(batch):
            logits = model(X[part]).squeeze(1)
            loss = nn.functional.binary_cross_entropy_with_logits(logits, y[part])
            first = z[part] == 0
            if parity and bool(first.any()) and not bool(first.all()):
                score = logits.sigmoid()
                loss = loss + parity * (score[first].mean() - score[~first].mean()) ** 2
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return model.state_dict()


def average(states: list[dict[str, torch.Tensor]], sizes: list[int]) -> dict[str, torch.Tensor]:
    """Return the mean of the clients' weights, by their numbers of rows: the server's step."""
    total = sum(sizes)
    return {
        name: sum(state[name] * (size / total) for state, size in zip(states, sizes, strict=True))
        for name in states[0]
    }


def federated_averaging(
    rows: Rows,
    *,
    rounds: int = 50,
    epochs: int = 10,
    batch: int = 1000,
    learning_rate: float = 0.01,
    parity: float = 0.0,
    seed: int = 457,
) -> nn.Module:
    """Train one model with all clients in every round."""
    model = network(rows.X.shape[1], seed)
    generator = torch.Generator().manual_seed(seed)
    clients = [rows.take(rows.client == c) for c in np.unique(rows.client)]
    for _ in range(rounds):
        states = [
            local_update(
                model, own, epochs=epochs, batch=batch, learning_rate=learning_rate,
                parity=parity, generator=generator,
            )
            for own in clients
        ]  # fmt: skip
        model.load_state_dict(average(states, [len(own.y) for own in clients]))
    return model


def decide(model: nn.Module, rows: Rows) -> np.ndarray:
    with torch.no_grad():
        return (model(torch.from_numpy(rows.X)).squeeze(1) > 0).numpy().astype(int)


# -- what is measured ---------------------------------------------------------------------
def measure(decisions: np.ndarray, rows: Rows, *, n_resamples: int = 500) -> dict[str, Any]:
    """Return the parts in bits with intervals, and accuracy and gap beside them."""
    fit = PIDDisparity(n_resamples=n_resamples, random_state=0).fit(
        decisions, sensitive_features=rows.z, client=rows.client
    )
    rate = [float(decisions[rows.z == g].mean()) for g in (0, 1)]
    local = [
        [float(decisions[(rows.z == g) & (rows.client == c)].mean()) for g in (0, 1)]
        for c in np.unique(rows.client)
    ]
    return {
        "accuracy": float((decisions == rows.y).mean()),
        "parity_gap": rate[1] - rate[0],
        "parity_gap_by_client": [pair[1] - pair[0] for pair in local],
        "bits": {name: float(getattr(fit, f"{name}_")) for name in PARTS},
        "corrected_bits": {name: float(fit.corrected_[name]) for name in PARTS},
        "intervals": {name: [float(end) for end in fit.ci_[name]] for name in PARTS},
        "may_be_zero": {name: bool(fit.boundary_[name]) for name in PARTS},
        "permutation_p": {"global": fit.p_value_global_, "local": fit.p_value_local_},
    }


def frontier(rows: Rows) -> dict[str, Any]:
    """Return the least error of any decision that knows group, client and label, by demand."""
    p = np.zeros((2, 2, 2))
    np.add.at(p, (rows.z, rows.client, rows.y), 1 / len(rows.y))
    demands = {"global": (0.0, None), "local": (None, 0.0), "both": (0.0, 0.0)}
    return {
        name: {"error": float(found.error), "proven_at_least": float(found.error_lower)}
        for name, bounds in demands.items()
        for found in [aglfop(p, *bounds)]
    }


def readings(plain: dict[str, Any], scenario: str) -> dict[str, bool]:
    """Return whether the plain model's parts are ordered as the paper reports for a scenario."""
    bits = plain["bits"]
    parts = ("unique", "redundant", "masked")
    expected = dict(zip(SCENARIOS, parts, strict=True))[scenario]
    out = {f"{expected} is the largest part": max(parts, key=bits.__getitem__) == expected}
    if scenario == "uniform":
        out["redundant and masked are below a tenth of unique"] = (
            max(bits["redundant"], bits["masked"]) < 0.1 * bits["unique"]
        )
    elif scenario == "sex_skewed":
        out["global disparity is above local"] = bits["global_disparity"] > bits["local_disparity"]
    else:
        out["local disparity is above global"] = bits["local_disparity"] > bits["global_disparity"]
    return out


def effect(plain: dict[str, Any], fair: dict[str, Any]) -> dict[str, float]:
    """Return what training for parity inside the clients changes, fair less plain."""
    out = {name: fair["bits"][name] - plain["bits"][name] for name in PARTS}
    return {**out, "accuracy": fair["accuracy"] - plain["accuracy"]}


def fairness_map(
    train: Rows,
    test: Rows,
    scenario: str,
    *,
    seed: int = 457,
    entries: dict[str, Callable[[Rows], Any]] | None = None,
    **training: Any,
) -> dict[str, Any]:
    """Train with and without parity within the clients; return both maps of one scenario.

    ``entries`` adds anything that is computed from the test rows with their clients, by name.
    """
    train, test = with_clients(train, scenario, seed), with_clients(test, scenario, seed + 1)
    plain = federated_averaging(train, seed=seed, **training)
    fair = federated_averaging(train, seed=seed, parity=LOCAL_PARITY, **training)
    out: dict[str, Any] = {
        "rows": {"train": len(train.y), "test": len(test.y)},
        "plain": measure(decide(plain, test), test),
        "local_parity": measure(decide(fair, test), test),
    }
    out["as_reported"] = readings(out["plain"], scenario)
    out["effect_of_local_parity"] = effect(out["plain"], out["local_parity"])
    for name, entry in (entries or {}).items():
        out[name] = entry(test)
    return out
