"""
Who is badly off inside a group?
================================

A selection rate by sex does not say how poor women fare, or poor men. Socio-economic parity (SEP)
compares the underprivileged members of each group with everybody; conditional SEP does so among
people who show effort. We audit income decisions on Adult, train with and without the constraint,
and once more under differential privacy.

Without the real files the example uses the differentially private synthetic edition of Adult that
comes with the package, and says so.

``--quick`` runs the same code on fewer people.
"""

# %%
# Two judgements first
# --------------------
# *Privilege*: at most high school counts as underprivileged. *Effort*: 40 weekly hours or more.
# Both are choices that belong in the report; hours, for one, depend on who cares for children.
import sys

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from privfair import DPClassifier
from privfair.core import Schema
from privfair.datasets import fetch_adult
from privfair.fairness import (
    SEPClassifier,
    SEPPenalty,
    effort_curve,
    effort_preset,
    sep_gaps,
    sep_violation,
    ses_preset,
)

quick = "--quick" in sys.argv
train, test = (fetch_adult(split=s, fallback="embedded") for s in ("train", "test"))
if train.embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
n, m = (6_000, 3_000) if quick else (len(train.target), len(test.target))
people, y = train.data.iloc[:n], train.target.iloc[:n]
others, truth = test.data.iloc[:m], test.target.iloc[:m]
sex, other_sex = train.sensitive["sex"].iloc[:n], test.sensitive["sex"].iloc[:m]
low, effort = ses_preset("adult_education"), effort_preset("adult_hours")

# %%
# The labels themselves
# ---------------------
# ``dp_part`` is the gap of the group against everybody, ``ses_part`` that of status inside it.
for name, condition in (("SEP", None), ("CSEP", effort)):
    table = sep_gaps(
        truth, other_sex, low, ses_features=others, effort=condition, effort_features=others
    )
    print(name)
    print(table[["n_target", "gap", "ci_low", "ci_high", "dp_part", "ses_part"]].round(3))
curve = effort_curve(truth, others["hours-per-week"], low, other_sex, ses_features=others)
print(curve.summary.round(4).to_string())

# %%
# Training with the constraint
# ----------------------------
# Three ways: none, a constraint on scores, and randomised thresholds, which need the attributes
# when they predict.
columns = [c for c in people.columns if people[c].dtype.kind in "iuf" and c != "fnlwgt"]
kinds = [c for c in people.columns if c not in (*columns, "fnlwgt", "education", "sex", "race")]
both = pd.get_dummies(pd.concat([people, others])[columns + kinds], columns=kinds, dtype=float)
X, Z = both.iloc[:n].to_numpy(float), both.iloc[n:].to_numpy(float)
rows = {"sensitive_features": sex, "ses_features": people}
at = {"sensitive_features": other_sex, "ses_features": others}
points = {}
for name, settings in (
    ("no constraint", {"tolerance": 1.0}),
    ("on scores", {}),
    ("thresholds", {"method": "post"}),
):
    model = SEPClassifier(ses=low, random_state=0, **settings).fit(X, y, **rows)
    extra = at if model.needs_attributes_ else {}
    h = model.predict(Z, **extra)
    gap = sep_violation.estimate(
        None, h, sensitive_features=other_sex, ses=low, ses_features=others, random_state=0
    )
    points[name] = (np.mean(h == truth.to_numpy()), gap)
    print(f"{name}: accuracy {points[name][0]:.3f}, {gap}")

# %%
# Private and fair at once
# ------------------------
# The gaps are released with noise at every step; prices follow them; one guarantee covers
# everything. The columns that the rules read are declared beside the protected one.
keep = [c for c in people.columns if c not in ("sex", "race")]
schema = Schema({c: train.schema[c] for c in keep})
for name, penalty in (
    ("private", None),
    ("private, penalty", SEPPenalty(["Female", "Male"], low)),
):
    clf = DPClassifier(
        epsilon=3.0, schema=schema, binning="public", fairness_penalty=penalty, random_state=0
    ).fit(people[keep], y, sensitive_features=people.assign(sex=sex))
    h = clf.predict(others[keep])
    gap = sep_violation.estimate(
        None, h, sensitive_features=other_sex, ses=low, ses_features=others, random_state=0
    )
    points[name] = (np.mean(h == truth.to_numpy()), gap)
    print(f"{name}: accuracy {points[name][0]:.3f}, {gap}, epsilon {clf.privacy_.epsilon:.3f}")

# %%
# What it costs
# -------------
# Gaps of decisions on people whom no model saw, with 95 % intervals that hold for both sexes.
figure, axes = plt.subplots(1, 2, figsize=(10, 4), constrained_layout=True)
for name, (accuracy, gap) in points.items():
    axes[0].errorbar(
        accuracy, gap.value, yerr=[[gap.value - gap.low], [gap.high - gap.value]], fmt="o",
        capsize=4, label=name,
    )  # fmt: skip
axes[0].set(xlabel="accuracy", ylabel="worst SEP gap", ylim=(0, None))
axes[0].legend()
curve.plot(axes[1])
plt.show()
