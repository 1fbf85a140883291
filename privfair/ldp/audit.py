"""Attacks on local randomisers, and what they can tell: the auditor's side of ``privfair.ldp``.

Exact where the law is known (:func:`exact_epsilon`, :func:`attack_success`), statistical where a
randomiser can only be run (:func:`black_box`), and a bound on what false reports can do
(:func:`max_manipulation`).
"""

from privfair.ldp._attacks import (
    attack_success,
    averaging_attack,
    guess_values,
    match_rate,
    max_manipulation,
)
from privfair.ldp._black_box import black_box
from privfair.ldp._protocol import exact_epsilon

__all__ = [
    "attack_success",
    "averaging_attack",
    "black_box",
    "exact_epsilon",
    "guess_values",
    "match_rate",
    "max_manipulation",
]
