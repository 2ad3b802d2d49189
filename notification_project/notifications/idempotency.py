"""Idempotency keys. The truth is a row of `idempotency_keys`; Redis only makes the answer quick and the 409 prompt."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec
import redis
from django.conf import settings
from django_redis import get_redis_connection
from rest_framework.exceptions import ValidationError

from shared_events.contracts.events import now
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.breaker import CircuitBreaker

from .models import ApiClient, IdempotencyKey
from .problems import key_reused

MARK = b"running"
MARK_SECONDS = 30
_KEY = re.compile(r'^"?([\x21\x23-\x2b\x2d-\x7e]{1,255})"?$')

redis_breaker = CircuitBreaker("redis")


class StoredAnswer(msgspec.Struct, frozen=True):
    """What a key was answered; `expires_at` is a POSIX time in seconds."""

    fingerprint: bytes
    status_code: int
    location: str
    body: bytes
    expires_at: float

    def check(self, fingerprint: bytes) -> "StoredAnswer":
        """Itself, for the same body; Problem 422 for another one."""
        if fingerprint != self.fingerprint:
            raise key_reused()
        return self


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(StoredAnswer)


@dataclass(frozen=True, slots=True)
class Key:
    """A client's key for one method and path, as its hash: MySQL's collation cannot confuse `abc`, `ABC` and `abc `."""

    hash: bytes

    @property
    def cache_key(self) -> str:
        return f"notifyx:idempotency:{self.hash.hex()}"


def key_of(header: str | None, client: ApiClient, method: str, path: str) -> Key | None:
    """None without a header; ValidationError for one that is no key. A quoted key and a bare one are the same (RFC 8941 strings)."""
    if header is None:
        return None
    match = _KEY.match(header)
    quoted = header.startswith('"'), header.endswith('"') and len(header) > 1
    if match is None or quoted[0] != quoted[1]:
        raise ValidationError(
            {
                "Idempotency-Key": [
                    "Send the header once, with 1 to 255 visible ASCII characters and no comma, space or quote."
                ]
            },
            code="invalid",
        )
    parts = "\0".join((str(client.pk), method, path, match[1]))
    return Key(hashlib.sha256(parts.encode()).digest())


def fingerprint_of(validated: Any) -> bytes:
    """SHA-256 of the canonical validated body: spelling and order of the JSON do not matter, its meaning does."""
    return hashlib.sha256(msgspec.json.encode(validated, order="deterministic")).digest()


class KeyStore:
    """The row's accelerator in Redis. Every method works without Redis, only slower."""

    def __init__(self, wake_up: WakeUp) -> None:
        self._wake_up = wake_up

    def begin(self, key: Key) -> tuple[bool, StoredAnswer | None]:
        """Sets the mark. (True, None): it is ours; (False, answer): it was answered before; (False, None): the row decides.

        Without Redis the mark counts as ours: the row's primary key lets only one through.
        """
        if not redis_breaker.allow():
            return True, None
        try:
            client: Any = get_redis_connection("default")
            if client.set(key.cache_key, MARK, nx=True, ex=MARK_SECONDS):
                redis_breaker.success()
                return True, None
            value = client.get(key.cache_key)
            redis_breaker.success()
        except redis.RedisError as error:
            redis_breaker.failure(type(error).__name__)
            return True, None
        if value is None or value == MARK:
            return False, None
        try:
            return False, _decoder.decode(value)
        except msgspec.MsgspecError:  # of another version: the row decides
            return False, None

    def forget(self, key: Key) -> None:
        """Takes our mark away, so that a legitimate retry is executed at once."""
        if not redis_breaker.allow():
            return
        try:
            get_redis_connection("default").delete(key.cache_key)
            redis_breaker.success()
        except redis.RedisError as error:
            redis_breaker.failure(type(error).__name__)

    def finish(self, key: Key | None, answer: StoredAnswer | None, *, ring: bool) -> None:
        """Puts the answer in the mark's place for what is left of its life, and wakes the relay: one round trip."""
        if not redis_breaker.allow():
            return
        try:
            client: Any = get_redis_connection("default")
            pipeline = client.pipeline(transaction=False)
            if key is not None and answer is not None:
                left = int(answer.expires_at - now().timestamp())
                pipeline.set(key.cache_key, _encoder.encode(answer), ex=max(1, left))
            if ring:
                self._wake_up.ring_in(pipeline)
            pipeline.execute()
            redis_breaker.success()
        except redis.RedisError as error:
            redis_breaker.failure(type(error).__name__)


def stored_answer(key: Key) -> StoredAnswer | None:
    """The row's answer, None where there is none or it has expired. One query."""
    row = IdempotencyKey.objects.filter(pk=key.hash).first()
    if row is None or row.expires_at <= now():
        return None
    return StoredAnswer(
        bytes(row.fingerprint), row.status_code, row.location, bytes(row.body), row.expires_at.timestamp()
    )


def new_row(key: Key, fingerprint: bytes, *, status_code: int, location: str, body: bytes) -> IdempotencyKey:
    created_at = now()
    return IdempotencyKey(
        key_hash=key.hash,
        fingerprint=fingerprint,
        status_code=status_code,
        location=location,
        body=body,
        created_at=created_at,
        expires_at=created_at + timedelta(seconds=settings.IDEMPOTENCY_TTL_SECONDS),
    )


def take_over(row: IdempotencyKey) -> bool:
    """Puts `row` in the place of an expired one with the same hash; False where it is not (or no longer) expired."""
    values = {
        name: getattr(row, name)
        for name in ("fingerprint", "status_code", "location", "body", "created_at", "expires_at")
    }
    return bool(IdempotencyKey.objects.filter(pk=row.pk, expires_at__lte=now()).update(**values))


def expires_header(answer: StoredAnswer) -> str:
    """Until when the key answers, RFC 3339."""
    return datetime.fromtimestamp(answer.expires_at, tz=now().tzinfo).strftime("%Y-%m-%dT%H:%M:%SZ")
