from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from shared_events.kafka.producer import RecordProducer
from shared_events.outbox.relay import OutboxRelay, RelayPolicy
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import PACE_SECONDS, run_until_stopped
from shared_events.runtime.stop import StopSignal


class Command(BaseCommand):
    help = (
        "Publishes the events of this service's outbox to Kafka until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by OUTBOX_POLL_SECONDS, OUTBOX_BATCH, OUTBOX_LEASE_SECONDS and OUTBOX_RETRY_*."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
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
            relay = OutboxRelay(
                producer,
                policy,
                unpublishable=import_string(settings.OUTBOX_UNPUBLISHABLE),
                breaker=CircuitBreaker("kafka"),
                give_up=lambda: stop.grace_is_over(settings.SHUTDOWN_GRACE_SECONDS),
            )
            try:
                run_until_stopped(
                    relay.run_once,
                    idle=lambda: wake_up.wait(settings.OUTBOX_POLL_SECONDS, stop),
                    stop=stop,
                    liveness=Liveness(settings.LIVENESS_FILE),
                    pace_seconds=PACE_SECONDS,
                )
            finally:
                producer.close()
