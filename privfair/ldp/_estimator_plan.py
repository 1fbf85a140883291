"""What an estimator of local frequencies plans before it sees data, and certifies after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from privfair.core import _validation as check
from privfair.core.exceptions import InvalidParameterError
from privfair.core.privacy import UNITS, PrivacyGuarantee
from privfair.ldp._aggregator import _RULES
from privfair.ldp._domains import Domain, domains_of
from privfair.ldp._fakes import FAKES, GUARANTEES, RSFD, RSRFD
from privfair.ldp._protocol import check_local_epsilon
from privfair.ldp._rows import PROTOCOLS, SMP, SPL, RowStrategy

__all__ = ["EstimatorPlan"]

STRATEGIES = ("smp", "spl", "rsfd", "rsrfd")


class EstimatorPlan:
    """Parameters checked, domains and strategy made of them, and the guarantee of a strategy."""

    protocol: Any
    epsilon: Any
    strategy: Any
    schema: Any
    missing: Any
    postprocess: Any
    confidence: Any
    simultaneous: Any
    guarantee: Any
    fake: Any
    priors: Any
    unit: Any
    noise_random_state: Any
    strategy_: RowStrategy
    _charges: int

    def _check(self) -> None:
        check_local_epsilon(epsilon=self.epsilon)
        check.one_of(STRATEGIES, strategy=self.strategy)
        check.one_of(("error", "category"), missing=self.missing)
        check.one_of((None, *_RULES), postprocess=self.postprocess)
        check.confidence(confidence=self.confidence)
        check.boolean(simultaneous=self.simultaneous)
        check.one_of(GUARANTEES, guarantee=self.guarantee)
        check.one_of(FAKES, fake=self.fake)
        check.one_of(UNITS, unit=self.unit)
        fakes = self.strategy in ("rsfd", "rsrfd")
        if not fakes and self.guarantee != "tuple":
            raise InvalidParameterError(
                f"guarantee={self.guarantee!r} is for strategies with fake data; {self.strategy} "
                "protects whole rows at epsilon."
            )
        if fakes and self.protocol != "auto":
            raise InvalidParameterError(
                "with fake data the randomiser follows from fake=; leave protocol='auto'."
            )
        if (self.priors is not None) != (self.strategy == "rsrfd"):
            raise InvalidParameterError(
                "priors is what strategy='rsrfd' draws fakes from: give it there and only there."
            )
        if isinstance(self.protocol, Mapping):
            for name in self.protocol.values():
                check.one_of(("auto", *PROTOCOLS), protocol=name)
        else:
            check.one_of(("auto", *PROTOCOLS), protocol=self.protocol)

    def _domains(self, names: tuple[str, ...], *, named: bool | None) -> tuple[Domain, ...]:
        known = named if named is not None else isinstance(self.schema, Mapping)
        return domains_of(
            self.schema, names, named=bool(known), missing=self.missing == "category"
        )

    def _strategy_of(self, domains: tuple[Domain, ...]) -> RowStrategy:
        sizes = tuple(len(domain.values) for domain in domains)
        if self.strategy in ("smp", "spl"):
            make = SMP if self.strategy == "smp" else SPL
            return make(sizes, self.epsilon, tuple(self._protocol_of(d.name) for d in domains))
        if self.strategy == "rsfd":
            return RSFD(sizes, self.epsilon, self.fake, self.guarantee)
        absent = [domain.name for domain in domains if domain.name not in self.priors]  # type: ignore[operator]
        if absent:
            raise InvalidParameterError(f"priors has no distribution for columns {absent}.")
        priors = [self.priors[domain.name] for domain in domains]  # type: ignore[index]
        return RSRFD(sizes, self.epsilon, self.fake, self.guarantee, priors=priors)

    def _protocol_of(self, name: str) -> str:
        if isinstance(self.protocol, Mapping):
            return str(self.protocol.get(name, "auto"))
        return str(self.protocol)

    def _certificate(self) -> PrivacyGuarantee:
        from privfair.accounting import guarantee

        strategy, times = self.strategy_, max(1, self._charges)
        notes: tuple[str, ...] = (
            f"each {self.unit} is one row of one table and sends one report",
            "the domains are public; the reports were made by this package's randomisers",
        )
        if strategy.epsilon_tuple > strategy.epsilon * (1 + 1e-12):
            notes += (
                f"guarantee={self.guarantee!r}: epsilon = {strategy.epsilon:g} is not what whole "
                "rows are protected at; epsilon_tuple is, and it was charged",
            )
        return guarantee(
            (strategy.event(),) * times,
            delta=0.0,
            neighboring="replace_one",
            unit=self.unit,
            numerics="exact",
            seeded=self.noise_random_state is not None,
            assumptions=notes,
            details={
                "strategy": self.strategy,
                "guarantee": self.guarantee,
                "epsilon_declared": float(strategy.epsilon),
                "epsilon_tuple": strategy.epsilon_tuple,
                "epsilon_attribute": strategy.epsilon_attribute,
            },
        )
