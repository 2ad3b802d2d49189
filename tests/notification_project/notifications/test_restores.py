"""After a database was restored from a backup: this one asks, and reminds the other one of what it has forgotten."""

from datetime import timedelta
from io import StringIO
from typing import Any

import hypothesis
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from notification_project.notifications.restores import ask_again
from shared_events.contracts.events import (
    Attempt,
    EmailDeferred,
    EmailFailed,
    EmailReplayed,
    EmailSent,
    EmailStatusKnown,
    EmailUncertain,
    Failure,
    Uncertain,
    decode,
    encode,
    new_id,
    now,
)
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.models import ProcessState
from tests.notification_project.factories import NotificationFactory, OutboxEventFactory, ago, ahead, record

pytestmark = [pytest.mark.django_db, pytest.mark.fault(61)]

AFTER_SECONDS = 900
SENT_AT = ago(minutes=30)
FLOOR = 60_000_000
RESTORED = Uncertain(phase="restored", since=ago(minutes=1), host="", message_id="<a@b>", next="held")
ATTEMPT = Attempt(n=1, at=ago(hours=1), phase="reply", outcome="sent", code=250)
FIELDS: dict[type[Any], dict[str, Any]] = {
    EmailSent: {"sent_at": SENT_AT},
    EmailFailed: {"failure": Failure(failure_class="policy", code="5.7.1", detail="no")},
    EmailDeferred: {"next_attempt_at": ahead(minutes=5)},
    EmailUncertain: {"uncertain": RESTORED},
    EmailReplayed: {},
}


Report = tuple[type[Any], int, dict[str, Any]]
"""Type, version, other fields."""


def merge(row: Any, *reports: Report) -> None:
    """Reports of one mail in one batch."""
    envelope = {"notification_id": row.pk, "occurred_at": now(), "producer": "email-service"}
    events = [
        kind(event_id=new_id(), status_version=version, **{**envelope, **FIELDS[kind], **fields})
        for kind, version, fields in reports
    ]
    status.handle([record(encode(event), offset=offset) for offset, event in enumerate(events)])
    row.refresh_from_db()


def reminders() -> list[EmailStatusKnown]:
    rows = OutboxEvent.objects.filter(event_type="EMAIL_STATUS_KNOWN").order_by("id")
    return [decode(bytes(event.payload), expected=(EmailStatusKnown,)) for event in rows]


@pytest.mark.parametrize("kind", [EmailUncertain, EmailFailed, EmailDeferred])
def test_a_mail_that_was_sent_is_recalled_where_the_email_service_has_forgotten_it(kind: type[Any]) -> None:
    row = NotificationFactory.create(
        status="SENT", status_version=2, sent_at=SENT_AT, generation=1, possible_duplicates=1, reconcile_at=None
    )
    merge(row, (kind, FLOOR, {"generation": FLOOR}))
    assert (row.status, row.possible_duplicates) == ("SENT", 1)
    known = reminders()[0]
    assert (known.notification_id, known.status, known.sent_at) == (row.pk, "SENT", SENT_AT)
    assert (known.generation, known.possible_duplicates) == (1, 1)


@pytest.mark.parametrize("order", [1, -1])
def test_a_sent_that_comes_with_newer_word_in_one_batch_is_recalled(order: int) -> None:
    row = NotificationFactory.create()
    sent: Report = (EmailSent, 1, {"attempts": [ATTEMPT]})
    uncertain: Report = (EmailUncertain, FLOOR, {})
    merge(row, *[sent, uncertain][::order])
    assert row.status == "SENT"
    assert [(known.status, known.sent_at, known.attempts) for known in reminders()] == [("SENT", SENT_AT, [ATTEMPT])]


def test_a_sent_that_comes_after_newer_word_is_recalled() -> None:
    row = NotificationFactory.create(status="UNCERTAIN", status_version=FLOOR, generation=FLOOR)
    merge(row, (EmailSent, 1, {}))
    assert row.status == "SENT"
    assert [known.status for known in reminders()] == ["SENT"]


@pytest.mark.parametrize("known_as", ["PENDING", "FAILED", "UNCERTAIN"])
def test_a_failure_of_a_past_generation_is_answered_and_not_believed(known_as: str) -> None:
    row = NotificationFactory.create(status=known_as, status_version=3, generation=1)
    merge(row, (EmailFailed, FLOOR, {"generation": 0}))
    assert (row.status, row.status_version) == (known_as, 3)
    assert [(known.status, known.generation) for known in reminders()] == [(known_as, 1)]
    merge(row, (EmailUncertain, FLOOR + 1, {"generation": 2}))
    assert (row.status, row.generation, len(reminders())) == ("UNCERTAIN", 2, 1)


