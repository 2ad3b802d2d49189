"""Parked records are released by the consumers themselves, as soon as a version runs that can read them."""

import time
from collections.abc import Callable

from .replay import release_parked, replayer_from_settings

LOOK_EVERY_SECONDS = 60.0


class ParkedRelease:
    """`run_once` looks at most once a minute, the first time at once (a new version has just started)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked_at = -LOOK_EVERY_SECONDS
        self._replayer = replayer_from_settings()

    def run_once(self) -> int:
        """How many records were released. Raises the database's errors."""
        if self._clock() - self._looked_at < LOOK_EVERY_SECONDS:
            return 0
        self._looked_at = self._clock()
        return release_parked(self._replayer)
