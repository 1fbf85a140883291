"""Measure how close an embedded edition is to the real data, and write it into its card.

Reads real rows without privacy. That is itself a release; it is acceptable for these two sets
only because the originals are public. For data of your own, do not publish such a table.
"""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

START, END = "<!-- utility: start -->", "<!-- utility: end -->"


def model(frame: pd.DataFrame, categorical: list[str]) -> Any:
    """Return the logistic regression of the data page: one-hot, standardised, C = 1."""
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numeric = [c for c in frame.columns if c not in categorical]
    return make_pipeline(
        ColumnTransformer(
            [
                ("categorical", OneHotEncoder(handle_unknown="ignore"), categorical),
                ("numeric", StandardScaler(), numeric),
            ]
        ),
        LogisticRegression(C=1.0, tol=1e-8, max_iter=5000),
    )


def gaps(y: Any, decision: Any, group: Any) -> dict[str, float]:
    """Return the largest difference between groups of selection rate, TPR and FPR."""
    y, decision, group = (np.asarray(v) for v in (y, decision, group))
    out = {}
    for label, mask in (
        ("selection", np.ones(len(y), dtype=bool)), ("tpr", y == 1), ("fpr", y == 0),
    ):  # fmt: skip
        rates = [decision[mask & (group == g)].mean() for g in np.unique(group)]
        out[label] = float(max(rates) - min(rates))
    return out


def trained_on(
    train: tuple[Any, Any], test: tuple[Any, Any], group: Any, categorical: list[str]
) -> dict[str, float]:
    """Return accuracy, AUC and gaps on real test rows of a model trained on given rows."""
    from sklearn.metrics import roc_auc_score

    fitted = model(train[0], categorical).fit(*train)
    score = fitted.predict_proba(test[0])[:, 1]
    decision = (score > 0.5).astype(int)
    return {
        "accuracy": float((decision == np.asarray(test[1])).mean()),
        "auc": float(roc_auc_score(test[1], score)),
        **{f"{k}_gap": v for k, v in gaps(test[1], decision, group).items()},
    }


def tvd(a: pd.Series[Any], b: pd.Series[Any]) -> float:
    """Return half the L1 distance of two empirical laws."""
    p, q = (s.value_counts(normalize=True) for s in (a, b))
    return float(p.sub(q, fill_value=0.0).abs().sum() / 2)


def coded(frame: pd.DataFrame, edition: Any) -> pd.DataFrame:
    """Return the released columns as codes of the edition's public bins."""
    import pandas as pd
    from build_embedded import to_codes  # beside this script

    return pd.DataFrame(to_codes(edition, frame))


def distances(real: pd.DataFrame, made: pd.DataFrame) -> dict[str, float]:
    """Return mean and largest one-way and two-way total variation distance."""
    one = [tvd(real[c], made[c]) for c in real]
    two = [
        tvd(real[a].astype(str) + "|" + real[b].astype(str),
            made[a].astype(str) + "|" + made[b].astype(str))
        for a, b in itertools.combinations(real.columns, 2)
    ]  # fmt: skip
    return {
        "one_way_mean": float(np.mean(one)), "one_way_max": float(np.max(one)),
        "two_way_mean": float(np.mean(two)), "two_way_max": float(np.max(two)),
    }  # fmt: skip


def score_rates(bunch: Any) -> dict[str, float]:
    """Return error rates of decile_score > 4 in the two large race groups, in percent."""
    out = {}
    for race in ("African-American", "Caucasian"):
        mask = bunch.sensitive["race"] == race
        y, d = bunch.target[mask], bunch.decision[mask]
        out[f"fpr {race}"] = 100 * float(d[y == 0].mean())
        out[f"fnr {race}"] = 100 * float(1 - d[y == 1].mean())
    return out


