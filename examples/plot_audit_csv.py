"""
Audit a CSV of decisions
========================

You have a table: who was it about, what was decided, what turned out to be true. You want to
know how the decisions differ between groups, how sure that is, and to hand it on as one file.

The table here is made from COMPAS risk scores: the decision is "medium or high risk" (decile 5
and above), the outcome is re-arrest within two years. Where the real file is absent, the
differentially private synthetic edition takes its place, and says so. Re-arrest is not the same
as re-offence, and the scores were made before the outcome; see the caveats of the data set
before reading anything into the numbers.

``--quick`` runs the same code with fewer resamples.
"""

# %%
# The table
# ---------
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from privfair.datasets import fetch_compas
from privfair.report import (
    AuditConfig,
    Predictions,
    audit,
    dataset_info,
    to_html,
    to_json,
    to_text,
)

quick = "--quick" in sys.argv
compas = fetch_compas(version="filtered", fallback="embedded")
if compas.embedded:
    print(
        "Data: the embedded differentially private synthetic edition of COMPAS, not real people."
    )
folder = Path(tempfile.mkdtemp(prefix="audit-"))
decisions = pd.DataFrame(
    {
        "race": compas.sensitive["race"].astype(str).to_numpy(),
        "decile": compas.data["decile_score"].to_numpy(),
        "two_year_recid": compas.target.to_numpy(),
    }
)
decisions["decision"] = (decisions["decile"] >= 5).astype(int)
decisions = decisions[decisions["race"].isin(["African-American", "Caucasian"])]
decisions.to_csv(folder / "decisions.csv", index=False)
print(decisions.head(3).to_string(index=False))

# %%
# The audit
# ---------
# On the command line the same is::
#
#     privfair audit run --predictions decisions.csv --label two_year_recid --prediction decision \
#         --sensitive race
#
# Every gap comes with an interval and with what it would be if the groups were alike (its
# null).
table = pd.read_csv(folder / "decisions.csv")
result = audit(
    Predictions(table["decision"], table["decile"] / 10, probability=False, name="decile >= 5"),
    None,
    table["two_year_recid"],
    sensitive_features=table[["race"]],
    config=AuditConfig(
        n_resamples=200 if quick else 2000,
        title="Audit of COMPAS: decile 5 and above",
        # Names the data in the page and the JSON, whose first line says if they are embedded.
        dataset=dataset_info(compas, rows="held_out", split="two races of the filtered rows"),
    ),
    random_state=0,
)
print(to_text(result)[:3000])

# %%
# One file to hand on
# -------------------
# The page needs no network and no other file; the JSON holds the same numbers for a program.
(folder / "report.html").write_text(to_html(result), encoding="utf-8")
(folder / "report.json").write_text(to_json(result), encoding="utf-8")
for file in sorted(folder.iterdir()):
    print(file.name, f"{file.stat().st_size / 1024:.0f} KiB")

# %%
# The false positive rate by group, with Wilson intervals
# --------------------------------------------------------
from privfair.core.statistics import wilson_interval

negatives = table[table["two_year_recid"] == 0]
counts = negatives.groupby("race")["decision"].agg(["sum", "count"])
figure, axis = plt.subplots(figsize=(6, 2.2), constrained_layout=True)
for place, (group, (hits, n)) in enumerate(counts.iterrows()):
    interval = wilson_interval(int(hits), int(n))
    low, high = float(interval.low), float(interval.high)
    axis.errorbar(hits / n, place, xerr=[[hits / n - low], [high - hits / n]], fmt="o", capsize=4)
    print(f"{group}: {hits}/{n} = {hits / n:.4f} [{low:.4f}, {high:.4f}]")
axis.set(yticks=range(len(counts)), yticklabels=list(counts.index), xlim=(0, 1))
axis.set(xlabel="false positive rate", ylim=(-0.5, len(counts) - 0.5))
plt.show()
