from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from notification_project.notifications.status import handle
from shared_events.contracts.topics import NOTIFICATION_STATUS
from shared_events.dead_letters.release import ParkedRelease
from shared_events.dead_letters.writer import write_dead_letter
from shared_events.kafka.consumer import ConsumerLoop, fuse_circuit
from shared_events.kafka.recreation import ConsumerSource
from shared_events.runtime.database import is_passing
from shared_events.runtime.liveness import Liveness
from shared_events.runtime.loop import PACE_SECONDS, run_until_stopped
from shared_events.runtime.process_state import StateReport
from shared_events.runtime.stop import StopSignal


class Command(BaseCommand):
    help = (
        "Merges what the e-mail service reports into notifications until SIGTERM or SIGINT. Any number may run at once. "
        "Configured by CONSUMER_FUSE_RECORDS."
    )

    def handle(self, *_args: Any, **_options: Any) -> None:
        source = ConsumerSource(
            settings.KAFKA, NOTIFICATION_STATUS, client_id=settings.PRODUCER, group=settings.CONSUMER_GROUP
        )
        fuse = fuse_circuit()
        state = StateReport("consume_status", [fuse])
        loop = ConsumerLoop(
            source.connect(),
            NOTIFICATION_STATUS,
            handle,
            write_dead_letter=write_dead_letter,
            is_passing=is_passing,
            fuse_records=settings.CONSUMER_FUSE_RECORDS,
            fuse=fuse,
            renew=source.renew,
        )
        release = ParkedRelease()
        with StopSignal() as stop:
            try:
                run_until_stopped(
                    lambda: release.run_once() + loop.run_once(),
                    idle=lambda: None,
                    stop=stop,
                    liveness=Liveness(settings.LIVENESS_FILE),
                    pace_seconds=PACE_SECONDS,
                    report=state.write,
                )
            finally:
                loop.close()
                state.end()
