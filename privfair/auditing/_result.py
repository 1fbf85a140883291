"""What an attack found: the type that local audits share (:mod:`privfair.core.attack`)."""

from privfair.core.attack import AttackResult

__all__ = ["AttackResult"]
