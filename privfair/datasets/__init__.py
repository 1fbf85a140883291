"""Data sets: pinned, verified before they are read, never substituted silently.

Every loader returns a :class:`DatasetBunch` (a scikit-learn ``Bunch``) with a public
``schema``. Files are sought in ``data_home``, in the folder of ``PRIVFAIR_DATA_DIR`` and in
the user's cache, and downloaded only where that is allowed.
"""

from privfair.core._lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "_adult": ["fetch_adult"],
        "_bunch": ["DatasetBunch"],
        "_compas": ["fetch_compas"],
        "_credit": ["fetch_credit_default", "fetch_german"],
        "_files": ["is_available"],
        "_lookalike": ["make_adult_like", "make_compas_like"],
        "_others": ["fetch_bank", "fetch_california_housing", "fetch_motor", "fetch_pums"],
        "_registry": ["available_datasets", "dataset_info"],
        "_tools": ["download_dataset", "verify_datasets"],
    },
)
