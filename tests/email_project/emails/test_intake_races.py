"""Intake beside another consumer, and with a database that fails in the middle."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import DataError, IntegrityError, OperationalError, connection

from email_project.emails.intake import Intake
from email_project.emails.models import SentEmail
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop
from tests.email_project.factories import created, record, reports, row
from tests.email_project.senders import Sending

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sending() -> Sending:
    return Sending()


@pytest.fixture
def intake(sending: Sending) -> Intake:
    return Intake(sending.sender, ring=sending.ring)


def before_insert(act: Callable[[], None], *, times: int = 1) -> Any:
    """Calls `act` before the first inserts into sent_emails, as another process would."""
    left = times

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        nonlocal left
        if left and sql.startswith("INSERT") and "sent_emails" in sql:
            left -= 1
            act()
        return execute(sql, params, many, context)

    return connection.execute_wrapper(wrapper)


def test_one_that_another_consumer_stored_meanwhile_is_left_to_it(intake: Intake, sending: Sending) -> None:
    taken, free = created(), created()

    def act() -> None:
        row(id=taken.notification_id, lease_token=99).save(force_insert=True)

    with before_insert(act):
        intake.handle([record(taken), record(b"{"), record(free)])
    # One connection plays both, so the other's row was rolled back with ours; what counts is that we looked again.
    assert SentEmail.objects.count() == 2
    assert DeadLetter.objects.count() == 1
    assert sending.held >= {free.notification_id}


def test_a_race_that_never_ends_is_no_batch_of_dead_letters(intake: Intake, sending: Sending) -> None:
    def act() -> None:
        raise IntegrityError(1062, "Duplicate entry")

    with before_insert(act, times=3), pytest.raises(IntegrityError):
        intake.handle([record(created())])
    assert not sending.held
    assert not DeadLetter.objects.exists()


@pytest.mark.fault(28)
def test_two_consumers_of_the_same_records_store_each_once(mariadb: None) -> None:
    events = [created() for _ in range(60)]
    sendings = [Sending(), Sending()]
    together = threading.Barrier(2, timeout=30)

    def take_in(sending: Sending) -> None:
        intake = Intake(sending.sender, ring=sending.ring)
        try:
            for start in range(0, 60, 10):
                together.wait()
                intake.handle([record(event) for event in events[start : start + 10]])
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(take_in, sendings))
    assert SentEmail.objects.count() == 60
    one, other = (sending.held for sending in sendings)
    assert not one & other
    for sending in sendings:
        assert SentEmail.objects.filter(lease_token=sending.sender.token).count() == len(sending.held)
    assert not reports()


@pytest.mark.fault(26)
def test_a_database_that_goes_away_leaves_nothing_handed_over(intake: Intake, sending: Sending) -> None:
    def act() -> None:
        raise OperationalError(2013, "Lost connection during query")

    event = created()
    with before_insert(act), pytest.raises(OperationalError):
        intake.handle([record(event)])
    assert not sending.held
    intake.handle([record(event)])
    assert sending.held == {event.notification_id}


class OneBatch:
    """A consumer that hands nothing over by itself."""

    def subscribe(self, *_: object, **__: object) -> None: ...

    def poll(self, _timeout: float) -> None: ...

    def commit(self, **_: object) -> None: ...


def test_an_event_that_no_column_holds_is_a_dead_letter_alone(mariadb: None, intake: Intake) -> None:
    too_long, good = created(subject="x" * 256), created()
    with pytest.raises(DataError):
        intake.handle([record(too_long)])
    loop = ConsumerLoop(
        OneBatch(),  # type: ignore[arg-type]
        "notification-events-topic",
        intake.handle,
        write_dead_letter=write_dead_letter,
        is_passing=lambda error: isinstance(error, OperationalError),
    )
    loop._pending = [record(too_long, offset=4), record(good, offset=5)]
    assert loop.run_once() == 2
    assert SentEmail.objects.get().pk == good.notification_id
    assert (DeadLetter.objects.get().letter_class, DeadLetter.objects.get().cause) == ("handler_error", "DataError")
