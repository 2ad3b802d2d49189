"""The topic is read again from its beginning, as after a loss or an expiry of the group's offsets: nothing is sent again."""

import uuid
from collections import Counter
from collections.abc import Callable

import pytest
from django.core.checks import run_checks
from pytest_django import Settings

from email_project.emails.intake import Intake
from email_project.emails.models import SentEmail
from shared_events.contracts.events import encode
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop
from shared_events.kafka.producer import OutgoingRecord
from shared_events.outbox.models import OutboxEvent
from shared_events.runtime.database import is_passing
from tests.email_project.factories import created, reports
from tests.email_project.senders import Sending
from tests.shared_events.kafka.conftest import Broker, mock_cluster
from tests.shared_events.probes import wait_until
from tests.smtp_servers import ScriptedSmtpServer

pytestmark = pytest.mark.django_db(transaction=True)
COUNT = 20


def read_all(broker: Broker, topic: str, sending: Sending) -> None:
    """Takes in the whole topic, as a group that has no offsets."""
    seen: list[int] = []
    intake = Intake(sending.sender, ring=sending.ring)

    def handle(records: list[object]) -> None:
        intake.handle(records)  # type: ignore[arg-type]
        seen.extend([1] * len(records))

    loop = ConsumerLoop(
        broker.consumer(f"group-{uuid.uuid4()}"),
        topic,
        handle,  # type: ignore[arg-type]
        write_dead_letter=write_dead_letter,
        is_passing=is_passing,
    )

    def all_seen() -> bool:
        loop.run_once(0.2)
        return len(seen) >= COUNT

    wait_until(all_seen, seconds=40)
    loop.close()


@pytest.mark.fault(32)
def test_a_topic_that_is_read_again_from_its_beginning_sends_nothing_again(
    server: ScriptedSmtpServer, start: Callable[..., Sending]
) -> None:
    events = [created() for _ in range(COUNT)]
    sending = start()
    with mock_cluster() as broker:
        topic = broker.new_topic()
        producer = broker.producer()
        producer.publish(
            [OutgoingRecord(topic, str(event.notification_id).encode(), encode(event), []) for event in events]
        )
        producer.close()
        read_all(broker, topic, sending)
        sending.run_until_settled()
        before = (len(reports()), OutboxEvent.objects.count())
        read_all(broker, topic, sending)
        sending.run_until_settled()
    mails = Counter(mail.message_id for mail in server.received)
    assert mails == {f"<{event.notification_id}@example.com>": 1 for event in events}
    assert (len(reports()), OutboxEvent.objects.count()) == before
    assert set(SentEmail.objects.values_list("status", "possible_duplicates")) == {("SENT", 0)}
    assert not DeadLetter.objects.exists()


@pytest.mark.fault(32)
def test_a_retention_that_would_forget_what_can_still_be_read_again_is_refused(settings: Settings) -> None:
    settings.TOPIC_RETENTION_DAYS = 30.0
    settings.SENT_EMAILS_RETENTION_DAYS = 61.9
    assert [found.id for found in run_checks() if found.id == "retention.E001"] == ["retention.E001"]
    settings.SENT_EMAILS_RETENTION_DAYS = 62.0
    assert not [found for found in run_checks() if found.id == "retention.E001"]
