"""Each worker ended in the midst of its work, orderly and not, and two of each at once."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

import pytest

from tests.end_to_end.platform import WORKERS, Platform, wait_until
from tests.smtp_servers import Script, ScriptedSmtpServer, Step

DELAY = Script(steps={"reply": [Step(reply="250 2.0.0 Ok: queued", delay_seconds=0.02)]})
BUSY = {
    # Small ones, so that there is always a batch under way, and the reconciler works at what takes longer than a second.
    "OUTBOX_BATCH": "25",
    "RETRY_POLL_SECONDS": "0.1",
    "RECONCILE_AFTER_SECONDS": "1",
    "RECONCILE_POLL_SECONDS": "0.2",
    "EMAIL_RETRY_BASE_SECONDS": "1",
}
SHORT_LEASES = {"KAFKA_MESSAGE_TIMEOUT_SECONDS": "5", "OUTBOX_LEASE_SECONDS": "6", "EMAIL_LEASE_SECONDS": "5"}
OUTBOX_OF = {"notification_relay_outbox": "notification", "email_relay_outbox": "email"}
BATCH, BATCHES = 20, 30


@dataclass(slots=True)
class Flow:
    """600 notifications that are posted in small batches inside the `with` block, and what came of them at the server."""

    platform: Platform
    server: ScriptedSmtpServer
    ids: list[str] = field(default_factory=list)
    before: int = 0
    seen: int = 0
    _poster: threading.Thread | None = None
    _errors: list[Exception] = field(default_factory=list)

    def __enter__(self) -> Self:
        self.before = self.platform.count("notification", "notifications")
        self.seen = len(self.server.received)
        self._poster = threading.Thread(target=self._post, name="poster")
        self._poster.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._poster is not None
        self._poster.join()
        assert not self._errors, self._errors

    def wait_until_arrived(self, count: int) -> None:
        """Returns when the server has received `count` of them: many more are on their way at every stage."""
        wait_until(lambda: len(self.server.received) >= self.seen + count, 40, f"{count} mails have come")

    def wait_all_sent(self, timeout_seconds: float) -> None:
        """Returns when every one is SENT and no row or record is left to do."""
        assert len(self.ids) == BATCH * BATCHES
        self.platform.wait_all_sent(self.before + len(self.ids), timeout_seconds)
        self.platform.assert_nothing_open()

    def copies(self) -> Counter[str]:
        """How often each came to the server, by notification id. Only those posted here may have come."""
        found = Counter(mail.message_id.strip("<>").partition("@")[0] for mail in self.server.received[self.seen :])
        assert set(found) == set(self.ids), f"{len(set(self.ids) - set(found))} are missing"
        return found

    def _post(self) -> None:
        try:
            for _ in range(BATCHES):
                self.ids += self.platform.post_batches(BATCH, size=BATCH)
                time.sleep(0.02)  # a client's pace: the flow lasts long enough to be interrupted
        except Exception as error:  # noqa: BLE001 (shown by the thread that asserts)
            self._errors.append(error)


def possible_duplicates(platform: Platform) -> dict[str, int]:
    rows = platform.sql("email", "SELECT id, possible_duplicates FROM sent_emails WHERE possible_duplicates > 0")
    return {str(UUID(str(key))): int(count) for key, count in rows}


def leases(platform: Platform, service: str, table: str) -> set[int]:
    """The fencing tokens of all that hold rows of a table."""
    return {int(row[0]) for row in platform.sql(service, f"SELECT DISTINCT lease_token FROM {table}")} - {0}


@pytest.fixture(scope="class")
def server() -> Iterator[ScriptedSmtpServer]:
    with ScriptedSmtpServer(DELAY) as server:
        yield server


@pytest.fixture(scope="class")
def orderly(prepared: Platform, server: ScriptedSmtpServer) -> Iterator[Platform]:
    with prepared.running(**BUSY, EMAIL_URL=f"smtp://127.0.0.1:{server.port}") as platform:
        yield platform


class TestSigterm:
    """Leases are those of production, a minute: what was not released could not be sent in the time that is waited here."""

    @pytest.mark.fault(25)
    @pytest.mark.parametrize("name", WORKERS)
    def test_a_worker_that_is_told_to_end_releases_its_work_and_nothing_is_lost_or_doubled(
        self, orderly: Platform, server: ScriptedSmtpServer, name: str
    ) -> None:
        with Flow(orderly, server) as flow:
            flow.wait_until_arrived(1 if name == "notification_relay_outbox" else 100)
            assert orderly.one(name).terminate() == 0
            if name in OUTBOX_OF:
                assert leases(orderly, OUTBOX_OF[name], "outbox_events") == set()
            if name in ("consume_events", "retry_emails"):
                assert len(leases(orderly, "email", "sent_emails")) <= 1  # the other's
            orderly.start(name)
        flow.wait_all_sent(40)
        assert set(flow.copies().values()) == {1}
        assert possible_duplicates(orderly) == {}
        assert list(orderly.logs("traceback", "lease lost")) == []


@pytest.fixture(scope="class")
def abrupt(prepared: Platform, server: ScriptedSmtpServer) -> Iterator[Platform]:
    with prepared.running(**BUSY, **SHORT_LEASES, EMAIL_URL=f"smtp://127.0.0.1:{server.port}") as platform:
        yield platform


class TestSigkill:
    @pytest.mark.fault(13, 14, 15, 26, 27, 37)
    @pytest.mark.parametrize("name", WORKERS)
    def test_a_worker_that_is_killed_loses_nothing_and_each_further_copy_is_the_same_mail_and_counted(
        self, abrupt: Platform, server: ScriptedSmtpServer, name: str
    ) -> None:
        with Flow(abrupt, server) as flow:
            flow.wait_until_arrived(1 if name == "notification_relay_outbox" else 100)
            abrupt.one(name).kill()
            abrupt.start(name)
        flow.wait_all_sent(60)
        counted = possible_duplicates(abrupt)
        uncounted = {key: n for key, n in flow.copies().items() if n > 1 + counted.get(key, 0)}
        assert not uncounted, f"more copies than possible_duplicates says: {uncounted}"
        if name not in ("consume_events", "retry_emails"):
            assert set(flow.copies().values()) == {1}
        assert list(abrupt.logs("traceback")) == []


@pytest.mark.fault(23)
def test_two_of_every_worker_share_the_work_without_a_deadlock_and_send_each_mail_once(platform: Platform) -> None:
    platform.start_all()
    platform.start(*WORKERS)
    ids = platform.post_batches(5000)
    platform.wait_all_sent(len(ids), 90)
    platform.assert_nothing_open()
    platform.assert_one_mail_each(ids)
    assert platform.count("notification", "notifications", "possible_duplicates > 0") == 0
    assert list(platform.logs("deadlock", "traceback", "lease lost")) == []
    codes = platform.stop_all()
    assert set(codes.values()) == {0}, codes
    assert len(codes) == 1 + 2 * len(WORKERS)
