"""What stands on the consumer loop's other side in its tests."""

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer
from django.db import OperationalError

from shared_events.kafka.consumer import ConsumerLoop, Record
from tests.shared_events.probes import Clock, wait_until

AWAY = OperationalError(2006, "Server has gone away")


class Handler:
    """Keeps what it is handed. Raises for records with a value in `bad`, and the errors of `errors` first, one a call."""

    def __init__(self, bad: Sequence[bytes] = (), errors: Sequence[Exception] = ()) -> None:
        self.bad = set(bad)
        self.errors = list(errors)
        self.calls: list[list[bytes | None]] = []
        self.handled: list[bytes | None] = []
        self.letters: list[tuple[bytes | None, str, str]] = []
        self.is_away = False

    def __call__(self, records: Sequence[Record]) -> None:
        values = [record.value for record in records]
        self.calls.append(values)
        if self.is_away:
            raise AWAY
        if self.errors:
            raise self.errors.pop(0)
        if self.bad & set(values):
            raise ZeroDivisionError
        self.handled += values

    def write_dead_letter(self, record: Record, *, letter_class: str, cause: str) -> None:
        if self.is_away:
            raise AWAY
        self.letters.append((record.value, letter_class, cause))


def is_away(error: BaseException) -> bool:
    return isinstance(error, OperationalError)


class Looping:
    """A loop with its handler, run until something holds."""

    def __init__(
        self, consumer: Consumer, topic: str, handler: Handler, *, clock: Clock | None = None, **limits: Any
    ) -> None:
        self.clock = clock or Clock()
        self.loop = ConsumerLoop(
            consumer,
            topic,
            handler,
            write_dead_letter=handler.write_dead_letter,
            is_passing=is_away,
            clock=self.clock,
            **limits,
        )
        self.handler = handler

    def run_until_handled(self, count: int) -> None:
        """Runs until so many records were handled or dead-lettered; the clock moves on a second with each round."""

        def done() -> bool:
            self.loop.run_once(0.2)
            self.clock.advance(1)
            return len(self.handler.handled) + len(self.handler.letters) >= count

        wait_until(done, seconds=40)
