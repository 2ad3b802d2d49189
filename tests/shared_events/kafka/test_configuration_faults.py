"""A broker that does not let this client in: the configuration's fault, which no event pays for."""

from pathlib import Path

import pytest
from confluent_kafka import KafkaError

from shared_events.kafka.configuration import Configuration
from shared_events.kafka.producer import Fault, OutgoingRecord, RecordProducer, report_of
from tests.smtp_servers import Certificate, ScriptedSmtpServer

from .conftest import Broker

pytestmark = pytest.mark.fault(19)
REMEDY = "check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA"
RECORDS = [OutgoingRecord("some-topic", None, b"value", [])] * 3


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._AUTHENTICATION,
    ],
)
def test_what_an_administrator_mends_is_the_configurations_fault(code: int) -> None:
    assert report_of(KafkaError(code)).fault is Fault.CONFIGURATION


def producer(common: Configuration, **settings: str) -> RecordProducer:
    named = {name.replace("_", "."): value for name, value in settings.items()}
    return RecordProducer({**common, **named}, client_id="test", message_timeout_seconds=2)


def assert_named_with_its_remedy(refused: RecordProducer) -> None:
    reports = refused.publish(RECORDS)
    assert {report.fault for report in reports} == {Fault.CONFIGURATION}
    assert REMEDY in reports[0].reason
    assert REMEDY in str(refused.probe())
    refused.close()


def test_a_refused_login_is_named_with_its_remedy(real_broker: Broker) -> None:
    login = {"sasl_mechanism": "PLAIN", "sasl_username": "ada", "sasl_password": "wrong"}
    assert_named_with_its_remedy(producer(real_broker.common, security_protocol="SASL_PLAINTEXT", **login))


def test_a_certificate_that_is_not_trusted_is_named_with_its_remedy(tmp_path: Path) -> None:
    """Any server that speaks TLS will do: the client leaves at its certificate."""
    served, trusted = Certificate.make(tmp_path / "served"), Certificate.make(tmp_path / "trusted")
    with ScriptedSmtpServer(tls="tls", certificate=served) as server:
        common = {"bootstrap.servers": f"127.0.0.1:{server.port}"}
        assert_named_with_its_remedy(
            producer(common, security_protocol="SSL", ssl_ca_location=str(trusted.certificate_path))
        )


def test_a_broker_that_is_only_away_is_no_fault_of_the_configuration(nowhere: Broker) -> None:
    producer = nowhere.producer(message_timeout_seconds=2)
    assert {report.fault for report in producer.publish(RECORDS)} == {Fault.DEPENDENCY}
    assert REMEDY not in str(producer.probe())
    producer.close()


def test_a_refusal_is_forgotten_when_a_broker_lets_us_in(real_broker: Broker) -> None:
    producer = real_broker.producer()
    producer._on_error(KafkaError(KafkaError._AUTHENTICATION, "refused"))
    assert producer.probe() is None
    assert producer._explained([report_of(KafkaError(KafkaError._MSG_TIMED_OUT))])[0].fault is Fault.DEPENDENCY
    producer._on_error(KafkaError(KafkaError._AUTHENTICATION, "refused"))
    topic = real_broker.new_topic()
    assert producer.publish([OutgoingRecord(topic, None, b"value", [])])[0].fault is None
    assert not producer._refusal
    producer.close()