def test_copies_that_were_announced_are_not_taken_back() -> None:
    row = NotificationFactory.create(status_version=3, possible_duplicates=2)
    merge(row, (EmailUncertain, FLOOR, {"generation": FLOOR, "possible_duplicates": 1}))
    assert (row.status, row.possible_duplicates) == ("UNCERTAIN", 2)
    assert [known.possible_duplicates for known in reminders()] == [2]


def test_a_restored_mail_that_knows_fewer_attempts_does_not_shorten_the_timeline() -> None:
    row = NotificationFactory.create(status_version=3, attempts=[{"n": 1}, {"n": 2}])
    merge(row, (EmailUncertain, FLOOR, {"generation": FLOOR}))
    assert (row.status, row.attempts) == ("UNCERTAIN", [{"n": 1}, {"n": 2}])


REPLAYED_THEN_RESTORED: list[Report] = [
    (EmailReplayed, 5, {"generation": 1}),
    (EmailFailed, FLOOR, {"generation": 0}),
]
RESENT_THEN_RESTORED: list[Report] = [
    (EmailDeferred, 5, {"possible_duplicates": 2, "attempts": [ATTEMPT]}),
    (EmailUncertain, FLOOR, {"generation": FLOOR, "possible_duplicates": 0}),
]


@pytest.mark.parametrize("split", [0, 1], ids=["together", "one by one"])
@pytest.mark.parametrize(
    ("reports", "expected"),
    [(REPLAYED_THEN_RESTORED, ("PENDING", 1, 0, 0)), (RESENT_THEN_RESTORED, ("UNCERTAIN", FLOOR, 2, 1))],
)
def test_grouping_loses_no_generation_and_no_copies(reports: list[Report], expected: Any, split: int) -> None:
    row = NotificationFactory.create(status="FAILED", status_version=1)
    for batch in (reports[:split], reports[split:]):
        merge(row, *batch)
    assert (row.status, row.generation, row.possible_duplicates, len(row.attempts)) == expected
    assert [(known.generation, known.possible_duplicates) for known in reminders()] == [expected[1:3]]


reports_of_one_mail = st.lists(
    st.builds(
        lambda kind, version, generation, copies: (kind, version, {"generation": generation, "possible_duplicates": copies}),
        st.sampled_from([*FIELDS]), st.integers(1, 4), st.integers(0, 2), st.integers(0, 2),
    ),
    min_size=2, max_size=5,
)  # fmt: skip


@hypothesis.settings(max_examples=30, deadline=None)
@given(reports=reports_of_one_mail, split=st.integers(0, 5))
def test_any_grouping_of_reports_ends_in_the_same_row_and_the_same_reminders(reports: list[Report], split: int) -> None:
    def outcome(*batches: list[Report]) -> Any:
        row = NotificationFactory.create()
        for batch in batches:
            merge(row, *batch)
        is_reminded = any(known.notification_id == row.pk for known in reminders())
        return row.status, row.status_version, row.generation, row.possible_duplicates, is_reminded

    assert outcome(reports[:split], reports[split:]) == outcome(*[[report] for report in reports])


ORDINARY: list[list[Report]] = [
    [(EmailSent, 1, {})],
    [(EmailDeferred, 1, {}), (EmailSent, 2, {})],
    [(EmailFailed, 2, {"generation": 1}), (EmailDeferred, 1, {})],
    [(EmailUncertain, 1, {}), (EmailSent, 2, {"possible_duplicates": 1, "generation": 1})],
]


@pytest.mark.parametrize("reports", ORDINARY)
def test_a_mails_ordinary_way_reminds_nobody(reports: list[Report]) -> None:
    row = NotificationFactory.create()
    merge(row, *reports)
    merge(row, *reversed(reports))
    assert reminders() == []


def restored(**fields: Any) -> Any:
    """A notification as a backup had it, with its event (`event`)."""
    event = fields.pop("event", {})
    row = NotificationFactory.create(**fields)
    OutboxEventFactory.create(notification=row, **event)
    return row


