"""An orderly end: SIGTERM and SIGINT become one plain attribute that loops look at."""

import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

SLICE_SECONDS = 0.1  # time.sleep() goes on after a signal handler has run (PEP 475), so a wait is made of slices


class StopSignal:
    """`with StopSignal() as stop:` handles SIGTERM and SIGINT inside the block; `stop.received` is False until one came.

    The handler puts the former handlers back, so that a second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.received = False
        self._noticed_at: float | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self.received = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def grace_is_over(self, grace_seconds: float) -> bool:
        """True where a signal was received and `grace_seconds` have passed since this was first asked after it."""
        if not self.received:
            return False
        if self._noticed_at is None:
            self._noticed_at = time.monotonic()
        return time.monotonic() - self._noticed_at >= grace_seconds

    def wait(self, seconds: float, *, each_slice: Callable[[], None] = lambda: None) -> None:
        """Blocks for `seconds`, or until a signal was received; calls `each_slice` about ten times a second meanwhile."""
        end = time.monotonic() + seconds
        while not self.received and (left := end - time.monotonic()) > 0:
            each_slice()
            time.sleep(min(SLICE_SECONDS, left))
