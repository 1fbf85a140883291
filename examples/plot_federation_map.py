"""
The fairness map of a federation
================================

Two clients train one model by federated averaging. Whether its disparity between women and men
shows over all rows, inside the clients, or both, depends on how people come to clients. The
decomposition says which part is which: *unique* hurts both notions, *redundant* is seen over all
clients together only, *masked* inside them only.

The set-up is that of Hamman and Dutta (2024), "Demystifying local and global fairness trade-offs
in federated learning using partial information decomposition", on Adult. Without the real files
the example uses the differentially private synthetic edition that comes with the package, and
says so. Rows, clients and training are in ``benchmarks/_federation.py``, the whole study (50
rounds, synthetic rows too) in ``benchmarks/bench_federation.py``.

``--quick`` runs the same code on fewer rows and for fewer rounds.
"""

# %%
# Rows, and three ways to spread them over two clients
# ----------------------------------------------------
# ``uniform``: at random. ``sex_skewed``: 92 % of the women in one client, 92 % of the men in the
# other. ``synergy``: the client is "sex xor income", but for 1 % of the rows.
import sys
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from privfair.core.exceptions import UtilityWarning

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from _federation import (
    LOCAL_PARITY,
    SCENARIOS,
    adult,
    decide,
    federated_averaging,
    frontier,
    measure,
    with_clients,
)

# A model that is driven to one decision for all has no disparity; that is a result here.
warnings.filterwarnings("ignore", "y_pred holds one decision only", UtilityWarning)
quick = "--quick" in sys.argv
train, test, embedded = adult(rows=4_000 if quick else None)
if embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
print(f"{len(train.y):,} rows to train on, {len(test.y):,} to test on")

# %%
# Train, with and without parity enforced inside each client
# ----------------------------------------------------------
# Each client may only see its own rows. So the fairness that it can train for is local: the
# second model of each pair adds the squared gap of the mean scores in the client's batches.
maps = {}
for scenario in SCENARIOS:
    own, held_out = with_clients(train, scenario, 0), with_clients(test, scenario, 1)
    for name, parity in (("plain", 0.0), ("local parity", LOCAL_PARITY)):
        model = federated_averaging(own, rounds=2 if quick else 20, epochs=5, parity=parity)
        found = measure(decide(model, held_out), held_out, n_resamples=200)
        maps[scenario, name] = found
        bits = found["bits"]
        print(
            f"{scenario:11s} {name:13s} accuracy {found['accuracy']:.3f}  "
            f"global {bits['global_disparity']:.4f} = U {bits['unique']:.4f} + R "
            f"{bits['redundant']:.4f}  local {bits['local_disparity']:.4f} = U + M "
            f"{bits['masked']:.4f} bits"
        )

# %%
# The map
# -------
# Bars are the parts in bits, with their 95 % intervals (from 0 where a part may be zero).
fig, axes = plt.subplots(1, len(SCENARIOS), figsize=(9, 3), sharey=True, layout="constrained")
parts = ("unique", "redundant", "masked")
for ax, scenario in zip(axes, SCENARIOS, strict=True):
    for shift, name in ((-0.2, "plain"), (0.2, "local parity")):
        found = maps[scenario, name]
        height = np.array([found["bits"][part] for part in parts])
        low, high = np.array([found["intervals"][part] for part in parts]).T
        ax.bar(np.arange(3) + shift, height, width=0.4, label=name)
        spread = np.maximum([height - low, high - height], 0)
        ax.errorbar(np.arange(3) + shift, height, spread, fmt="none", color="black", capsize=2)
    ax.set(title=scenario, xticks=np.arange(3), xticklabels=parts)
axes[0].set_ylabel("bits")
axes[0].legend()

# %%
# What could any federation do?
# -----------------------------
# The least error of any decision, even one that knows group, client and label, under perfect
# global, perfect local fairness, and both; proven, on the same test rows. Where the clients are
# skewed, global fairness is the expensive demand; under synergy, local fairness is.
for scenario in SCENARIOS:
    least = frontier(with_clients(test, scenario, 1))
    print(f"{scenario:11s}", {name: round(found["error"], 4) for name, found in least.items()})
plt.show()
