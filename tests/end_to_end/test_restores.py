"""One of the two databases is restored from an older backup: both services agree again, and nothing is sent twice by itself."""

import ast
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from tests.end_to_end.platform import EMAIL_TABLES, NOTIFICATION_TABLES, Platform, wait_until

pytestmark = pytest.mark.fault(61)

COUNT = 20
EMAIL_WORKERS = ("consume_events", "retry_emails", "email_relay_outbox")
NOTIFICATION_WORKERS = ("notification_relay_outbox", "consume_status", "reconcile_notifications")
TABLES = {"notification": NOTIFICATION_TABLES, "email": EMAIL_TABLES}


@pytest.fixture
def platform(platform: Platform) -> Platform:
    platform.overrides = {
        "RECONCILE_AFTER_SECONDS": "3",
        "RECONCILE_POLL_SECONDS": "1",
        "EMAIL_RETRY_BASE_SECONDS": "1",
    }
    return platform


@dataclass(frozen=True, slots=True)
class Backup:
    """The tables of one service as they were when it was made."""

    platform: Platform
    service: str
    made_at: datetime

    @classmethod
    def make(cls, platform: Platform, service: str) -> "Backup":
        for table in TABLES[service]:
            platform.sql(service, f"CREATE OR REPLACE TABLE backup_{table} AS SELECT * FROM {table}")
        return cls(platform, service, datetime.now(UTC))

    def restore(self) -> None:
        for table in TABLES[self.service]:
            self.platform.sql(self.service, f"DELETE FROM {table}")
            self.platform.sql(self.service, f"INSERT INTO {table} SELECT * FROM backup_{table}")
            self.platform.sql(self.service, f"DROP TABLE backup_{table}")


def post_and_wait_until_sent(platform: Platform, prefix: str) -> list[str]:
    ids = platform.post_batches(COUNT, prefix=prefix)
    for notification_id in ids:
        platform.wait_final(notification_id)
    return ids


def states(platform: Platform, service: str) -> dict[str, str]:
    table = "notifications" if service == "notification" else "sent_emails"
    return {
        str(uuid.UUID(str(key))): str(state) for key, state in platform.sql(service, f"SELECT id, status FROM {table}")
    }


def consumed(said: str) -> int:
    """The sum of the offsets that `after_restore` says were consumed before."""
    found: dict[str, int] = ast.literal_eval(said.partition("consumed before: ")[2].splitlines()[0])
    return sum(found.values())


def expected(**ids: Sequence[str]) -> dict[str, str]:
    return {notification_id: state for state, some in ids.items() for notification_id in some}


def wait_until_both_agree(platform: Platform, wanted: dict[str, str]) -> None:
    """Row by row, and nothing is open but what is held."""
    for service in ("notification", "email"):
        wait_until(
            lambda service=service: states(platform, service) == wanted,  # type: ignore[misc]
            40,
            f"{service} has {Counter(wanted.values())}, now {Counter(states(platform, service).values())}",
        )
    held = Counter(wanted.values())["UNCERTAIN"]
    wait_until(lambda: sum(platform.open_rows().values()) == held, 20, f"{held} open rows, now {platform.open_rows()}")
    assert platform.lag() == 0
    for project in ("notification_project", "email_project"):
        assert "BROKEN" not in platform.manage(project, "check_consistency")


def assert_mails(platform: Platform, ids: Iterable[str]) -> None:
    platform.assert_one_mail_each(ids)
    for service, table in (("notification", "notifications"), ("email", "sent_emails")):
        assert platform.count(service, table, "possible_duplicates > 0") == 0


