"""Wake-ups through Redis: they make a relay immediate. Polling makes it certain, so a lost one costs a poll and nothing else."""

import time
from typing import Any

import redis
import structlog
from redis.backoff import NoBackoff
from redis.retry import Retry

from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.stop import StopSignal

SLICE_SECONDS = 0.5  # a blocked BLPOP does not see the stop signal
SOCKET_SECONDS = 0.5

log = structlog.get_logger(__name__)


class WakeUp:
    """A list in Redis that holds at most one token per `name`: ringing sets it, waiting takes it."""

    def __init__(self, url: str, name: str) -> None:
        self._key = f"notifyx:wake:{name}"
        self._breaker = CircuitBreaker("redis wake-up")
        # Without `retry` redis-py tries three times more, with seconds between.
        self._client: Any = redis.Redis.from_url(
            url,
            socket_timeout=SLICE_SECONDS + SOCKET_SECONDS,
            socket_connect_timeout=SOCKET_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def ring(self) -> None:
        """Never raises. Blocks up to a second where Redis is silent, and not at all while it is known to be away."""
        if not self._breaker.allow():
            return
        try:
            pipeline = self._client.pipeline(transaction=False)
            self.ring_in(pipeline)
            pipeline.execute()
            self._breaker.success()
        except redis.RedisError as error:
            self._breaker.failure(type(error).__name__)

    def ring_in(self, pipeline: Any) -> None:
        """Adds the two commands of a ring to a pipeline of the caller's."""
        pipeline.lpush(self._key, b"1")
        pipeline.ltrim(self._key, 0, 0)

    def wait(self, seconds: float, stop: StopSignal) -> None:
        """Blocks until a ring, a stop, or `seconds` have passed."""
        end = time.monotonic() + seconds
        while not stop.received and (left := end - time.monotonic()) > 0:
            if not self._breaker.allow():
                stop.wait(left)
                return
            try:
                rung = self._client.blpop([self._key], timeout=max(0.01, min(SLICE_SECONDS, left)))
                self._breaker.success()
            except redis.RedisError as error:
                self._breaker.failure(type(error).__name__)
                continue
            if rung:
                return
