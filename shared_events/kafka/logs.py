"""librdkafka's own log lines, of which an outage makes one for each try to connect."""

import logging
import time
from collections.abc import Callable

EVERY_SECONDS = 60.0


class OncePerMinute(logging.Filter):
    """Lets the first line of a client, a broker and a kind through, and after that one a minute, which says how many it stands for."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._untold: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is to be written. The kind is what stands before the text: `FAIL [client] [thrd:broker]: text`."""
        text = record.getMessage()
        kind = text.partition("]: ")[0]
        at = self._clock()
        if at - self._told_at.get(kind, -EVERY_SECONDS) < EVERY_SECONDS:
            self._untold[kind] = self._untold.get(kind, 0) + 1
            return False
        self._told_at[kind] = at
        if untold := self._untold.pop(kind, 0):
            record.msg, record.args = f"{text} ({untold} more like it since the last line)", ()
        return True
