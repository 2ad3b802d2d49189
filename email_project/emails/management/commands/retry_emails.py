from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from email_project.emails.sender_options import SenderOptions, server_from_settings
from email_project.emails.sending import EmailSender
from email_project.emails.settlement import DeliveryPolicy
from shared_events.outbox.wakeup import WakeUp
from shared_events.runtime.breaker import CircuitBreaker
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import run_until_stopped
from shared_events.runtime.process_state import StateReport
from shared_events.runtime.stop import StopSignal

STEP_SECONDS = 1.0


class Command(BaseCommand):
    help = (
        "Sends again what is due for it, and what a worker left behind, until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by RETRY_POLL_SECONDS, EMAIL_LEASE_SECONDS and as consume_events."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        breaker = CircuitBreaker("smtp")
        state = StateReport("retry_emails", [breaker])
        sender = EmailSender(
            server_from_settings(),
            DeliveryPolicy.from_settings(),
            SenderOptions.from_settings(polls=True),
            ring=WakeUp(settings.REDIS_URL, settings.PRODUCER).ring,
            breaker=breaker,
        )
        wait_seconds = min(STEP_SECONDS, settings.RETRY_POLL_SECONDS)
        with StopSignal() as stop:
            sender.start()
            try:
                run_until_stopped(
                    lambda: sender.step(wait_seconds),
                    idle=lambda: None,
                    stop=stop,
                    liveness=Liveness(settings.LIVENESS_FILE),
                    report=state.write,
                )
            finally:
                sender.close()
                state.end()
