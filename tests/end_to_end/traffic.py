"""Clients that post all the time, as clients do: a request that was not accepted is repeated with the same key."""

import http.client
import threading
import time
import uuid
from collections import Counter
from typing import Self

from tests.end_to_end.platform import Answer, Platform, wait_until

CLIENTS = 4
PAUSE_SECONDS = 0.15
REPEAT_SECONDS = 0.25
REPEAT_FOR_SECONDS = 60.0
REPEATED = frozenset({409, 503})


class Traffic:
    """Posts inside the `with` block; at its end each request that was begun has been answered 202, or `finish` says which was not.

    `refusals` and `broken` hold what was answered otherwise meanwhile, `slowest_seconds` is the longest single request.
    """

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._rows_before = platform.count("notification", "notifications")
        self._mails_before = platform.mails()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._post_until_ended, name=f"client-{n}") for n in range(CLIENTS)]
        self.ids: list[str] = []
        self.refusals: list[Answer] = []
        self.broken: list[str] = []
        self.failures: list[str] = []
        self.slowest_seconds = 0.0

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self, count: int, timeout_seconds: float = 30) -> None:
        """Returns when `count` more were accepted than now."""
        wanted = len(self.ids) + count
        wait_until(lambda: len(self.ids) >= wanted or self.failures, timeout_seconds, f"{count} more are accepted")
        assert not self.failures, self.failures

    def wait_until_flowing(self) -> None:
        """Returns when mails posted here are sent and known to be: every process does its work."""
        sent = "status = 'SENT'"
        before = self._platform.count("notification", "notifications", sent)
        wait_until(lambda: self._platform.count("notification", "notifications", sent) > before, 90, "a mail is SENT")

    def assert_each_is_sent_once(self, timeout_seconds: float) -> None:
        """All that was accepted, and nothing else, is stored and SENT; no mail came twice and none is suspected to have."""
        self.assert_each_is_sent(timeout_seconds)
        copies = {name: n for name, n in self._new_mails().items() if n > 1}
        assert not copies, f"sent more than once: {copies}"
        assert self._platform.count("notification", "notifications", "possible_duplicates > 0") == 0

    def assert_each_is_sent(self, timeout_seconds: float) -> None:
        """As above, but copies are allowed up to the number that `possible_duplicates` announces."""
        assert not self.failures, self.failures
        assert len(self.ids) == len(set(self.ids))
        self._platform.wait_all_sent(self._rows_before + len(self.ids), timeout_seconds)
        self._platform.assert_nothing_open()
        mails, announced = self._new_mails(), self._announced()
        assert set(mails) == set(self.ids), f"{set(self.ids) ^ set(mails)}"
        unannounced = {name: n for name, n in mails.items() if n > 1 + announced[name]}
        assert not unannounced, f"more copies than announced: {unannounced}"

    def _new_mails(self) -> Counter[str]:
        new = self._platform.mails() - self._mails_before
        return Counter({name.strip("<>").partition("@")[0]: n for name, n in new.items()})

    def _announced(self) -> dict[str, int]:
        rows = self._platform.sql("notification", "SELECT id, possible_duplicates FROM notifications")
        return {str(uuid.UUID(str(key))): int(n) for key, n in rows}

    def _post_until_ended(self) -> None:
        while not self._ended.is_set():
            if not self._post_until_accepted(uuid.uuid4().hex):
                return
            self._ended.wait(PAUSE_SECONDS)

    def _post_until_accepted(self, key: str) -> bool:
        deadline = time.monotonic() + REPEAT_FOR_SECONDS
        while time.monotonic() < deadline:
            began = time.monotonic()
            try:
                answer = self._platform.post(idempotency_key=key, recipient=f"{key}@example.com")
            except (OSError, http.client.HTTPException) as error:
                self.broken.append(repr(error))
            else:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - began)
                if answer.status == 202:
                    self.ids.append(str(answer.json()["id"]))
                    return True
                self.refusals.append(answer)
                if answer.status not in REPEATED:
                    break
            time.sleep(REPEAT_SECONDS)
        last = self.refusals[-1] if self.refusals else self.broken[-1:]
        self.failures.append(f"{key} was not accepted: {last}")
        return False
