"""
Collect frequencies when the server is not trusted
==================================================

Under *local* differential privacy every value is randomised on its owner's side, and only the
report leaves it. We collect education and working hours of the people in Adult from "devices" that
run in processes of their own and share nothing with the server but files: a public plan goes out,
files of reports come back. One file arrives cut in half.

Without the real files the example uses the differentially private synthetic edition of Adult that
comes with the package, and says so.

``--quick`` runs the same code on fewer people.
"""

# %%
# A public plan
# -------------
# The list of degrees and the bins of the hours are public: they come from the code book, not from
# the rows. Each person will report on *one* of the two columns, drawn without looking at the
# values, and spends epsilon 2 in all.
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from privfair.core.schema import Schema
from privfair.datasets import fetch_adult

quick = "--quick" in sys.argv
adult = fetch_adult(split="train", fallback="embedded")
if adult.embedded:
    print("Data: the embedded differentially private synthetic edition of Adult, not real people.")
columns = ["education", "hours-per-week"]
people = adult.data[columns].iloc[: 3_000 if quick else None]
folder = Path(tempfile.mkdtemp())
schema = Schema({name: adult.schema[name] for name in columns})
(folder / "schema.toml").write_text(schema.to_toml(), encoding="utf-8")


def privfair(*arguments: str, expect: int = 0) -> str:
    """Run the command line in a process of its own."""
    line = [sys.executable, "-m", "privfair", "ldp", *arguments]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode != expect:
        raise SystemExit(done.stderr)
    print(done.stderr, end="")
    return done.stdout


print(
    privfair(
        "plan", "--column", columns[0], "--column", columns[1], "--schema", "schema.toml",
        "--bin", f"{columns[1]}=20,30,40,41,50,60", "--epsilon", "2", "--n", str(len(people)),
        "--output", "plan",
    )
)  # fmt: skip

# %%
# The devices
# -----------
# Each process stands for many devices: it sees its own rows, draws from the operating system's
# entropy, and leaves a file of reports. Nothing else leaves it.
owners = np.array_split(np.arange(len(people)), 3)
running = []
for number, rows in enumerate(owners):
    people.iloc[rows].to_csv(folder / f"own-{number}.csv", index=False)
    line = [sys.executable, "-m", "privfair", "ldp", "privatize", f"own-{number}.csv"]
    line += ["--collection", "plan", "--output", f"{number}.rpt", "--batch-size", "100", "--quiet"]
    running.append(subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL))
if any(process.wait() for process in running):
    raise SystemExit("a device failed")

# %%
# The server
# ----------
# It adds up what arrives. Of the file that is cut in half only the damaged batch is lost, and the
# exit code is 4, so that no script overlooks it.
whole = (folder / "2.rpt").read_bytes()
(folder / "2.rpt").write_bytes(whole[: len(whole) // 2])
files = [f"{number}.rpt" for number in range(3)]
print(privfair("aggregate", *files, "--collection", "plan", "--output", "state", expect=4))
print(privfair("estimate", "state", "--simultaneous", "--top", "5"))

# %%
# Estimates with intervals, and what nobody but us knows
# ------------------------------------------------------
# All intervals of a column hold together with 95 %. Crosses mark the frequencies among all people,
# those of the lost half included. Of the hours the histogram says where the mean lies, wherever in
# their bins people are: a mechanism for the mean of numbers is not offered.
found = json.loads(privfair("estimate", "state", "--simultaneous", "--json"))
figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), constrained_layout=True)
edges = [-np.inf, 20, 30, 40, 41, 50, 60, np.inf]
for ax, column in zip(axes, found["columns"], strict=True):
    raw = np.array(column["frequencies_raw"])
    order = np.argsort(raw)
    low, high = np.array(column["low"]), np.array(column["high"])
    at = np.arange(len(raw))
    ax.hlines(at, low[order], high[order], color="#4477aa")
    ax.plot(raw[order], at, "o", color="#4477aa", label="estimate")
    values = people[column["column"]]
    if column["column"] == "education":
        truth = np.array([(values == v).mean() for v in column["values"]])
    else:
        truth = np.histogram(values, edges)[0] / len(values)
        mean = column["mean"]
        print(f"mean hours between {mean['low']:.1f} and {mean['high']:.1f}; {values.mean():.1f}")
    ax.plot(truth[order], at, "x", color="0.2", label="all people")
    ax.set_yticks(at, [str(column["values"][i]) for i in order])
    ax.axvline(0, color="0.7", linewidth=0.8)
    ax.set(xlabel="frequency", title=f"{column['column']} ({column['protocol']})")
axes[0].legend()
plt.show()

# %%
# What the randomisers withstand
# ------------------------------
print(privfair("audit", "plan", "--trials", "5000" if quick else "50000"))
