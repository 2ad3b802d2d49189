"""A bad deploy of consume_events, restarted again and again: no notification becomes a dead letter, and a good one takes all in."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from django.test import Client

from email_project.emails.intake import Intake, NoPool
from email_project.emails.models import SentEmail
from shared_events.contracts.events import encode
from shared_events.dead_letters.models import DeadLetter
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop, fuse_circuit
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.database import is_passing
from shared_events.runtime.process_state import StateReport
from tests.email_project.factories import created
from tests.shared_events.kafka.handlers import Arrived, ScriptedConsumer
from tests.shared_events.probes import Clock

pytestmark = pytest.mark.django_db
RECORDS = 60


def process(topic: Sequence[bytes], rounds: int = 8) -> tuple[ScriptedConsumer, CircuitBreaker]:
    """A process that reads all of `topic`, from its start on."""
    clock = Clock()
    fuse = fuse_circuit(clock=clock)
    consumer = ScriptedConsumer([Arrived(0, offset, event) for offset, event in enumerate(topic)])
    handle = Intake(NoPool(), ring=lambda: None).handle
    loop = ConsumerLoop(
        consumer,  # type: ignore[arg-type]
        "events",
        handle,
        write_dead_letter=write_dead_letter,
        is_passing=is_passing,
        fuse=fuse,
        clock=clock,
    )
    for _ in range(rounds):
        loop.run_once(0)
        clock.advance(10)
    return consumer, fuse


def broken(*_: Any) -> None:
    raise TypeError("a bad deploy")


def test_a_bad_deploy_gives_up_nothing_and_a_good_one_takes_all_in(monkeypatch: pytest.MonkeyPatch) -> None:
    topic = [encode(created()) for _ in range(RECORDS)]
    with monkeypatch.context() as deploy:
        deploy.setattr(Intake, "_store", broken)
        for restart in range(10):
            consumer, fuse = process(topic[: restart * 6 + 1])
            assert (fuse.is_closed, consumer.committed) == (False, [])
    assert (DeadLetter.objects.count(), SentEmail.objects.count()) == (0, 0)
    consumer, fuse = process(topic)
    assert (SentEmail.objects.count(), DeadLetter.objects.count(), fuse.is_closed) == (RECORDS, 0, True)
    assert consumer.committed == [(0, RECORDS)]


def test_health_names_the_fuse_the_record_and_the_remedy(monkeypatch: pytest.MonkeyPatch, client: Client) -> None:
    monkeypatch.setattr(Intake, "_store", broken)
    _, fuse = process([encode(created())])
    StateReport("consume_events", [fuse]).write()
    (worker,) = json.loads(client.get("/health/ready").content)["workers"]
    assert (worker["command"], worker["name"]) == ("consume_events", "fuse")
    assert "partition 0 offset 0 (TypeError): deploy a version that can" in worker["reason"]
    assert "CONSUMER_FUSE_RECORDS=0" in worker["reason"]
