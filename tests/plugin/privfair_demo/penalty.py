"""A penalty: the squared gap between two groups' mean scores, in a form fit for DP training."""

import torch


class BoundedScoreGap:
    """``(mean score of group 1 - mean score of group 0)^2`` for scores in [0, 1].

    The batch form couples the records of a batch. Its per-record surrogate does not: given
    *released* means and shares, the derivative with respect to record i's score is
    ``2 gap / share_g`` with the sign of its group.
    """

    decomposable = True
    requires = frozenset()
    n_features = 4  # sum of scores and count, for each of two groups
    feature_bound = 2.0**0.5  # one score <= 1 and one count

    def __init__(self):
        self.released = None

    def __call__(self, scores, sensitive, *, y=None, sample_weight=None, **columns):
        groups = [scores[sensitive == g] for g in (0, 1)]
        if any(len(group) == 0 for group in groups):
            return scores.sum() * 0.0
        return (groups[1].mean() - groups[0].mean()) ** 2

    def features(self, scores, sensitive, *, y=None, **columns):
        member = torch.stack([sensitive == 0, sensitive == 1], dim=1).to(scores.dtype)
        return torch.cat([member * scores.clamp(0, 1).unsqueeze(1), member], dim=1)

    def absorb(self, noisy_sum_over_B):
        self.released = noisy_sum_over_B.detach().clone()

    def weights(self, scores, sensitive, *, y=None, **columns):
        if self.released is None:
            return torch.zeros_like(scores)
        share = self.released[2:].clamp(min=1e-2)
        mean = (self.released[:2] / share).clamp(0, 1)
        slope = 2 * (mean[1] - mean[0]) / share
        per_group = torch.stack([-slope[0], slope[1], torch.zeros_like(slope[0])])
        known = (sensitive == 0) | (sensitive == 1)
        index = torch.where(known, sensitive, torch.full_like(sensitive, 2)).long()
        return per_group.to(scores)[index].detach()
