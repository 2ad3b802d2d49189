from argparse import ArgumentParser
from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from email_project.emails.restores import begin, carry_over
from shared_events.contracts.topics import NOTIFICATION_EVENTS
from shared_events.kafka.offsets import consumed_offsets
from shared_events.runtime.process_state import WorkersRunError, refuse_beside_workers


class Command(BaseCommand):
    help = (
        "Run this once after the database was restored from a backup, and before any worker of this service starts. "
        "Whatever may have been sent since the backup is held as UNCERTAIN and reported; nothing of it is sent by itself. "
        "Refuses while workers run. Interrupted, it is to be run again. docs/operations.md says what comes before and after."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--hold-waiting",
            action="store_true",
            help="hold what waits in Kafka as well: where consumers were killed, or lost the database while they ran, "
            "or where their circuit `fuse` was open, the last records that they took in may not be committed as consumed; and where "
            "notification_project's circuit `kafka` was open or its relay was killed within OUTBOX_LEASE_SECONDS before, an event may be "
            "in Kafka twice",
        )

    def handle(self, *_args: Any, hold_waiting: bool, **_options: Any) -> None:
        try:
            refuse_beside_workers()
        except WorkersRunError as error:
            raise CommandError(str(error)) from error
        restore = begin(self._consumed(hold_waiting=hold_waiting))
        self.stdout.write(
            f"restore {restore.pk} at {restore.restored_at:%Y-%m-%dT%H:%M:%SZ}: versions go on above {restore.floor}; "
            f"consumed before: {restore.consumed}"
        )
        seen, held, reported = carry_over(restore)
        self.stdout.write(f"{seen} mails carried over, {held} of them were open and are held, {reported} reported")
        self.stdout.write("done: the workers may start")

    def _consumed(self, *, hold_waiting: bool) -> dict[int, int]:
        try:
            return consumed_offsets(
                settings.KAFKA, group=settings.CONSUMER_GROUP, topic=NOTIFICATION_EVENTS, all_present=hold_waiting
            )
        except KafkaException as error:
            raise CommandError(
                f"Kafka at {settings.KAFKA['bootstrap.servers']} does not say how far the group {settings.CONSUMER_GROUP} came on "
                f"{NOTIFICATION_EVENTS} ({error.args[0].str()}). Nothing was changed: start Kafka or mend KAFKA_BOOTSTRAP_SERVERS, run "
                "create_topics if its data is lost, and run this again"
            ) from error
