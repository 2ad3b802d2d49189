"""What stands on the consumer loop's other side in its tests."""

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition
from django.db import OperationalError

from shared_events.kafka.consumer import ConsumerLoop, Record
from tests.shared_events.probes import Clock, wait_until

TOPIC = "events"
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


class Arrived:
    """A message as librdkafka hands it over; its value says where it stands, unless one is given."""

    def __init__(self, partition: int, offset: int, value: bytes | None = None) -> None:
        self._place = partition, offset
        self._value = value

    def topic(self) -> str:
        return TOPIC

    def partition(self) -> int:
        return self._place[0]

    def offset(self) -> int:
        return self._place[1]

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return b"key"

    def value(self) -> bytes:
        return b"%d/%d" % self._place if self._value is None else self._value

    def headers(self) -> None:
        return None

    def error(self) -> KafkaError | None:
        return None


class ScriptedConsumer:
    """Hands over what its script says; a number in it revokes that partition during the poll."""

    def __init__(self, script: list[Arrived | int | None]) -> None:
        self.script = script
        self.committed: list[tuple[int, int]] = []
        self.calls: list[str] = []
        self.is_paused = False

    def subscribe(self, _topics: list[str], *, on_revoke: Callable[..., None], on_lost: Callable[..., None]) -> None:
        self.on_revoke = on_revoke

    def poll(self, _timeout: float) -> Any:
        while self.script and isinstance(number := self.script[0], int):
            self.script.pop(0)
            self.on_revoke(self, [TopicPartition(TOPIC, number)])
        return self.script.pop(0) if self.script and not self.is_paused else None

    def commit(self, *, offsets: list[TopicPartition], asynchronous: bool) -> None:
        assert asynchronous
        self.committed += [(place.partition, place.offset) for place in offsets]

    def assignment(self) -> list[TopicPartition]:
        return []

    def pause(self, _partitions: object) -> None:
        self.calls.append("pause")
        self.is_paused = True

    def resume(self, _partitions: object) -> None:
        self.calls.append("resume")
        self.is_paused = False