def compare(edition: Any, real_train: Any, real_test: Any, made: Any) -> dict[str, Any]:
    """Return everything that the card shows."""
    sensitive = "sex" if edition.name == "adult" else "race"
    label = edition.label
    group = real_test.sensitive[sensitive]
    if edition.name == "compas":  # small groups have no stable rates
        large = group.isin(("African-American", "Caucasian")).to_numpy()
    else:
        large = np.ones(len(group), dtype=bool)
    names = [n for n in real_train.data.columns if n not in {"decile_score", "score_text"}]
    categorical = [n for n in real_train.schema.categorical if n in names]
    test = (real_test.data.loc[large, names], real_test.target[large])
    frames = {
        key: coded(bunch.data.assign(**{label: bunch.target}), edition)
        for key, bunch in (("real", real_train), ("made", made))
    }
    out: dict[str, Any] = {
        "rows": {"real_train": len(real_train.data), "real_test": int(large.sum()),
                 "embedded": len(made.data)},
        "trained_on_real": trained_on(
            (real_train.data[names], real_train.target), test, group[large], categorical),
        "trained_on_embedded": trained_on(
            (made.data[names], made.target), test, group[large], categorical),
        "base_rate_gap": {
            key: float(np.ptp([
                bunch.target[bunch.sensitive[sensitive] == g].mean()
                for g in np.unique(group[large])
            ]))
            for key, bunch in (("real", real_train), ("embedded", made))
        },
        "distance": distances(frames["real"], frames["made"]),
    }  # fmt: skip
    if edition.name == "compas":
        out["score"] = {"real": score_rates(real_train), "embedded": score_rates(made)}
    return out


def table(result: dict[str, Any]) -> str:
    """Return the measurement as Markdown."""
    lines = [
        f"Real rows fitted: {result['rows']['real_train']:,}; embedded rows: "
        f"{result['rows']['embedded']:,}; tested on {result['rows']['real_test']:,} real rows "
        "that the release never touched. Logistic regression, threshold 0.5.",
        "",
        "| trained on | accuracy | AUC | selection gap | TPR gap | FPR gap |",
        "|---|---|---|---|---|---|",
    ]
    for key, name in (("trained_on_real", "real"), ("trained_on_embedded", "embedded")):
        r = result[key]
        cells = [r[k] for k in ("accuracy", "auc", "selection_gap", "tpr_gap", "fpr_gap")]
        lines.append(f"| {name} | " + " | ".join(f"{c:.4f}" for c in cells) + " |")
    base, d = result["base_rate_gap"], result["distance"]
    lines += [
        "",
        f"Base-rate gap: real {base['real']:.4f}, embedded {base['embedded']:.4f}.",
        f"Total variation distance on the public bins: one-way mean {d['one_way_mean']:.4f}, "
        f"largest {d['one_way_max']:.4f}; two-way mean {d['two_way_mean']:.4f}, largest "
        f"{d['two_way_max']:.4f}.",
    ]
    if "score" in result:
        lines += ["", "Error rates of decile_score > 4, in percent:", "",
                  "| rate | real | embedded |", "|---|---|---|"]  # fmt: skip
        lines += [
            f"| {key} | {value:.1f} | {result['score']['embedded'][key]:.1f} |"
            for key, value in result["score"]["real"].items()
        ]
    return "\n".join(lines)


def write_utility(
    name: str, *, data_home: str | None, embedded: Path, releases: Path, card: Path
) -> Path:
    """Measure an edition that exists, and write the result into its card and as JSON."""
    from build_embedded import EDITIONS  # beside this script

    from privfair.datasets import _embedded, fetch_adult, fetch_compas

    if embedded != _default_folder():
        raise SystemExit("utility is measured on the packaged edition: leave out --embedded")
    edition = EDITIONS[name]()
    options: dict[str, Any] = {"data_home": data_home, "download": "never"}
    if name == "adult":
        real = [fetch_adult(split=split, **options) for split in ("train", "test")]
        made = _embedded.load_adult(split="all", missing="category", as_frame=True)
    else:
        real = [
            fetch_compas(version="filtered", split=split, **options) for split in ("train", "test")
        ]
        made = _embedded.load_compas(split="all", as_frame=True)
    result = compare(edition, real[0], real[1], made)
    path = releases / f"{name}-1-utility.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")
    text = card.read_text("utf-8")
    block = f"{START}\n{table(result)}\n{END}"
    card.write_text(
        re.sub(f"{START}.*?{END}", lambda _: block, text, count=1, flags=re.DOTALL), "utf-8"
    )
    return path


def _default_folder() -> Path:
    return Path(__file__).resolve().parent.parent / "privfair" / "datasets" / "embedded"
