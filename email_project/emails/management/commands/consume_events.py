import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from email_project.emails.intake import Intake
from email_project.emails.sender_options import SenderOptions, server_from_settings
from email_project.emails.sending import EmailSender
from email_project.emails.settlement import DeliveryPolicy
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.dead_letters.release import ParkedRelease
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop, fuse_circuit
from shared_events.kafka.recreation import ConsumerSource
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.database import is_passing
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import PACE_SECONDS, run_until_stopped
from shared_events.runtime.process_state import StateReport
from shared_events.runtime.stop import StopSignal

BOOKKEEPER_SECONDS = 0.5


class Command(BaseCommand):
    help = (
        "Takes notifications in from Kafka and sends them over SMTP until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by EMAIL_URL, DEFAULT_FROM_EMAIL, SMTP_*, EMAIL_* and CONSUMER_FUSE_RECORDS."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        wake_up = WakeUp(settings.REDIS_URL, settings.PRODUCER)
        breaker = CircuitBreaker("smtp")
        fuse = fuse_circuit()
        state = StateReport("consume_events", [breaker, fuse])
        sender = EmailSender(
            server_from_settings(),
            DeliveryPolicy.from_settings(),
            SenderOptions.from_settings(polls=False),
            ring=wake_up.ring,
            breaker=breaker,
        )
        source = ConsumerSource(
            settings.KAFKA, NOTIFICATION_EVENTS, client_id=settings.PRODUCER, group=settings.CONSUMER_GROUP
        )
        loop = ConsumerLoop(
            source.connect(),
            NOTIFICATION_EVENTS,
            Intake(sender, ring=wake_up.ring).handle,
            write_dead_letter=write_dead_letter,
            is_passing=is_passing,
            fuse_records=settings.CONSUMER_FUSE_RECORDS,
            fuse=fuse,
            renew=source.renew,
        )
        release = ParkedRelease()
        with StopSignal() as stop:
            bookkeeper = Bookkeeper(sender, stop)
            bookkeeper.start()
            sender.start()

            def step() -> int:
                bookkeeper.raise_its_error()
                return release.run_once() + loop.run_once()

            try:
                run_until_stopped(
                    step,
                    idle=lambda: None,
                    stop=stop,
                    liveness=Liveness(settings.LIVENESS_FILE),
                    pace_seconds=PACE_SECONDS,
                    report=state.write,
                )
            finally:
                stop.received = True
                bookkeeper.join()
                loop.close()
                sender.close()
                state.end()
            bookkeeper.raise_its_error()


class Bookkeeper(threading.Thread):
    """Runs the sender's rounds beside the consumer loop; an error that ends them is raised in the main thread."""

    def __init__(self, sender: EmailSender, stop: StopSignal) -> None:
        super().__init__(name="bookkeeper", daemon=True)
        self._sender = sender
        self._signal = stop
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            run_until_stopped(
                lambda: self._sender.step(BOOKKEEPER_SECONDS),
                idle=lambda: None,
                stop=self._signal,
                liveness=Liveness(""),
            )
        except Exception as error:  # noqa: BLE001 (the main thread raises it)
            self._error = error

    def raise_its_error(self) -> None:
        if self._error is not None:
            raise self._error
