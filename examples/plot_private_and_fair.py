"""
Private and fair at once
========================

A penalty on the dependence of scores and groups couples all records of a batch. Added to the loss
of a private trainer it voids the guarantee, because clipping one record's gradient does not bound
what that record does to everybody else's. ``DPFairDCovClassifier`` uses a form in which it does:
each step releases noisy sums by group from the batch of the gradient, and later steps are pulled
by those sums. The whole is one sequence of Gaussian steps under one epsilon.

We train on Adult, without sex and race among the inputs, and look at accuracy and at the gap of
the selection rates over sex x race. Without the real files the example uses the differentially
private synthetic edition that comes with the package, and says so.

``--quick`` runs the same code on fewer rows.
"""

# %%
# Data, and what is public
# ------------------------
# The schema says what is known of the columns. The groups are *declared*, too: a list of cells
# that is read off the rows would tell that somebody is in a cell. Other races are one level.
import sys

import matplotlib.pyplot as plt

from privfair.core import Categorical, Schema
from privfair.datasets import fetch_adult
from privfair.fairness.dcov import DPFairDCovClassifier
from privfair.fairness.metrics import demographic_parity_difference

quick = "--quick" in sys.argv
adult = fetch_adult(split="train", fallback="embedded")
test = fetch_adult(split="test", fallback="embedded")
if adult.embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
rows = 4_000 if quick else len(adult.data)
inputs = [name for name in adult.data.columns if name not in ("sex", "race")]
X, y, S = adult.data[inputs].iloc[:rows], adult.target.iloc[:rows], adult.sensitive.iloc[:rows]
schema = Schema({name: adult.schema[name] for name in inputs})
groups = {"sex": ["Female", "Male"], "race": Categorical(["White", "Black"], other="any other")}

# %%
# One fit
# -------
# ``fairness_share`` of each step's privacy pays for the sums by group. What the certificate rests
# on is one noise multiplier, which gradient and sums make up together.
model = DPFairDCovClassifier(
    groups=groups, penalty="ccdcov", group_weighting=0.25, lambda_=25.0, epsilon=3.0,
    schema=schema, binning="public", max_grad_norm=2.0, epochs=5 if quick else 40, random_state=0,
)  # fmt: skip
model.fit(X, y, sensitive_features=S)
print(f"epsilon {model.privacy_.epsilon:.3f}, delta {model.privacy_.delta:g}")
print(f"noise: gradient {model.sigma_gradient_:.2f}, sums {model.sigma_features_:.2f}, "
      f"together {model.sigma_effective_:.2f}")  # fmt: skip
print("too small to be told from noise:", model.pooled_cells_)

# %%
# How strong a penalty?
# ---------------------
# ``lambda_`` has no unit, so we look at a few values. The gap comes with an interval for the
# sampling of the test rows. In earnest, choose ``lambda_`` on public rows or pay for the choice,
# and never on test rows.
strengths = [0.0, 25.0] if quick else [0.0, 5.0, 10.0, 25.0, 50.0, 100.0]
race = test.sensitive["race"].astype(str)
race = race.where(race.isin(["White", "Black"]), "any other")
cells = test.sensitive["sex"].astype(str) + ", " + race
accuracy, gaps = [], []
for strength in strengths:
    model.set_params(lambda_=strength)
    model.fit(X, y, sensitive_features=S)
    decisions = model.predict(test.data[inputs])  # needs neither sex nor race
    accuracy.append(float((decisions == test.target).mean()))
    gap = demographic_parity_difference.estimate(
        test.target, decisions, sensitive_features=cells, n_resamples=200, random_state=0
    )
    gaps.append(gap)
    print(f"lambda {strength:g}: accuracy {accuracy[-1]:.3f}, gap {gap.value:.3f} "
          f"[{gap.low:.3f}, {gap.high:.3f}]")  # fmt: skip

# %%
# The trade
# ---------
# Each point is a private model at epsilon 3, noise included.
figure, axis = plt.subplots(figsize=(6, 3.6), constrained_layout=True)
values = [gap.value for gap in gaps]
errors = [[g.value - g.low for g in gaps], [g.high - g.value for g in gaps]]
axis.errorbar(accuracy, values, yerr=errors, fmt="o-", capsize=4)
for strength, x, height in zip(strengths, accuracy, values, strict=True):
    axis.annotate(f"{strength:g}", (x, height), textcoords="offset points", xytext=(6, 6))
axis.set(xlabel="accuracy on the test rows", ylabel="gap over sex x race", ylim=(0, None))
axis.set_title("each point: one private model, labelled by lambda")
plt.show()
