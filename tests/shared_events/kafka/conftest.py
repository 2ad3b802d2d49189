"""Two brokers for one contract: librdkafka's mock cluster, in a process of its own, and the real one."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from django.conf import settings

from shared_events.kafka.configuration import Configuration, consumer_configuration
from shared_events.kafka.consumer import Record, record_of
from shared_events.kafka.producer import RecordProducer
from tests.shared_events.probes import closed_port, wait_until

MESSAGE_TIMEOUT_SECONDS = 10.0


@dataclass
class Broker:
    """A broker, and what a test needs of it. `process` is the mock cluster's."""

    common: Configuration
    process: "subprocess.Popen[str] | None" = None

    @property
    def is_real(self) -> bool:
        return self.process is None

    def new_topic(self, name: str = "", *, partitions: int = 2, **limits: str) -> str:
        """A topic that no other test has. The mock makes its own, of four partitions, where it is asked for one."""
        name = name or f"test-{uuid.uuid4()}"
        if self.is_real:
            client = AdminClient(dict(self.common))
            wanted = NewTopic(name, num_partitions=partitions, replication_factor=1, config=limits)
            client.create_topics([wanted])[name].result(10)
        else:
            Producer(dict(self.common)).list_topics(name, timeout=10)
        return name

    def freeze(self) -> None:
        """Stops the mock cluster amid whatever it does, until SIGCONT; its threads are all at rest when this returns."""
        assert self.process is not None
        tasks = Path(f"/proc/{self.process.pid}/task")
        self.process.send_signal(signal.SIGSTOP)
        wait_until(lambda: all("State:\tT" in (task / "status").read_text() for task in tasks.iterdir()))

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def producer(self, *, message_timeout_seconds: float = MESSAGE_TIMEOUT_SECONDS) -> RecordProducer:
        return RecordProducer(self.common, client_id="test", message_timeout_seconds=message_timeout_seconds)

    def consumer(self, group: str) -> Consumer:
        return Consumer(consumer_configuration(self.common, client_id="test", group=group))

    def records(self, topic: str, count: int) -> list[Record]:
        """`count` records of the topic from its beginning, in the order of their arrival."""
        consumer = self.consumer(f"reader-{uuid.uuid4()}")
        consumer.subscribe([topic])
        found: list[Record] = []
        with contextlib.closing(consumer):
            while len(found) < count:
                message = consumer.poll(20)
                assert message is not None, f"{len(found)} of {count} records of {topic}"
                assert message.error() is None, message.error()
                found.append(record_of(message))
        return found

    def end_of(self, topic: str) -> int:
        """How many records the topic holds."""
        client = self.consumer("nobody")
        with contextlib.closing(client):
            partitions = client.list_topics(topic, timeout=10).topics[topic].partitions
            marks = [client.get_watermark_offsets(TopicPartition(topic, number), timeout=10) for number in partitions]
        return sum(high for _low, high in marks)


def _start_mock() -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "manage_scripts.demo_parts.embedded", "kafka", "test-first"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def mock_cluster() -> Iterator[Broker]:
    process = _start_mock()
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address, "the mock cluster did not start"
        yield Broker({"bootstrap.servers": address}, process)
    finally:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def mock_broker() -> Iterator[Broker]:
    with mock_cluster() as broker:
        yield broker


@pytest.fixture(scope="session")
def real_broker() -> Broker:
    address = str(settings.KAFKA["bootstrap.servers"])
    host, _, port = address.split(",", maxsplit=1)[0].rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError:
        if "kafka" in os.environ.get("NOTIFYX_SERVICES_RUNNING", ""):
            raise
        pytest.skip(f"no broker at KAFKA_BOOTSTRAP_SERVERS={address}")
    AdminClient(dict(settings.KAFKA)).list_topics(timeout=10)
    return Broker(settings.KAFKA)


@pytest.fixture(params=["mock", "real"])
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    return found


@pytest.fixture
def topic(broker: Broker) -> str:
    return broker.new_topic()


@pytest.fixture
def producer(broker: Broker) -> Iterator[RecordProducer]:
    made = broker.producer()
    yield made
    made.close()


@pytest.fixture
def nowhere() -> Broker:
    """A broker that refuses connections."""
    return Broker({"bootstrap.servers": f"127.0.0.1:{closed_port()}"})
