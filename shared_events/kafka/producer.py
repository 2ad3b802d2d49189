"""Publishing records and knowing of each whether the broker has it."""

import enum
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from .configuration import Configuration, logger, producer_configuration

FLUSH_SLICE_SECONDS = 0.1
PROBE_TIMEOUT_SECONDS = 3.0

log = structlog.get_logger(__name__)


class Fault(enum.StrEnum):
    """Whose fault an unpublished record is (rule 5 of delivery): its own, the broker's, or the configuration's."""

    MESSAGE = "message"
    DEPENDENCY = "dependency"
    CONFIGURATION = "configuration"


@dataclass(frozen=True, slots=True)
class OutgoingRecord:
    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, str | bytes | None]]


@dataclass(frozen=True, slots=True)
class Report:
    """`fault` is None where the broker acknowledged the record, and only there."""

    fault: Fault | None
    reason: str = ""


ACKNOWLEDGED: Final = Report(None)
UNANSWERED: Final = Report(Fault.DEPENDENCY, "no delivery report")

_MESSAGE_FAULTS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError._BAD_MSG,  # noqa: SLF001
    }
)
_CONFIGURATION_FAULTS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.POLICY_VIOLATION,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._AUTHENTICATION,  # noqa: SLF001
    }
)


def report_of(error: KafkaError | None) -> Report:
    """Only "no error" is an acknowledgement: timed out or purged records may or may not be there, and are published again."""
    if error is None:
        return ACKNOWLEDGED
    code = error.code()
    if code in _MESSAGE_FAULTS:
        return Report(Fault.MESSAGE, error.str())
    if code in _CONFIGURATION_FAULTS:
        return Report(Fault.CONFIGURATION, error.str())
    return Report(Fault.DEPENDENCY, error.str())


class RecordProducer:
    """An idempotent producer (acks=all) that is made anew after a fatal error."""

    def __init__(self, common: Configuration, *, client_id: str, message_timeout_seconds: float) -> None:
        self._configuration = producer_configuration(
            common, client_id=client_id, message_timeout_seconds=message_timeout_seconds
        )
        self._configuration["error_cb"] = self._on_error
        self._timeout_seconds = message_timeout_seconds
        self._producer: Producer | None = None
        self._broken = False

    def publish(
        self, records: Sequence[OutgoingRecord], *, give_up: Callable[[], bool] = lambda: False
    ) -> list[Report]:
        """Publishes `records` and returns a report for each, in their order.

        Blocks until all are reported on, at most the message time-out and a second; where `give_up` turns true meanwhile, what is
        still unanswered is purged and reported as a dependency fault.
        """
        reports = self._publish_together(records, give_up)
        refused = [index for index, report in enumerate(reports) if report.fault is Fault.MESSAGE]
        if len(refused) > 1:
            # A broker refuses a batch as a whole: alone, each shows whether it was the one.
            for index in refused:
                reports[index] = self._publish_together([records[index]], give_up)[0]
        return reports

    def probe(self, topics: Collection[str] = ()) -> str | None:
        """None where a broker answers and knows `topics`, else what is wrong. Blocks up to 3 seconds."""
        try:
            known = self._connected().list_topics(timeout=PROBE_TIMEOUT_SECONDS).topics
        except KafkaException as error:
            return str(error.args[0].str() if error.args else error)
        missing = sorted(set(topics) - {name for name, topic in known.items() if topic.error is None})
        return f"unknown topic {', '.join(missing)}: run create_topics" if missing else None

    def close(self) -> None:
        """Drops what is unanswered. Callers have settled or released it by their rows."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(1)
            self._producer = None

    def _connected(self) -> Producer:
        if self._broken:
            self.close()
            self._broken = False
        if self._producer is None:
            self._producer = Producer(self._configuration, logger=logger)
        return self._producer

    def _publish_together(self, records: Sequence[OutgoingRecord], give_up: Callable[[], bool]) -> list[Report]:
        producer = self._connected()
        reports = [UNANSWERED] * len(records)

        def on_delivery(index: int, error: KafkaError | None, _message: Message) -> None:
            reports[index] = report_of(error)
            if error is not None and error.fatal():
                self._broken = True

        deadline = time.monotonic() + self._timeout_seconds + 1
        for index, record in enumerate(records):
            callback = partial(on_delivery, index)
            while True:
                try:
                    producer.produce(
                        record.topic, record.value, record.key, headers=record.headers, on_delivery=callback
                    )
                except BufferError:
                    if time.monotonic() >= deadline or give_up():
                        break
                    producer.poll(FLUSH_SLICE_SECONDS)
                    continue
                except KafkaException as error:
                    on_delivery(index, error.args[0], None)  # type: ignore[arg-type]
                break
        while (
            producer.flush(FLUSH_SLICE_SECONDS) and not self._broken and time.monotonic() < deadline and not give_up()
        ):
            pass
        if len(producer):
            producer.purge()
            producer.flush(1)
            self._broken = True  # numbering has a gap now: the next records get a new producer
        return list(reports)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._broken = True
        log.warning("kafka reported an error", error=error.str(), fatal=error.fatal())
