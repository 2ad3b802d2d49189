"""A sender whose machine has a wrong clock: deadlines, due times and leases go by the database's."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from email_project.emails.models import SentEmail
from email_project.emails.settlement import DeliveryPolicy
from shared_events.outbox.claim import in_seconds
from tests.email_project.factories import row
from tests.email_project.senders import Sending, state, status
from tests.smtp_servers import Script, ScriptedSmtpServer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.fault(60)]
Status = SentEmail.Status
Start = Callable[..., Sending]
DAY = timedelta(days=1)
SLOW = DeliveryPolicy(max_attempts=12, retry_base_seconds=600, retry_max_seconds=600, max_resends=10)


@pytest.fixture(params=[DAY, -DAY], ids=["a day ahead", "a day behind"])
def _wrong_clock(request: pytest.FixtureRequest) -> Iterator[None]:
    with time_machine.travel(datetime.now(UTC) + request.param, tick=True):
        yield


def store_with_deadlines() -> tuple[SentEmail, SentEmail]:
    """Two mails, by the database's clock: one an hour before its deadline, one an hour past it."""
    in_time, too_late = row(send_before=in_seconds(3600)), row(send_before=in_seconds(-3600))
    SentEmail.objects.bulk_create([in_time, too_late])
    return in_time, too_late


@pytest.mark.usefixtures("_wrong_clock")
def test_a_deadline_is_judged_by_the_databases_clock(server: ScriptedSmtpServer, start: Start) -> None:
    in_time, too_late = store_with_deadlines()
    start().run_until_settled()
    assert (status(in_time.pk), status(too_late.pk)) == (Status.SENT, Status.FAILED)
    assert state(too_late.pk).failure_class == "expired"
    assert len(server.received) == 1


@pytest.mark.usefixtures("_wrong_clock")
def test_a_mail_is_sent_when_it_is_due_by_the_databases_clock(server: ScriptedSmtpServer, start: Start) -> None:
    due, later = row(due_at=in_seconds(-1)), row(due_at=in_seconds(3600))
    SentEmail.objects.bulk_create([due, later])
    start().run_until(lambda: status(due.pk) == Status.SENT)
    assert (status(later.pk), len(server.received)) == (Status.PROCESSING, 1)


@pytest.mark.usefixtures("_wrong_clock")
def test_a_refusal_before_the_deadline_is_tried_again_after_its_wait(server: ScriptedSmtpServer, start: Start) -> None:
    server.script = Script(steps={"rcpt": ["451 4.3.0 Later"]})
    in_time = row(send_before=in_seconds(3600))
    SentEmail.objects.bulk_create([in_time])
    start(policy=SLOW).run_until(lambda: state(in_time.pk).status_version == 1)
    assert (status(in_time.pk), state(in_time.pk).retry_count) == (Status.RETRY_PENDING, 1)
    assert SentEmail.objects.filter(due_at__gt=in_seconds(250), due_at__lte=in_seconds(600)).exists()


def test_a_clock_that_jumps_while_a_mail_is_on_its_way_costs_no_lease(server: ScriptedSmtpServer, start: Start) -> None:
    SentEmail.objects.bulk_create([row() for _ in range(40)])
    sending = start(connections=1)
    sending.run_until(lambda: server.received)
    with time_machine.travel(datetime.now(UTC) + DAY, tick=True):
        sending.run_until_settled()
    fields = ("status", "status_version", "possible_duplicates")
    assert set(SentEmail.objects.values_list(*fields)) == {(Status.SENT, 1, 0)}
    assert len(server.received) == 40
