"""The black-box tester of mechanisms, which lives with the other attacks."""

from privfair.auditing import assert_dp_lower_bound, dp_lower_bound

__all__ = ["assert_dp_lower_bound", "dp_lower_bound"]
