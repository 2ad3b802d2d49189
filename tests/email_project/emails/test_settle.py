"""Settling: each row, its status event and its dead letter, together or not at all."""

from typing import Any

import msgspec
import pytest
from django.db import OperationalError, connection

from email_project.emails.delivery import Delivery, Result
from email_project.emails.models import SentEmail
from email_project.emails.outcomes import EXPIRED, FOUND_MARKED, POISON, Kind
from email_project.emails.settlement import DeliveryPolicy, settle
from email_project.emails.smtp import Phase
from shared_events.contracts.events import Attempt, EmailNotificationCreated, decode
from shared_events.dead_letters.models import DeadLetter
from shared_events.outbox.claim import in_seconds
from shared_events.outbox.models import OutboxEvent
from tests.email_project.factories import (
    HOST,
    POLICY,
    TOKEN,
    ago,
    ahead,
    attempts,
    claimed,
    dead_letter_events,
    reports,
    result,
)
from tests.email_project.senders import state
from tests.shared_events.probes import counted_sql

pytestmark = pytest.mark.django_db
Status = SentEmail.Status


def settle_one(
    kind: Kind | None, mail: Delivery | None = None, policy: DeliveryPolicy = POLICY, **fields: Any
) -> SentEmail:
    """Settles one claimed mail and returns its row."""
    mail = mail or claimed()[0]
    assert settle([result(mail, kind, **fields)], TOKEN, policy) == 0
    row = state(mail.id)
    assert (row.lease_token, row.crashes, row.data_started_at) == (0, 0, None)
    return row


def is_due_within(row: SentEmail, low: float, high: float) -> bool:
    return bool(SentEmail.objects.filter(pk=row.pk, due_at__gte=in_seconds(low), due_at__lte=in_seconds(high)).exists())


def test_sent_is_final_and_reported() -> None:
    row = settle_one(Kind.SENT)
    assert (row.status, row.status_version, row.retry_count, row.due_at) == (Status.SENT, 1, 0, None)
    assert row.sent_at is not None
    report = reports()[0]
    assert (type(report).__name__, report.status_version, report.sent_at) == ("EmailSent", 1, row.sent_at)
    assert (report.notification_id, report.producer) == (row.pk, "email-service")
    event = OutboxEvent.objects.get()
    assert (event.topic, event.aggregate_id, event.status) == ("notification-status-topic", row.pk, "PENDING")


def test_a_refusal_for_now_is_due_again_and_said_to_be_deferred() -> None:
    row = settle_one(Kind.RETRY, claimed(retry_count=2, status=Status.RETRY_PENDING)[0])
    assert (row.status, row.status_version, row.retry_count, row.possible_duplicates) == (Status.RETRY_PENDING, 1, 3, 0)
    assert is_due_within(row, 20, 45)
    report = reports()[0]
    assert (type(report).__name__, report.status_version) == ("EmailDeferred", 1)
    assert 20 < (report.next_attempt_at - ago(seconds=0)).total_seconds() <= 45


@pytest.mark.fault(38)
def test_uncertain_is_sent_again_and_counted_apart_from_refusals() -> None:
    row = settle_one(Kind.UNCERTAIN, claimed(retry_count=1, possible_duplicates=2)[0])
    assert (row.status, row.retry_count, row.possible_duplicates) == (Status.RETRY_PENDING, 1, 3)
    assert is_due_within(row, 60, 135)
    report = reports()[0]
    assert (type(report).__name__, report.possible_duplicates) == ("EmailDeferred", 3)
    assert not DeadLetter.objects.exists()


@pytest.mark.fault(38)
def test_uncertain_is_held_where_its_sender_wants_that() -> None:
    row = settle_one(Kind.UNCERTAIN, claimed(on_uncertain="hold")[0], phase=Phase.BODY)
    assert (row.status, row.due_at, row.possible_duplicates) == (Status.UNCERTAIN, None, 0)
    assert (row.uncertain_phase, row.uncertain_host) == ("body", HOST)
    uncertain = reports()[0].uncertain
    assert (uncertain.phase, uncertain.host, uncertain.message_id) == ("body", HOST, row.message_id)
    assert uncertain.since == row.uncertain_since
    assert not DeadLetter.objects.exists()


