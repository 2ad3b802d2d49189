from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.module_loading import import_string

from shared_events.kafka.producer import RecordProducer
from shared_events.outbox.models import OutboxEvent
from shared_events.outbox.relay import OutboxRelay, RelayPolicy
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import PACE_SECONDS, run_until_stopped
from shared_events.runtime.process_state import StateReport
from shared_events.runtime.stop import StopSignal

REPUBLISH_BATCH = 1_000


def instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is None:
            raise CommandError(f"--republish-since {text!r} has no offset: append Z or +01:00")
        return found.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise CommandError(f"--republish-since {text!r} is no time: give one such as 2030-01-31T12:00:00Z") from error


def republish(since: datetime) -> int:
    """PUBLISHED → PENDING for what was published since then, in batches; returns how many."""
    published = OutboxEvent.objects.filter(status=OutboxEvent.Status.PUBLISHED, published_at__gte=since)
    total, last = 0, None
    while True:
        rows = published if last is None else published.filter(pk__gt=last)
        ids = list(rows.order_by("pk").values_list("pk", flat=True)[:REPUBLISH_BATCH])
        if not ids:
            return total
        total += OutboxEvent.objects.filter(pk__in=ids).publish_again()
        last = ids[-1]


class Command(BaseCommand):
    help = (
        "Publishes the events of this service's outbox to Kafka until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by OUTBOX_POLL_SECONDS, OUTBOX_BATCH, OUTBOX_LEASE_SECONDS and OUTBOX_RETRY_*."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--republish-since",
            metavar="TIME",
            help="make everything that was published since then (RFC 3339) due again, say how much that is, and end; "
            "after a loss of Kafka's data, or where the other service's database was restored: running relays publish it, and consumers "
            "know each by its id",
        )

    def handle(self, *_args: Any, republish_since: str | None, **_options: Any) -> None:
        if republish_since is not None:
            self.stdout.write(f"{republish(instant(republish_since))} events are due again")
            return
        self._relay()

    def _relay(self) -> None:
        policy = RelayPolicy(
            batch=settings.OUTBOX_BATCH,
            lease_seconds=settings.OUTBOX_LEASE_SECONDS,
            message_timeout_seconds=settings.KAFKA_MESSAGE_TIMEOUT_SECONDS,
            max_attempts=settings.OUTBOX_MAX_ATTEMPTS,
            retry_base_seconds=settings.OUTBOX_RETRY_BASE_SECONDS,
            retry_max_seconds=settings.OUTBOX_RETRY_MAX_SECONDS,
        )
        producer = RecordProducer(
            settings.KAFKA, client_id=settings.PRODUCER, message_timeout_seconds=settings.KAFKA_MESSAGE_TIMEOUT_SECONDS
        )
        wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)
        with StopSignal() as stop:
            breaker = CircuitBreaker("kafka")
            state = StateReport("relay_outbox", [breaker])
            relay = OutboxRelay(
                producer,
                policy,
                unpublishable=import_string(settings.OUTBOX_UNPUBLISHABLE),
                breaker=breaker,
                give_up=lambda: stop.grace_is_over(settings.SHUTDOWN_GRACE_SECONDS),
            )
            try:
                run_until_stopped(
                    relay.run_once,
                    idle=lambda: wake_up.wait(settings.OUTBOX_POLL_SECONDS, stop),
                    stop=stop,
                    liveness=Liveness(settings.LIVENESS_FILE),
                    pace_seconds=PACE_SECONDS,
                    report=state.write,
                )
            finally:
                producer.close()
                state.end()
