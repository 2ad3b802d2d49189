"""What the producer's promise rests on: its settings, and a new client where the old one is beyond repair."""

from typing import Any, ClassVar

import pytest
from confluent_kafka import KafkaError, KafkaException

from shared_events.kafka import producer as producer_module
from shared_events.kafka.configuration import producer_configuration
from shared_events.kafka.producer import ACKNOWLEDGED, Fault, OutgoingRecord, RecordProducer

RECORD = OutgoingRecord("any", b"key", b"{}", [])


class ScriptedClient:
    """librdkafka's producer: each client of a test takes the next of `fates`, an error or None for a good one."""

    fates: ClassVar[list[KafkaError | None]] = []
    made: ClassVar[list["ScriptedClient"]] = []

    def __init__(self, configuration: dict[str, Any], **_: object) -> None:
        self.configuration = configuration
        self.fate = self.fates[len(self.made)]
        self.waiting: list[Any] = []
        self.made.append(self)

    def __len__(self) -> int:
        return len(self.waiting)

    def produce(self, *_: object, on_delivery: Any, **__: object) -> None:
        self.waiting.append(on_delivery)

    def flush(self, _seconds: float) -> int:
        while self.waiting:
            self.waiting.pop(0)(self.fate, None)
        return 0

    def purge(self) -> None:
        self.waiting.clear()


@pytest.fixture(autouse=True)
def _scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "Producer", ScriptedClient)
    ScriptedClient.made = []


def producer() -> RecordProducer:
    return RecordProducer({"bootstrap.servers": "broker.test"}, client_id="test", message_timeout_seconds=30)


@pytest.mark.fault(18)
def test_the_producer_is_idempotent_waits_for_all_replicas_and_gives_up_within_the_lease() -> None:
    ScriptedClient.fates = [None]
    producer().connect()
    configuration = ScriptedClient.made[0].configuration
    assert (configuration["enable.idempotence"], configuration["acks"]) == (True, "all")
    assert configuration["message.timeout.ms"] == 30_000


@pytest.mark.fault(18)
def test_a_setting_of_the_operators_does_not_weaken_the_promise() -> None:
    weak: dict[str, str | int | float | bool] = {
        "bootstrap.servers": "broker.test",
        "enable.idempotence": False,
        "acks": "1",
        "message.timeout.ms": 300_000,
    }
    configuration = producer_configuration(weak, client_id="test", message_timeout_seconds=30)
    assert (configuration["enable.idempotence"], configuration["acks"]) == (True, "all")
    assert configuration["message.timeout.ms"] == 30_000


@pytest.mark.fault(17, 18)
@pytest.mark.parametrize(
    "error",
    [
        KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "a gap", fatal=True),
        KafkaError(KafkaError._FATAL),
        KafkaError(KafkaError._MSG_TIMED_OUT),
    ],
    ids=["fatal", "after a fatal one", "timed out"],
)
def test_after_an_error_of_the_client_the_next_records_get_a_new_one(error: KafkaError) -> None:
    ScriptedClient.fates = [error, None]
    one = producer()
    assert [report.fault for report in one.publish([RECORD, RECORD])] == [Fault.DEPENDENCY] * 2
    assert one.publish([RECORD]) == [ACKNOWLEDGED]
    assert len(ScriptedClient.made) == 2


@pytest.mark.fault(18)
def test_a_fatal_error_out_of_a_flush_leaves_the_records_unpublished_and_makes_a_new_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ScriptedClient.fates = [None, None]
    fatal = KafkaException(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH, "fenced", fatal=True))

    def flush(_client: ScriptedClient, _seconds: float) -> int:
        raise fatal

    one = producer()
    with monkeypatch.context() as broken:
        broken.setattr(ScriptedClient, "flush", flush)
        assert [report.fault for report in one.publish([RECORD])] == [Fault.DEPENDENCY]
    assert one.publish([RECORD]) == [ACKNOWLEDGED]
    assert len(ScriptedClient.made) == 2
