"""Ctrl-C and SIGTERM: noted when they come, acted on where the demo looks."""

import signal
from types import FrameType


class Interruption:
    """Whether the demo was asked to end. Its handler only notes that: an exception raised out of a signal handler can
    come up inside an at-fork hook or a finalizer, where Python drops it.
    """

    def __init__(self) -> None:
        self._received = False

    def listen(self) -> None:
        """From here on SIGINT and SIGTERM are noted. For the main thread only."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the demo was asked to end."""
        if self._received:
            raise KeyboardInterrupt

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._received = True
