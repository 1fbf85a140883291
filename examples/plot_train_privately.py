"""
Train privately in a Pipeline
=============================

A classifier that is trained under differential privacy is a scikit-learn estimator: it works in
a ``Pipeline``, in ``GridSearchCV``, with pandas and polars. What differs is that it carries a
*guarantee*, and that what it may know about the columns without paying for it stands in a
public *schema*.

We train on Adult at several values of epsilon and look at accuracy and at the gap between the
selection rates of men and women. Without the real files the example uses the differentially
private synthetic edition that comes with the package, and says so.

``--quick`` runs the same code on fewer rows.
"""

# %%
# Data with a public schema
# -------------------------
# The schema holds bounds and categories from the code book of the survey, not from the rows:
# reading ``X["age"].max()`` off the private data would be a release that nobody accounted for.
import sys

import matplotlib.pyplot as plt
from sklearn.pipeline import Pipeline

from privfair.datasets import fetch_adult
from privfair.dp import DPClassifier
from privfair.fairness.metrics import demographic_parity_difference

quick = "--quick" in sys.argv
adult = fetch_adult(split="train", fallback="embedded")
test = fetch_adult(split="test", fallback="embedded")
if adult.embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
rows = 4_000 if quick else len(adult.data)
X, y = adult.data.iloc[:rows], adult.target.iloc[:rows]
print(f"{rows:,} training rows, {X.shape[1]} columns; of age the schema says")
print(adult.schema["age"])

# %%
# Fit at epsilon 1
# ----------------
# ``delta="auto"`` and the noise multiplier follow from the plan. After ``fit``, ``privacy_``
# says what is guaranteed, for whom, under which assumptions.
model = Pipeline([("classifier", DPClassifier(epsilon=1.0, schema=adult.schema, random_state=0))])
model.fit(X, y)
guarantee = model[-1].privacy_
print(guarantee.explain())

# %%
# The price of privacy
# --------------------
# The same estimator at ``epsilon=inf`` is the non-private twin: same sampler, loss and steps,
# neither clipping nor noise. The noise is fresh in every run, so your numbers differ a little
# from those here.
epsilons = [0.3, 1.0, 3.0, float("inf")] if not quick else [1.0, float("inf")]
accuracy, gaps = [], []
for epsilon in epsilons:
    model = DPClassifier(epsilon=epsilon, schema=adult.schema, random_state=0).fit(X, y)
    decisions = model.predict(test.data)
    accuracy.append(float((decisions == test.target).mean()))
    gap = demographic_parity_difference.estimate(
        test.target,
        decisions,
        sensitive_features=test.sensitive["sex"],
        n_resamples=200 if quick else 2000,
        random_state=0,
    )
    gaps.append(gap)
    print(f"epsilon {epsilon}: accuracy {accuracy[-1]:.3f}, gap {gap.value:.3f} "
          f"[{gap.low:.3f}, {gap.high:.3f}]")  # fmt: skip

# %%
# Both, with the interval of the gap. The interval covers the sampling of the test rows; it does
# not cover the noise of the training.
labels = ["none" if e == float("inf") else f"{e:g}" for e in epsilons]
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3.2), constrained_layout=True)
left.plot(labels, accuracy, "o-")
left.set(xlabel="epsilon", ylabel="accuracy on the test rows")
values = [gap.value for gap in gaps]
errors = [[g.value - g.low for g in gaps], [g.high - g.value for g in gaps]]
right.errorbar(labels, values, yerr=errors, fmt="o", capsize=4)
right.set(xlabel="epsilon", ylabel="demographic parity difference (sex)", ylim=(0, None))
plt.show()
