"""
What fairness costs at best in a federation
===========================================

How accurate can decisions be when neither all clients together nor each client for itself may
treat women and men differently? We compute the whole trade-off for Adult, split over two clients
in three ways, and look at which of the two bounds is the expensive one.

Without the real files the example uses the differentially private synthetic edition of Adult that
comes with the package, and says so.

``--quick`` draws fewer points.
"""

# %%
# Three ways to split
# -------------------
# The same people each time: at random; almost all men in one client; and a client that depends on
# sex and income together, so that each client is unfair in the opposite direction.
import sys

import matplotlib.pyplot as plt
import numpy as np

from privfair.datasets import fetch_adult
from privfair.fairness.aglfop import AGLFOP

quick = "--quick" in sys.argv
adult = fetch_adult(split="train", fallback="embedded")
if adult.embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
sex = np.asarray(adult.data["sex"])
income = np.asarray(adult.target)
rich = income == np.unique(income)[-1]
man = sex == "Male"
rng = np.random.default_rng(0)
n = len(sex)
clients = {
    "random": rng.integers(0, 2, n),
    "by sex": np.where(rng.random(n) < 0.92, man, ~man).astype(int),
    "by sex and income": np.where(rng.random(n) < 0.99, man ^ rich, man == rich).astype(int),
}

# %%
# What it costs, and which bound costs it
# ---------------------------------------
# Each surface is proven: no decision whatsoever is better than the bound below it, and one attains
# the bound above it.
for name, client in clients.items():
    limits = AGLFOP().fit(rich, sensitive_features=sex, client=client)
    both = limits.label_global_disparity_, limits.label_local_disparity_
    print(f"{name}: labels have {both[0]:.4f} bits globally, {both[1]:.4f} locally")
    only = limits.solve(eps_global=0.005), limits.solve(eps_local=0.005)
    for bound, answer in zip(("global", "local"), only, strict=True):
        print(f"   at most 0.005 bits {bound}: accuracy {answer.accuracy:.4f} at best")

# %%
# The surface, and what the remaining disparity is made of
# --------------------------------------------------------
# Unique disparity is in the decision itself, redundant disparity also in who is in which client,
# and masked disparity cancels between the clients.
limits = AGLFOP().fit(rich, sensitive_features=sex, client=clients["by sex"])
limits.frontier(n=10 if quick else 30, tol=2e-3 if quick else 1e-3)
surface = limits.surface_
print(f"{surface.n_solved} programs solved, proven to {surface.gap:.1e} at all bounds")
figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), constrained_layout=True)
limits.plot_surface(axes[0])
limits.plot_parts([(None, None), (0.005, None), (None, 0.005), (0.005, 0.005)], axes[1])
plt.show()

# %%
# For the people here, or for others like them?
# ---------------------------------------------
print(limits.estimate(eps_global=0.005, eps_local=0.005))
