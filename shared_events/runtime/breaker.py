"""A circuit breaker: while a dependency is away nobody pays for asking it, and one probe at a time finds out when it is back."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

LOG_EVERY_SECONDS = 60.0

log = structlog.get_logger(__name__)


class CircuitBreaker:
    """Closed until `failure()`; then open, with one probe after `first_seconds`, doubling to `maximum_seconds`. Safe between threads.

    The clock is injected (seconds, monotonic). A probe that nobody reports on is given up after `maximum_seconds`.
    """

    def __init__(
        self,
        name: str,
        *,
        first_seconds: float = 1.0,
        maximum_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.reason = ""
        self._first = first_seconds
        self._maximum = maximum_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._wait = 0.0  # 0: closed
        self._probing = False
        self._opened_at = ""
        self._probe_at = 0.0
        self._logged_at = -LOG_EVERY_SECONDS
        self._loud = False

    @property
    def is_closed(self) -> bool:
        return self._wait == 0.0

    def as_dict(self) -> dict[str, str]:
        """For a status page: name, reason, and since when it is open."""
        with self._lock:
            return {"name": self.name, "reason": self.reason, "since": self._opened_at}

    @property
    def seconds_until_probe(self) -> float:
        """0 where closed or where a probe is due."""
        return 0.0 if self.is_closed else max(0.0, self._probe_at - self._clock())

    def allow(self) -> bool:
        """True where the caller may ask the dependency now; where the circuit is open the caller is its only probe and must report."""
        if self.is_closed:
            return True
        with self._lock:
            now = self._clock()
            if self.is_closed or now < self._probe_at:
                return self.is_closed
            self._probing = True
            self._probe_at = now + self._maximum
            return True

    def success(self) -> None:
        if self.is_closed:
            return
        with self._lock:
            self._wait = 0.0
            self._probing = False
            self.reason = ""
            loud, self._loud = self._loud, False
        if loud:
            log.warning("circuit closed", circuit=self.name)

    def failure(self, reason: str, *, hold_seconds: float | None = None) -> None:
        """Opens the circuit, or keeps it open for twice as long as before (`hold_seconds`: for exactly so long).

        A failure of somebody who was on the way when the circuit opened changes nothing.
        """
        with self._lock:
            now = self._clock()
            if self.is_closed:
                self._opened_at = datetime.now(UTC).isoformat(timespec="seconds")
            if hold_seconds is not None:
                self._wait = hold_seconds
            elif self.is_closed:
                self._wait = self._first
            elif self._probing:
                self._wait = min(self._maximum, self._wait * 2)
            else:
                return
            self._probing = False
            self._probe_at = now + self._wait
            self.reason = reason
            loud = now - self._logged_at >= LOG_EVERY_SECONDS
            if loud:
                self._logged_at = now
                self._loud = True
        if loud:
            log.error(
                "circuit open", circuit=self.name, reason=reason, probe_in_seconds=round(self.seconds_until_probe, 1)
            )
