"""Rate limits: fixed windows in Redis, per client by django-ratelimit, per recipient by one pipeline. Without Redis they are open."""

import hashlib
import hmac
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis
from django.conf import settings
from django.core.cache import caches
from django.http import HttpRequest
from django_ratelimit.core import ALL, _get_window, _make_cache_key, get_usage
from django_redis import get_redis_connection

from shared_events.service.problems import Problem

from .idempotency import redis_breaker
from .models import ApiClient

GROUP = "notifications"
LEFTOVER_SECONDS = 86_401
RATE = re.compile(r"([1-9]\d*)/([1-9]\d*)?([smhd])", re.ASCII)
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@dataclass(frozen=True, slots=True)
class Rate:
    quota: int
    window_seconds: int

    @classmethod
    def parse(cls, text: str) -> "Rate | None":
        """`600/m`, `5/10s`; None for `0`, which switches the limit off. ValueError for anything else."""
        if text == "0":
            return None
        match = RATE.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is no rate: write 0, or a number of requests by time such as 600/m, 5/10s, 1000/h"
            )
        return cls(int(match[1]), int(match[2] or 1) * _UNIT_SECONDS[match[3]])


@dataclass(frozen=True, slots=True)
class Usage:
    """What is left of a limit, and in how many seconds its window ends."""

    name: str
    rate: Rate
    left: int
    resets_in_seconds: int

    def headers(self) -> dict[str, str]:
        """The RateLimit fields of draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"{self.name}";q={self.rate.quota};w={self.rate.window_seconds}',
            "RateLimit": f'"{self.name}";r={max(0, self.left)};t={self.resets_in_seconds}',
        }


class Count:
    """What one request counted: `take` counts, `give_back` takes it back. Both are quiet where Redis is away."""

    def __init__(self, request: HttpRequest, client: ApiClient, recipients: Sequence[str], *, is_batch: bool) -> None:
        self._request = request
        self._client_value = str(client.pk)
        self._recipients = recipients
        self._is_batch = is_batch
        self._client_key: str | None = None
        self._recipient_counts: dict[str, int] = {}
        self.usages: list[Usage] = []
        self.over: list[int] = []

    @property
    def tightest(self) -> Usage | None:
        return min(self.usages, key=lambda usage: usage.left / usage.rate.quota, default=None)

    def take(self) -> None:
        """Counts the request; Problem 429 where a limit is used up. What was counted then is taken back."""
        self._take_client()
        self._take_recipients()
        spent = next((usage for usage in self.usages if usage.left < 0), None)
        if spent is None:
            return
        self.give_back()
        raise RateLimitedError(spent, self.over if self._is_batch and spent.name == "recipient" else [])

    def give_back(self) -> None:
        client_key, self._client_key = self._client_key, None
        if client_key is not None and redis_breaker.is_closed:
            with suppress(ValueError):  # its window has ended, or Redis was flushed: nothing is left to take back
                caches[settings.RATELIMIT_USE_CACHE].decr(client_key)
        counts, self._recipient_counts = self._recipient_counts, {}
        if not counts or not redis_breaker.allow():
            return
        try:
            pipeline = get_redis_connection("default").pipeline(transaction=False)
            for key, count in counts.items():
                pipeline.decrby(key, count)
                pipeline.expire(key, LEFTOVER_SECONDS)  # a key that has expired meanwhile would be made anew, for ever
            pipeline.execute()
            redis_breaker.success()
        except redis.RedisError as error:
            redis_breaker.failure(type(error).__name__)

    def _take_client(self) -> None:
        rate = Rate.parse(settings.RATE_LIMIT_CLIENT)
        if rate is None or not redis_breaker.allow():
            return
        window = _get_window(self._client_value, rate.window_seconds)
        usage: dict[str, Any] | None = get_usage(
            self._request,
            group=GROUP,
            key=lambda _group, _request: self._client_value,
            rate=(rate.quota, rate.window_seconds),
            increment=True,
        )
        if usage is None:  # RATELIMIT_FAIL_OPEN
            redis_breaker.failure("rate limit not counted")
            return
        redis_breaker.success()
        self._client_key = _make_cache_key(GROUP, window, (rate.quota, rate.window_seconds), self._client_value, ALL)
        self.usages.append(Usage("client", rate, rate.quota - usage["count"], usage["time_left"] + 1))

    def _take_recipients(self) -> None:
        rate = Rate.parse(settings.RATE_LIMIT_RECIPIENT)
        if rate is None or any(usage.left < 0 for usage in self.usages) or not redis_breaker.allow():
            return
        now = time.time()
        window = int(now // rate.window_seconds)
        resets_in_seconds = int((window + 1) * rate.window_seconds - now) + 1
        keys = [
            f"notifyx-limit:recipient:{window}:{rate.window_seconds}:{_hashed(recipient)}"
            for recipient in self._recipients
        ]
        wanted = Counter(keys)
        try:
            pipeline = get_redis_connection("default").pipeline(transaction=True)
            for key, count in wanted.items():
                pipeline.incrby(key, count)
                pipeline.expire(key, rate.window_seconds + 1)
            answers = pipeline.execute()
            redis_breaker.success()
        except redis.RedisError as error:
            redis_breaker.failure(type(error).__name__)
            return
        self._recipient_counts = dict(wanted)
        totals = dict(zip(wanted, answers[::2], strict=True))
        self.usages.append(Usage("recipient", rate, rate.quota - max(totals.values()), resets_in_seconds))
        before = {key: totals[key] - count for key, count in wanted.items()}
        for index, key in enumerate(keys):
            before[key] += 1
            if before[key] > rate.quota:
                self.over.append(index)


def _hashed(recipient: str) -> str:
    return hmac.digest(settings.SECRET_KEY.encode(), recipient.lower().encode(), hashlib.sha256).hex()[:32]


class RateLimitedError(Problem):
    """429 with the limit's headers, and a pointer to each item of a batch that is over it."""

    def __init__(self, usage: Usage, over: Sequence[int]) -> None:
        detail = f"The limit of {usage.rate.quota} in {usage.rate.window_seconds} s per {usage.name} is used up; nothing was stored."
        super().__init__(
            429, "rate-limited", detail, retry_after_seconds=usage.resets_in_seconds, headers=usage.headers()
        )
        self.errors = [
            {
                "pointer": f"/notifications/{index}/recipient",
                "code": "rate-limited",
                "detail": "The limit of this recipient is used up.",
            }
            for index in over
        ]