def test_the_resends_come_to_an_end() -> None:
    assert settle_one(Kind.UNCERTAIN, claimed(possible_duplicates=9)[0]).status == Status.RETRY_PENDING
    held = settle_one(Kind.UNCERTAIN, claimed(possible_duplicates=10)[0])
    assert (held.status, held.possible_duplicates) == (Status.UNCERTAIN, 10)


def test_a_final_refusal_fails_and_leaves_a_dead_letter() -> None:
    row = settle_one(Kind.FAILED, claimed(retry_count=1, generation=2)[0])
    assert (row.status, row.retry_count, row.due_at) == (Status.FAILED, 2, None)
    failure = (row.failure_class, row.failure_code, row.failure_detail)
    assert failure == ("recipient", "5.1.1", "5.1.1 No such user")
    report = reports()[0]
    assert (type(report).__name__, report.status_version) == ("EmailFailed", 1)
    assert (report.failure.failure_class, report.failure.code, report.failure.detail) == failure
    letter = DeadLetter.objects.get()
    assert (letter.notification_id, letter.generation, letter.letter_class) == (row.pk, 2, "recipient")
    assert letter.cause == "5.1.1 No such user"
    assert [event.notification_id for event in dead_letter_events()] == [row.pk]
    assert OutboxEvent.objects.get(event_type="DEAD_LETTER_RECORDED").topic == "email-dlq-topic"


def test_its_dead_letter_holds_the_event_as_it_came() -> None:
    mail = claimed(html="<p>Hi</p>", reply_to="help@example.com", send_before=ahead(hours=1), on_uncertain="hold")[0]
    settle_one(Kind.FAILED, mail)
    event = decode(bytes(DeadLetter.objects.get().original or b""), expected=(EmailNotificationCreated,))
    for name in ("event_id", "recipient", "subject", "message", "html", "reply_to", "send_before", "on_uncertain"):
        assert getattr(event, name) == getattr(mail, name)
    assert (event.notification_id, event.created_at) == (mail.id, mail.created_at)


def test_the_last_refusal_of_the_budget_fails() -> None:
    row = settle_one(Kind.RETRY, claimed(retry_count=11)[0])
    assert (row.status, row.retry_count, row.failure_class) == (Status.FAILED, 12, "exhausted")
    assert DeadLetter.objects.get().letter_class == "exhausted"


@pytest.mark.parametrize(("outcome", "failure_class"), [(EXPIRED, "expired"), (POISON, "poison")])
def test_what_no_server_refused_counts_no_refusal(outcome: Any, failure_class: str) -> None:
    mail = claimed(retry_count=3)[0]
    settle([Result(delivery=mail, outcome=outcome, host="")], TOKEN, POLICY)
    row = state(mail.id)
    assert (row.status, row.retry_count, row.failure_class) == (Status.FAILED, 3, failure_class)


def test_found_marked_is_settled_as_uncertain() -> None:
    mail = claimed()[0]
    settle([Result(delivery=mail, outcome=FOUND_MARKED, host="")], TOKEN, POLICY)
    row = state(mail.id)
    assert (row.status, row.possible_duplicates) == (Status.RETRY_PENDING, 1)
    assert row.attempts[-1]["outcome"] == "uncertain"


@pytest.mark.parametrize("kind", [None, Kind.DEPENDENCY, Kind.CONFIGURATION])
def test_what_did_not_leave_goes_back_as_it_was(kind: Kind | None) -> None:
    row = settle_one(kind, claimed(retry_count=2, attempts=attempts(2), status=Status.RETRY_PENDING)[0])
    assert (row.status, row.status_version, row.retry_count, len(row.attempts)) == (Status.RETRY_PENDING, 0, 2, 2)
    assert is_due_within(row, -60, 0.01)
    assert not OutboxEvent.objects.exists()


def test_what_a_server_gave_up_on_goes_back_for_half_a_minute_at_most_and_costs_nothing() -> None:
    mail = claimed(retry_count=2, attempts=attempts(2), status=Status.RETRY_PENDING)[0]
    row = settle_one(Kind.DEPENDENCY, mail, phase=Phase.RCPT)
    assert (row.status, row.status_version, row.retry_count, len(row.attempts)) == (Status.RETRY_PENDING, 0, 2, 2)
    assert is_due_within(row, 14, 30)
    assert not OutboxEvent.objects.exists()


