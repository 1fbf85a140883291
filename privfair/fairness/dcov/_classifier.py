"""A classifier with a distance-covariance penalty, without privacy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin

from privfair.core.schema import Schema
from privfair.fairness.dcov._network import FairNetwork
from privfair.training import ClassifierParts

__all__ = ["FairDCovClassifier"]


class FairDCovClassifier(ClassifierMixin, FairNetwork, ClassifierParts):
    r"""A neural or linear classifier whose scores depend little on protected attributes.

    Minimises cross-entropy plus ``lambda_`` times the squared distance covariance of the score and
    the sensitive features, all of them jointly, so that intersections count too. With more than
    two classes the penalty is the sum over the classes' probabilities.

    Parameters
    ----------
    lambda_ : float, default=1.0
        Weight of the penalty, at least 0. It has no unit: its scale depends on the encoding of
        the attributes and on that of the predictions, so look at a grid (1, 3, 10, 30, 100).
        0 trains without a penalty, and then needs no sensitive features.
    penalty : {"ccdcov", "jdcov", "pairwise", "cells"} or Penalty, default="ccdcov"
        Which dependence, see :class:`DistanceCovariancePenalty`; ``"pairwise"`` does not see
        intersections. Any other :class:`privfair.core.Penalty` is taken as it is (``lambda_``
        multiplies its ``strength``).
    c : float, default=1.0
        Above 0; weight of low orders in ``"jdcov"``.
    estimator : {"auto", "u", "v"}, default="auto"
        Of a batch: unbiased, plug-in, or unbiased below 1,024 rows and where it is stratified.
    group_weighting : float, default=0.5
        tau in [0, 1]: cell g weighs ``share_g ** tau``. 1 is distance covariance as published,
        under which a group of 2 % counts 4e-4.
    normalise : {"none", "dcor", "target_scale"}, default="none"
        See :class:`DistanceCovariancePenalty`.
    encoder : AttributeEncoder or None, default=None
        How sensitive features become distances; None gives every attribute mean distance 1.
    hidden_layer_sizes : tuple of int, default=(64,)
        Sizes of hidden layers; () is a linear model.
    activation : {"relu", "tanh"}, default="relu"
        What stands between hidden layers.
    batch_size : int, default=1024
        Rows of a batch. Where a cell would have fewer than 8 on average, batches are stratified:
        every cell is in each of them. Below 20 for each cell a warning says so.
    epochs : int, default=30
        Passes over the rows.
    lr : float or "auto", default="auto"
        Step size of Adam, above 0. ``"auto"`` is 0.005, and 0.05 for a linear model.
    weight_decay : float, default=0.0
        Decoupled weight decay, at least 0.
    schema : Schema, "as_is" or None, default=None
        Bounds and categories of the columns of X; None reads them off the rows, ``"as_is"``
        takes numeric columns as they are.
    classes : array-like or None, default=None
        All labels that can occur; None takes those present.
    device : {"auto", "cpu", "cuda", "cuda:N"}, default="auto"
        Where tensors live.
    random_state : int, Generator, RandomState or None, default=None
        Seeds initial weights and the order of rows.
    verbose : int, default=0
        Above 0 shows a progress bar on a terminal.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    module_ : torch.nn.Module
        Takes encoded columns, returns logits.
    encoding_ : object
        The encoder of the columns of X.
    encoder_ : AttributeEncoder or None
        That of the sensitive features; not saved, for nothing needs it to predict.
    pooled_cells_ : list of tuples
        Labels of cells with fewer than 30 rows, which count as one. Not saved.
    history_ : dict of str to tuple of float
        ``loss`` and ``penalty`` over all training rows after each epoch, and ``jsd``, the
        Jensen-Shannon divergence in bits of the scores' histograms over the cells (where there
        are finitely many).
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where X has column names.
    n_steps_ : int
    privacy_ : PrivacyGuarantee
        None: epsilon is infinite and ``unsafe`` says that the training was not private.

    Notes
    -----
    *Algorithm.* Adam on shuffled batches of loss plus ``lambda_`` times the penalty. Sample
    weights enter the loss; the penalty counts each row once. Numeric columns are standardised,
    which the first layer has taken in at the end. O(epochs * n * (parameters + log batch)) with
    finitely many cells.

    *Fairness.* None is guaranteed. The penalty is about the distribution of scores; a threshold
    can bring a gap back, so measure decisions as well, on other rows. Demographic parity ignores
    the labels. A plain penalty on group means can reach a smaller gap at a threshold for the
    same accuracy: distance covariance is worth it for whole distributions, continuous attributes
    and regression.

    *Privacy.* None. For training under differential privacy see :class:`DPFairDCovClassifier`.

    References
    ----------
    Lee, Antonio, Avanzi, Marchi, Zhou (2025), arXiv 2509.08163. Chakraborty, Zhang (2019), JASA
    114(528). Szekely, Rizzo, Bakirov (2007), Annals of Statistics 35(6).

    Examples
    --------
    >>> import numpy as np
    >>> from privfair.fairness.dcov import FairDCovClassifier
    >>> rng = np.random.default_rng(0)
    >>> S = np.where(rng.random(2000) < 0.3, "a", "b")
    >>> X = np.stack([rng.normal(size=2000) + (S == "a"), rng.normal(size=2000)], axis=1)
    >>> y = X[:, 0] + X[:, 1] + rng.logistic(size=2000) > 0.5
    >>> clf = FairDCovClassifier(lambda_=30.0, hidden_layer_sizes=(), random_state=0)
    >>> p = clf.fit(X, y, sensitive_features=S).predict_proba(X)[:, 1]
    >>> bool(abs(p[S == "a"].mean() - p[S == "b"].mean()) < 0.05)
    True
    >>> len(clf.history_["penalty"]) == clf.epochs
    True
    """

    def __init__(
        self,
        *,
        lambda_: float = 1.0,
        penalty: Any = "ccdcov",
        c: float = 1.0,
        estimator: str = "auto",
        group_weighting: float = 0.5,
        normalise: str = "none",
        encoder: Any = None,
        hidden_layer_sizes: Sequence[int] = (64,),
        activation: str = "relu",
        batch_size: int = 1024,
        epochs: int = 30,
        lr: float | str = "auto",
        weight_decay: float = 0.0,
        schema: Schema | str | None = None,
        classes: ArrayLike | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.lambda_ = lambda_
        self.penalty = penalty
        self.c = c
        self.estimator = estimator
        self.group_weighting = group_weighting
        self.normalise = normalise
        self.encoder = encoder
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.batch_size = batch_size
        self.epochs = epochs
        self.lr = lr
        self.weight_decay = weight_decay
        self.schema = schema
        self.classes = classes
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        sensitive_features: Any = None,
        sample_weight: ArrayLike | None = None,
    ) -> Self:
        """Train.

        Parameters
        ----------
        X : data frame or array of shape (n_rows, n_columns)
            pandas, polars or numpy.
        y : array-like of shape (n_rows,)
            Labels.
        sensitive_features : array-like or data frame, default=None
            One row per record, any number of columns; needed unless ``lambda_=0``. Not needed to
            predict.
        sample_weight : array-like of shape (n_rows,), default=None
            Finite, at least 0: factor of each record's loss.

        Returns
        -------
        self : FairDCovClassifier

        Raises
        ------
        DataError, SensitiveFeatureError
            The data cannot be used.
        """
        self._fit(X, y, sensitive_features, sample_weight)
        return self
