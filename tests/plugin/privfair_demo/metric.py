"""A metric: how far the groups' shares of positive decisions lie apart, as a deviation."""

import numpy as np

from privfair.core import Estimate, Metric, check_random_state
from privfair.core.frames import as_vector, check_aligned


class DecisionSpread(Metric):
    """Population standard deviation of the groups' selection rates, each group counting once."""

    def __call__(
        self,
        y_true,
        y_pred,
        *,
        sensitive_features=None,
        sample_weight=None,
        pos_label=1,
        **columns,
    ):
        check_aligned(y_pred=y_pred, sensitive_features=sensitive_features)
        chosen = as_vector(y_pred, name="y_pred") == pos_label
        group = as_vector(sensitive_features, name="sensitive_features")
        weight = np.ones(len(chosen)) if sample_weight is None else as_vector(sample_weight)
        rates = [
            np.average(chosen[group == g], weights=weight[group == g])
            for g in dict.fromkeys(group.tolist())
            if weight[group == g].sum() > 0
        ]
        return float(np.std(rates))

    def estimate(
        self,
        y_true,
        y_pred,
        *,
        sensitive_features=None,
        sample_weight=None,
        pos_label=1,
        confidence=0.95,
        n_resamples=2000,
        random_state=None,
        privacy=None,
        groups=None,
        ledger=None,
        **columns,
    ):
        if privacy is not None:
            raise NotImplementedError("decision_spread has no private release")
        rng = check_random_state(random_state)
        y_pred, group = as_vector(y_pred), as_vector(sensitive_features)
        value = self(None, y_pred, sensitive_features=group, pos_label=pos_label)
        draws = np.array(
            [
                self(None, y_pred[i], sensitive_features=group[i], pos_label=pos_label)
                for i in rng.integers(0, len(group), (n_resamples, len(group)))
            ]
        )
        tail = (1 - confidence) / 2
        low, high = np.quantile(draws, [tail, 1 - tail])
        return Estimate(
            self.name,
            value,
            min(low, value),
            max(high, value),
            confidence=confidence,
            n=len(group),
            method=f"percentile bootstrap over rows, {n_resamples} resamples",
        )


decision_spread = DecisionSpread(
    "decision_spread",
    optimum=0.0,
    direction="lower",
    range=(0.0, 0.5),
    requires=("y_pred", "sensitive_features"),
)
