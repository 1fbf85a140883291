"""Charges are not lost in worker processes, and no step of a pipeline is free by mistake."""

import math
import multiprocessing as mp

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from privfair.accounting import Ledger, PureDP, default_ledger, pipeline_guarantee
from privfair.core.exceptions import LedgerError
from privfair.dp import DPClassifier

X = np.random.default_rng(0).random((300, 2))
Y = (X[:, 0] > 0.5).astype(int)
SETTINGS = {"epsilon": 1.0, "schema": "as_is", "epochs": 1, "batch_size": 60}


def _try(queue, path):
    try:
        with default_ledger("workers").spend(PureDP(0.1), purpose="lost"):
            pass
        queue.put("spent")
    except LedgerError as error:
        queue.put(str(error))
    with Ledger(path).spend(PureDP(0.1), purpose="kept"):
        pass


def test_a_worker_may_not_use_the_memory_of_its_own_process(tmp_path):
    path = tmp_path / "ledger.db"
    shared = Ledger(path)
    context = mp.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_try, args=(queue, path))
    worker.start()
    answer = queue.get(timeout=120)
    worker.join()
    assert "worker process" in answer
    assert shared.spent().epsilon == pytest.approx(0.1)


def test_a_parallel_search_counts_every_fit_or_none(tmp_path):
    from sklearn.model_selection import cross_val_score

    with pytest.raises(LedgerError, match="worker process"):
        cross_val_score(DPClassifier(**SETTINGS), X, Y, cv=2, n_jobs=2, error_score="raise")
    ledger = Ledger(tmp_path / "ledger.db")
    cross_val_score(
        DPClassifier(**SETTINGS, ledger=ledger), X, Y, cv=2, n_jobs=2, error_score="raise"
    )
    assert len(ledger) == 2


def test_a_function_of_all_rows_at_once_is_not_free():
    centre = FunctionTransformer(lambda rows: (rows - rows.mean(0)) / rows.std(0))
    pipeline = make_pipeline(centre, DPClassifier(**SETTINGS, ledger=Ledger())).fit(X, Y)
    found = pipeline_guarantee(pipeline)
    assert math.isinf(found.epsilon)
    assert "functiontransformer" in found.unsafe[0]
    identity = make_pipeline(FunctionTransformer(), DPClassifier(**SETTINGS, ledger=Ledger()))
    assert pipeline_guarantee(identity.fit(X, Y)).epsilon <= 1.0
