"""Charges are not lost in worker processes, and no step of a pipeline is free by mistake."""

import math
import multiprocessing as mp

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import privfair
from privfair.accounting import Ledger, PureDP, default_ledger, pipeline_guarantee
from privfair.core import Budget
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
    answer = queue.get(timeout=800)
    worker.join()
    assert "worker process" in answer
    assert shared.spent().epsilon == pytest.approx(0.1)


def search(classifier):
    return GridSearchCV(classifier, {"epochs": [1, 2]}, cv=2, n_jobs=2)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.FitFailedWarning")
def test_a_grid_search_in_several_processes_says_what_to_do():
    """No fit ran uncounted, and the sentence that gets through names the way out."""
    with pytest.raises(ValueError, match=r"All the \d fits failed") as caught:
        search(DPClassifier(**SETTINGS)).fit(X, Y)
    for words in ("worker process", "set_params(ledger=privfair.Ledger('spent.db'))", "n_jobs=1"):
        assert words in str(caught.value)


def test_a_grid_search_with_a_ledger_in_a_file_counts_every_fit(tmp_path):
    """2 candidates x 2 folds in the workers, and the last fit in this process."""
    classifier = DPClassifier(**SETTINGS).set_params(
        ledger=privfair.Ledger(tmp_path / "spent.db", analyst="ana")
    )
    found = search(classifier).fit(X, Y)
    ledger = Ledger.open(tmp_path / "spent.db")
    assert len(ledger) == 5
    assert {(entry.state, entry.analyst) for entry in ledger.entries()} == {("released", "ana")}
    assert ledger.spent().epsilon == pytest.approx(5.0, rel=5e-3)
    assert ledger.verify() == ledger.head()
    told = " ".join(found.best_estimator_.privacy_.assumptions)
    assert "5 charges" in told


@pytest.mark.filterwarnings("ignore:One or more of the test scores:UserWarning")
def test_a_capped_ledger_stops_a_grid_search_at_its_cap(tmp_path):
    ledger = Ledger(tmp_path / "spent.db", cap=Budget(3.0, 1e-3))
    with pytest.warns(FitFailedWarning, match="BudgetExceededError"):
        GridSearchCV(
            DPClassifier(**SETTINGS, ledger=ledger), {"epochs": [1, 2]}, cv=2, refit=False
        ).fit(X, Y)
    assert 1 <= len(ledger) <= 3
    assert ledger.spent().epsilon <= 3.0 + 1e-9


def test_a_function_of_all_rows_at_once_is_not_free():
    centre = FunctionTransformer(lambda rows: (rows - rows.mean(0)) / rows.std(0))
    pipeline = make_pipeline(centre, DPClassifier(**SETTINGS, ledger=Ledger())).fit(X, Y)
    found = pipeline_guarantee(pipeline)
    assert math.isinf(found.epsilon)
    assert "functiontransformer" in found.unsafe[0]
    identity = make_pipeline(FunctionTransformer(), DPClassifier(**SETTINGS, ledger=Ledger()))
    assert pipeline_guarantee(identity.fit(X, Y)).epsilon <= 1.0
