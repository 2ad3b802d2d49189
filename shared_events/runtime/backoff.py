"""How long to wait before the next try: for rows (half to whole of the wait) and for loops (full jitter)."""

import random


def row_wait_seconds(n: int, *, base_seconds: float, maximum_seconds: float) -> float:
    """The wait before retry number n (from 1): min(maximum, base × 3^(n-1)), jittered between half and whole of it.

    Rows keep at least half of their wait so that a retry never follows at once, and the other half spreads what failed together.
    """
    whole = min(maximum_seconds, base_seconds * 3.0 ** min(n - 1, 40))
    return random.uniform(whole / 2, whole)  # noqa: S311 (spreading load is no secret)


class LoopBackoff:
    """Full jitter for a loop whose dependency is away (AWS Architecture Blog, "Exponential Backoff And Jitter")."""

    def __init__(self, *, base_seconds: float = 0.2, maximum_seconds: float = 5.0) -> None:
        self._base = base_seconds
        self._maximum = maximum_seconds
        self._failures = 0

    def next_wait_seconds(self) -> float:
        """Counts a failure and says how long to wait now, in seconds."""
        self._failures += 1
        return random.uniform(0, min(self._maximum, self._base * 2.0 ** min(self._failures, 30)))  # noqa: S311

    def reset(self) -> None:
        self._failures = 0
