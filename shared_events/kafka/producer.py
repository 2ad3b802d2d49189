"""Publishing records and knowing of each whether the broker has it."""

import enum
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from shared_events.runtime.crash_points import CrashPoint, reach

from .configuration import Configuration, logger, producer_configuration, refusing_configuration

FLUSH_SLICE_SECONDS = 0.1
PROBE_TIMEOUT_SECONDS = 3.0
LOG_EVERY_SECONDS = 60.0

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

_REFUSALS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})  # noqa: SLF001


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
        self._refusal = ""  # why no broker lets this client in, until one did
        self._logged_at = -LOG_EVERY_SECONDS

    def connect(self) -> None:
        """Makes the client, so that settings it refuses are met before anything is claimed. Never blocks; KafkaConfigurationError."""
        self._connected()

    def publish(
        self, records: Sequence[OutgoingRecord], *, give_up: Callable[[], bool] = lambda: False
    ) -> list[Report]:
        """Publishes `records` and returns a report for each, in their order.

        Blocks until all are reported on, at most the message time-out and a second; where `give_up` turns true meanwhile, what is
        still unanswered is purged and reported as a dependency fault.
        """
        deadline = time.monotonic() + self._timeout_seconds + 1
        reports = self._publish_together(records, deadline, give_up)
        refused = [index for index, report in enumerate(reports) if report.fault is Fault.MESSAGE]
        if len(refused) > 1:
            # A broker refuses a batch as a whole: alone, each shows whether it was the one.
            for index in refused:
                reports[index] = (
                    UNANSWERED
                    if time.monotonic() >= deadline
                    else self._publish_together([records[index]], deadline, give_up)[0]
                )
        if any(report.fault is Fault.DEPENDENCY for report in reports):
            # After the loss of a cluster's data librdkafka ignores the new, lower leader epochs and never sends again: only a new
            # producer does. Where the broker was merely away a new one costs a connection.
            self._broken = True
        return self._explained(reports)

    def probe(self, topics: Collection[str] = ()) -> str | None:
        """None where a broker answers and knows `topics`, else what is wrong. Blocks up to 3 seconds."""
        try:
            known = self._connected().list_topics(timeout=PROBE_TIMEOUT_SECONDS).topics
        except KafkaException as error:
            return self._refusal or str(error.args[0].str() if error.args else error)
        self._refusal = ""
        missing = sorted(set(topics) - {name for name, topic in known.items() if topic.error is None})
        return f"unknown topic {', '.join(missing)}: run create_topics" if missing else None

    def close(self) -> None:
        """Drops what is unanswered. Callers have settled or released it by their rows."""
        if self._producer is not None:
            self._producer.purge()
            self._flush(self._producer, 1)
            self._producer = None

    def _explained(self, reports: list[Report]) -> list[Report]:
        """What timed out because no broker let this client in is the configuration's fault."""
        if any(report.fault is None for report in reports):
            self._refusal = ""
        if not self._refusal:
            return reports
        refused = Report(Fault.CONFIGURATION, self._refusal)
        return [refused if report.fault is Fault.DEPENDENCY else report for report in reports]

    def _connected(self) -> Producer:
        if self._broken:
            self.close()
            self._broken = False
        if self._producer is None:
            with refusing_configuration():
                self._producer = Producer(self._configuration, logger=logger)
        return self._producer

    def _publish_together(
        self, records: Sequence[OutgoingRecord], deadline: float, give_up: Callable[[], bool]
    ) -> list[Report]:
        producer = self._connected()
        reports = [UNANSWERED] * len(records)

        def on_delivery(index: int, error: KafkaError | None, _message: Message) -> None:
            reports[index] = report_of(error)
            if error is not None and (error.fatal() or error.code() == KafkaError._FATAL):  # noqa: SLF001
                self._broken = True

        for index, record in enumerate(records):
            callback = partial(on_delivery, index)
            while True:
                try:
                    producer.produce(
                        record.topic, record.value, record.key, headers=record.headers, on_delivery=callback
                    )
                except BufferError:
                    if self._broken or time.monotonic() >= deadline or give_up():
                        break
                    self._flush(producer, FLUSH_SLICE_SECONDS)
                    continue
                except KafkaException as error:
                    on_delivery(index, error.args[0], None)  # type: ignore[arg-type]
                break
        reach(CrashPoint.PRODUCED)
        while (
            self._flush(producer, FLUSH_SLICE_SECONDS)
            and not self._broken
            and time.monotonic() < deadline
            and not give_up()
        ):
            pass
        if len(producer):
            producer.purge()
            self._flush(producer, 1)
            self._broken = True  # numbering has a gap now: the next records get a new producer
        return list(reports)

    def _flush(self, producer: Producer, seconds: float) -> int:
        """Serves delivery reports for up to `seconds` and returns how many records are unanswered.

        confluent-kafka raises a fatal error out of whichever call serves its events, and does not hand it to error_cb.
        """
        try:
            return producer.flush(seconds)
        except KafkaException as error:
            self._broken = True
            log.error("the producer is beyond repair and made anew", error=str(error))
            return len(producer)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() in _REFUSALS and not self._refusal:
            self._refusal = f"{error.str()}: check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA"
        # librdkafka reports each of its tries to connect, and all those of an outage at once when it is over.
        if time.monotonic() - self._logged_at >= LOG_EVERY_SECONDS:
            self._logged_at = time.monotonic()
            log.warning("kafka reported an error", error=error.str())
