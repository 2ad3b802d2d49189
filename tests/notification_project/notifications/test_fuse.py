"""A bad deploy of consume_status, restarted again and again: no status becomes a dead letter, and a good one merges all."""

from collections.abc import Sequence
from typing import Any

import pytest

from notification_project.notifications import status
from notification_project.notifications.models import Notification
from shared_events.contracts.events import EmailSent, encode, new_id, now
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop, Record
from shared_events.runtime.database import is_passing
from tests.notification_project.factories import NotificationFactory
from tests.shared_events.kafka.handlers import Arrived, ScriptedConsumer
from tests.shared_events.probes import Clock

pytestmark = pytest.mark.django_db
RECORDS = 60


def process(topic: Sequence[bytes]) -> ScriptedConsumer:
    clock = Clock()
    consumer = ScriptedConsumer([Arrived(0, offset, event) for offset, event in enumerate(topic)])

    def handle(records: Sequence[Record]) -> None:
        status.handle(records)

    loop = ConsumerLoop(
        consumer,  # type: ignore[arg-type]
        "events",
        handle,
        write_dead_letter=write_dead_letter,
        is_passing=is_passing,
        clock=clock,
    )
    for _ in range(8):
        loop.run_once(0)
        clock.advance(10)
    return consumer


def sent(notification: Notification) -> bytes:
    return encode(
        EmailSent(
            event_id=new_id(),
            notification_id=notification.pk,
            status_version=1,
            occurred_at=now(),
            producer="email-service",
            sent_at=now(),
        )
    )


def broken(*_: Any) -> None:
    raise TypeError("a bad deploy")


def test_a_bad_deploy_gives_up_nothing_and_a_good_one_merges_all(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = [sent(row) for row in NotificationFactory.create_batch(RECORDS)]
    with monkeypatch.context() as deploy:
        deploy.setattr(status, "_store", broken)
        for restart in range(10):
            assert process(topic[: restart * 6 + 1]).committed == []
    assert (DeadLetter.objects.count(), Notification.objects.filter(status="SENT").count()) == (0, 0)
    assert process(topic).committed == [(0, RECORDS)]
    assert (DeadLetter.objects.count(), Notification.objects.filter(status="SENT").count()) == (0, RECORDS)
