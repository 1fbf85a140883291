"""A mechanism: randomised response on one bit, after Warner (1965)."""

from privfair.accounting.events import RandomizedResponse, SelfComposed
from privfair.core import Mechanism, secret_stream
from privfair.core.exceptions import InvalidTypeError


class StickyCoin(Mechanism):
    """Tell the truth with probability 3/4, exactly: two secret bits, no floating point.

    Unit: one record, which is one bit; relation: replace_one. The odds of either answer differ
    by at most 3 between two inputs, so that epsilon = ln 3.
    """

    numerics = "exact"
    sensitivity = 1.0
    neighboring = "replace_one"

    def cost(self, count=1):
        event = RandomizedResponse(1.0986122886681098, 2)  # ln 3
        return event if count == 1 else SelfComposed(event, count)

    def _prepare(self, value):
        if not isinstance(value, bool):
            raise InvalidTypeError(f"value must be True or False, got {type(value).__name__}.")
        return value

    def _draw(self, prepared):
        lie = secret_stream().bytes(1)[0] & 3 == 0
        return prepared != lie
