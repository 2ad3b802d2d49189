"""The load of a proof: clients that repeat a request with its key until it is accepted, and what they were answered."""

import http.client
import random
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any, Self

from tests.end_to_end.platform import Answer, Platform, wait_until

CLIENTS = 4
PAUSE_SECONDS = 0.3
BATCH = 5
REPEAT_SECONDS = 0.25
REPEAT_FOR_SECONDS = 150.0
REFUSED = "refused-"
"""Addresses that begin so are refused by the scripted server where a fault tells it to."""


@dataclass(slots=True, kw_only=True)
class Mix:
    """What the clients post: shares of batches, of mails that are held when uncertain, and of addresses that may be refused."""

    batches: float = 0.2
    held: float = 0.25
    refused: float = 0.0
    pause_seconds: float = PAUSE_SECONDS


@dataclass(slots=True)
class Load:
    """Posts inside the `with` block. At its end each request that was begun has been answered 202, or is in `unanswered`.

    `reference` is the client_reference of each notification; `accepted` their ids, `held` those of them with on_uncertain=hold.
    `refusals` has for each refusal when (monotonic clock) its request was refused first: one that an ended API had begun is refused
    until its mark in Redis has run out, which may be in the next fault. `unknown_outcomes` counts those whose COMMIT was not answered.
    """

    platform: Platform
    reference: str
    mix: Mix
    seed: int
    accepted: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    unanswered: list[str] = field(default_factory=list)
    refusals: list[float] = field(default_factory=list)
    unknown_outcomes: int = 0
    _abandoned: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._threads = [
            threading.Thread(target=self._post_until_ended, args=(random.Random(f"{self.seed}-{n}"),), name=f"load-{n}")
            for n in range(CLIENTS)
        ]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._abandoned = kind is not None
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int = 10, timeout_seconds: float = 60) -> None:
        """Returns when `count` more were accepted than now."""
        wanted = len(self.accepted) + count
        wait_until(lambda: len(self.accepted) >= wanted, timeout_seconds, f"{count} more are accepted")

    def burst(self, count: int, size: int = 250) -> None:
        """Posts `count` in batches at once, from this thread."""
        for first in range(0, count, size):
            items = [self._item("resend", f"burst-{uuid.uuid4().hex}") for _ in range(min(size, count - first))]
            assert self._post_until_accepted({"notifications": items}), self.unanswered

    def _post_until_ended(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            size = BATCH if chance.random() < self.mix.batches else 1
            policy = "hold" if chance.random() < self.mix.held else "resend"
            prefix = REFUSED if chance.random() < self.mix.refused else ""
            items = [self._item(policy, f"{prefix}{chance.getrandbits(64):x}") for _ in range(size)]
            if not self._post_until_accepted({"notifications": items} if size > 1 else items[0]):
                return
            self._ended.wait(self.mix.pause_seconds)

    def _item(self, policy: str, name: str) -> dict[str, Any]:
        return {
            "recipient": f"{name}@example.com",
            "subject": "Proof",
            "message": "A mail that must not be lost and must not be sent twice.",
            "client_reference": self.reference,
            "on_uncertain": policy,
        }

    def _post_until_accepted(self, body: dict[str, Any]) -> bool:
        path = "/api/v1/notifications/batch" if "notifications" in body else "/api/v1/notifications"
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        deadline = time.monotonic() + REPEAT_FOR_SECONDS
        refused_at = 0.0
        last: Answer | str = "nothing was answered"
        while time.monotonic() < deadline and not self._abandoned:
            try:
                answer = last = self.platform.request("POST", path, body, headers=headers)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            else:
                if answer.status == 202:
                    self._note(body, answer)
                    return True
                self.unknown_outcomes += b'"outcome-unknown"' in answer.body
                if answer.status not in (409, 429, 503):
                    break
            refused_at = refused_at or time.monotonic()
            self.refusals.append(refused_at)
            time.sleep(REPEAT_SECONDS)
        self.unanswered.append(f"{path}: {last}")
        return False

    def _note(self, body: dict[str, Any], answer: Answer) -> None:
        found = answer.json()
        ids = [str(item["id"]) for item in found["notifications"]] if "notifications" in body else [str(found["id"])]
        self.accepted += ids
        if (body.get("notifications") or [body])[0]["on_uncertain"] == "hold":
            self.held.update(ids)
