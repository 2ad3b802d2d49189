from argparse import ArgumentParser
from typing import Any

from confluent_kafka import KafkaException
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from shared_events.contracts import topics
from shared_events.kafka.topics import create_topics
from shared_events.runtime.backoff import LoopBackoff
from shared_events.runtime.stop import StopSignal


class Command(BaseCommand):
    help = "Makes the four topics where they do not exist yet, and waits for Kafka where it is away. Running it again is harmless."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--partitions",
            type=int,
            default=-1,
            help="partitions of each topic; the broker's num.partitions unless given",
        )
        parser.add_argument(
            "--replication-factor", type=int, default=-1, help="the broker's default.replication.factor unless given"
        )

    def handle(self, *_args: Any, partitions: int, replication_factor: int, **_options: Any) -> None:
        for name, value in (("--partitions", partitions), ("--replication-factor", replication_factor)):
            if value != -1 and value < 1:
                raise CommandError(
                    f"{name} {value} is not above 0: give a number from 1 on, or leave it out for the broker's own"
                )
        backoff = LoopBackoff()
        with StopSignal() as stop:
            while not stop.received:
                try:
                    made = create_topics(
                        settings.KAFKA, topics.ALL, partitions=partitions, replication_factor=replication_factor
                    )
                except KafkaException as error:
                    if not error.args[0].retriable() and error.args[0].code() >= 0:
                        raise CommandError(f"Kafka refused: {error.args[0].str()}") from error
                    self.stderr.write(
                        f"Kafka at {settings.KAFKA['bootstrap.servers']} does not answer yet: {error.args[0].str()}"
                    )
                    stop.wait(backoff.next_wait_seconds())
                    continue
                self.stdout.write(f"made: {', '.join(made) or 'none'}; all there: {', '.join(topics.ALL)}")
                return
        raise CommandError("stopped before Kafka answered")