def test_an_attempt_is_kept_with_the_servers_words() -> None:
    row = settle_one(Kind.RETRY, claimed(attempts=attempts(3))[0])
    assert [attempt["n"] for attempt in row.attempts] == [1, 2, 3, 4]
    last = msgspec.convert(row.attempts[-1], Attempt)
    assert (last.phase, last.outcome, last.code, last.enhanced_code) == ("rcpt", "retry", 451, "4.3.0")
    assert (last.reply, last.host) == ("4.3.0 Try again later", HOST)
    assert reports()[0].attempts == msgspec.convert(row.attempts, list[Attempt])


def test_the_last_twenty_attempts_are_kept_and_numbered_on() -> None:
    row = settle_one(Kind.RETRY, claimed(attempts=attempts(25)[-20:])[0], POLICY)
    assert [attempt["n"] for attempt in row.attempts] == list(range(7, 27))


def test_a_long_answer_fits() -> None:
    detail = "5.1.1 " + "x" * 494
    row = settle_one(Kind.FAILED, reply=detail, code="5.1.1")
    assert row.failure_detail == detail
    assert len(DeadLetter.objects.get().cause) == 500


def test_all_kinds_at_once_are_settled_each_as_alone() -> None:
    kinds = [Kind.SENT, Kind.RETRY, Kind.UNCERTAIN, Kind.FAILED, None, Kind.SENT, Kind.FAILED]
    mails = claimed(len(kinds))
    assert settle([result(mail, kind) for mail, kind in zip(mails, kinds, strict=True)], TOKEN, POLICY) == 0
    states = [state(mail.id).status for mail in mails]
    assert states == ["SENT", "RETRY_PENDING", "RETRY_PENDING", "FAILED", "PROCESSING", "SENT", "FAILED"]
    assert (len(reports()), DeadLetter.objects.count(), len(dead_letter_events())) == (6, 2, 2)


def test_values_do_not_mix_between_rows() -> None:
    mails = claimed(3)
    answers = [("5.1.1", "recipient"), ("5.3.4", "size"), ("5.7.1", "policy")]
    settle(
        [result(mail, Kind.FAILED, code=c, failure_class=f) for mail, (c, f) in zip(mails, answers, strict=True)],
        TOKEN,
        POLICY,
    )
    rows = [state(mail.id) for mail in mails]
    assert [(row.failure_code, row.failure_class) for row in rows] == answers


@pytest.mark.fault(51)
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("table", ["outbox_events", "dead_letters"])
def test_row_event_and_dead_letter_are_one_transaction(table: str) -> None:
    mail = claimed()[0]

    def lose(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT") and table in sql:
            raise OperationalError(2013, "Lost connection during query")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(lose), pytest.raises(OperationalError):
        settle([result(mail, Kind.FAILED)], TOKEN, POLICY)
    assert (state(mail.id).status, state(mail.id).lease_token) == (Status.PROCESSING, TOKEN)
    assert (OutboxEvent.objects.count(), DeadLetter.objects.count()) == (0, 0)
    settle_one(Kind.FAILED, mail)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("count", [1, 32])
def test_claimed_marked_and_settled_as_sent_costs_four_statements_and_two_commits(mariadb: None, count: int) -> None:
    with counted_sql() as sql:
        claimed(count)
    prepared = len(sql.of("INSERT"))
    SentEmail.objects.all().delete()
    with counted_sql() as sql:
        mails = claimed(count)
        settle([result(mail, Kind.SENT) for mail in mails], TOKEN, POLICY)
    assert (len(sql.statements) - prepared, sql.commits - 1) == (4, 2)


@pytest.mark.parametrize(
    ("kinds", "statements"),
    [
        ([Kind.SENT], 2),
        ([Kind.SENT, Kind.RETRY], 3),
        ([Kind.SENT, Kind.RETRY, Kind.UNCERTAIN], 4),
        ([Kind.SENT, Kind.RETRY, Kind.UNCERTAIN, None], 5),
        ([Kind.SENT, Kind.FAILED], 6),
    ],
)
def test_each_further_kind_of_outcome_costs_one_statement_and_dead_letters_three(
    mariadb: None, kinds: list[Kind | None], statements: int
) -> None:
    results = [result(mail, kinds[n % len(kinds)]) for n, mail in enumerate(claimed(20))]
    with counted_sql() as sql:
        settle(results, TOKEN, POLICY)
    assert len(sql.statements) == statements