def test_an_email_database_that_is_restored_agrees_again(platform: Platform) -> None:
    platform.start("notification_api", *NOTIFICATION_WORKERS, *EMAIL_WORKERS)
    sent_before = post_and_wait_until_sent(platform, "a")

    platform.services.stop("smtp_sink")
    open_then = platform.post_batches(COUNT, prefix="b")
    wait_until(lambda: platform.count("email", "sent_emails") == 2 * COUNT, 30, "all are taken in")
    backup = Backup.make(platform, "email")
    platform.services.start("smtp_sink")
    for notification_id in open_then:
        platform.wait_final(notification_id)
    sent_since = post_and_wait_until_sent(platform, "c")

    platform.services.stop("smtp_sink")
    open_since = platform.post_batches(COUNT, prefix="d")
    wait_until(lambda: platform.count("email", "sent_emails") == 4 * COUNT, 30, "all are taken in")
    wait_until(lambda: platform.lag() == 0, 20, "their offsets are committed")
    for worker in ("consume_events", "retry_emails"):
        assert platform.one(worker).terminate() == 0
    waiting = platform.post_batches(COUNT, prefix="e")
    published = "status = 'PUBLISHED' AND event_type = 'EMAIL_NOTIFICATION_CREATED'"
    wait_until(lambda: platform.count("notification", "outbox_events", published) == 5 * COUNT, 20, "all are published")
    assert platform.one("email_relay_outbox").terminate() == 0

    backup.restore()
    platform.services.start("smtp_sink")
    said = platform.manage("email_project", "after_restore", "--hold-waiting")
    assert f"{2 * COUNT} mails carried over, {COUNT} of them were open and are held, {COUNT} reported" in said
    again = platform.manage("email_project", "after_restore")  # the last one counts
    assert f"{2 * COUNT} mails carried over, 0 of them were open and are held, {COUNT} reported" in again
    assert consumed(said) - consumed(again) >= COUNT  # the reconciler has asked after others meanwhile
    platform.start(*EMAIL_WORKERS)
    platform.manage("notification_project", "relay_outbox", "--republish-since", backup.made_at.isoformat())
    sent = [*sent_before, *open_then, *sent_since, *waiting]
    wait_until_both_agree(platform, expected(SENT=sent, UNCERTAIN=open_since))
    assert_mails(platform, sent)

    answer = platform.request(
        "POST",
        f"/api/v1/notifications/{open_since[0]}/resolve",
        {"resolution": "resend", "reason": "not in the relay's log"},
    )
    assert answer.status == 202
    assert platform.wait_final(open_since[0])["possible_duplicates"] == 1
    assert set(platform.stop_all().values()) == {0}


@pytest.mark.fault(52)
def test_a_notification_database_that_is_restored_agrees_again(platform: Platform) -> None:
    platform.start("notification_api", *NOTIFICATION_WORKERS, *EMAIL_WORKERS)
    sent_before = post_and_wait_until_sent(platform, "a")
    assert platform.one("notification_relay_outbox").terminate() == 0
    pending = platform.post_batches(COUNT, prefix="b")
    backup = Backup.make(platform, "notification")
    platform.start("notification_relay_outbox")
    for notification_id in pending:
        platform.wait_final(notification_id)
    gone = post_and_wait_until_sent(platform, "c")
    platform.stop_all()

    backup.restore()
    said = platform.manage("notification_project", "after_restore")
    assert f"{2 * COUNT} notifications seen: {COUNT} open ones are due for reconciling" in said
    platform.start("notification_api", *NOTIFICATION_WORKERS, *EMAIL_WORKERS)
    refused = platform.request("POST", f"/api/v1/notifications/{pending[0]}/cancel")
    assert refused.status == 409
    platform.manage("email_project", "relay_outbox", "--republish-since", backup.made_at.isoformat())
    wait_until(lambda: platform.count("notification", "dead_letters") == COUNT, 30, "an orphan of each that is gone")
    platform.wait_all_sent(2 * COUNT, 30)
    platform.assert_nothing_open()
    kept = [*sent_before, *pending]
    assert states(platform, "notification") == expected(SENT=kept)
    assert states(platform, "email") == expected(SENT=[*kept, *gone])
    assert_mails(platform, [*kept, *gone])
    orphans = platform.sql("notification", "SELECT class, notification_id FROM dead_letters WHERE replayed_at IS NULL")
    assert {str(uuid.UUID(str(key))): letter_class for letter_class, key in orphans} == expected(orphan_status=gone)
    assert set(platform.stop_all().values()) == {0}