@pytest.mark.parametrize("fields", [{"status": "PENDING"}, {"status": "UNCERTAIN", "reconcile_at": ahead(days=1)}])
def test_every_open_one_is_due_for_the_reconciler_at_once(fields: dict[str, Any]) -> None:
    row = restored(reconciled=5, **fields)
    assert ask_again(after_seconds=AFTER_SECONDS) == (1, 1, 0, 0)
    assert list(Notification.objects.due_for_reconciling(AFTER_SECONDS)) == [row]
    row.refresh_from_db()
    assert row.reconciled == 0


def test_a_failed_one_is_asked_after_once_more_since_it_may_have_been_replayed() -> None:
    row = restored(status="FAILED", status_version=1, failure_class="policy", reconcile_at=None)
    assert ask_again(after_seconds=AFTER_SECONDS) == (1, 0, 1, 0)
    event = OutboxEvent.objects.get()
    assert (event.status, event.publication) == ("PENDING", 2)
    row.refresh_from_db()
    assert (row.status, row.reconcile_at) == ("FAILED", None)


@pytest.mark.parametrize("final", ["SENT", "CANCELLED"])
def test_what_cannot_have_changed_is_not_asked_after(final: str) -> None:
    restored(status=final, reconcile_at=None)
    assert ask_again(after_seconds=AFTER_SECONDS) == (1, 0, 0, 0)
    assert OutboxEvent.objects.get().status == "PUBLISHED"


def test_an_event_that_was_due_since_may_have_been_published_and_cannot_be_cancelled() -> None:
    waiting = {"status": "PENDING", "claims": 0, "due_at": ago(minutes=5), "published_at": None}
    row = restored(event=waiting)
    assert ask_again(after_seconds=AFTER_SECONDS) == (1, 1, 0, 1)
    event = OutboxEvent.objects.get()
    assert (event.status, event.publication, event.claims) == ("PENDING", 2, 1)
    assert OutboxEvent.objects.filter(aggregate_id=row.pk).cancel_unclaimed() == 0


def test_what_is_scheduled_for_later_cannot_have_been_published_and_stays_as_it_is() -> None:
    later = ahead(days=1)
    row = restored(
        send_after=later, reconcile_at=later, event={"status": "PENDING", "claims": 0, "due_at": later, "published_at": None}
    )  # fmt: skip
    assert ask_again(after_seconds=AFTER_SECONDS) == (1, 0, 0, 0)
    row.refresh_from_db()
    assert row.reconcile_at == later
    assert OutboxEvent.objects.filter(aggregate_id=row.pk).cancel_unclaimed() == 1


def test_all_batches_are_seen_and_doing_it_again_changes_nothing_more() -> None:
    for _ in range(5):
        restored()
    assert ask_again(after_seconds=AFTER_SECONDS, batch=2) == (5, 5, 0, 0)
    assert ask_again(after_seconds=AFTER_SECONDS, batch=2) == (5, 5, 0, 0)
    assert set(OutboxEvent.objects.values_list("status", "publication")) == {("PUBLISHED", 1)}


def test_the_command_says_what_it_did_and_refuses_while_the_relay_runs() -> None:
    restored(reconcile_at=now() - timedelta(minutes=1))
    out = StringIO()
    call_command("after_restore", stdout=out)
    assert "the API writes no row of process_state" in out.getvalue()
    assert "1 notifications seen: 1 open ones are due for reconciling" in out.getvalue()
    ProcessState.objects.create(id="host:1:relay_outbox", command="relay_outbox", started_at=now(), updated_at=now())
    with pytest.raises(CommandError, match="host:1:relay_outbox"):
        call_command("after_restore", stdout=out)


@pytest.mark.fault(52)
def test_a_status_of_a_notification_that_is_gone_can_be_replayed_when_it_is_back() -> None:
    gone = NotificationFactory.build(client=None)
    event = EmailSent(
        event_id=new_id(), notification_id=gone.pk, occurred_at=now(), producer="email-service", status_version=1, sent_at=SENT_AT
    )  # fmt: skip
    status.handle([record(encode(event))])
    assert DeadLetter.objects.get().letter_class == "orphan_status"
    back = NotificationFactory.create(id=gone.pk)
    call_command("replay_dead_letters", "--all", "--reason", "restored in full", stdout=StringIO())
    back.refresh_from_db()
    assert (back.status, back.sent_at) == ("SENT", SENT_AT)
    assert not DeadLetter.objects.open().exists()
