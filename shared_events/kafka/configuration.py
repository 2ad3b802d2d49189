"""librdkafka's configuration for this product: what the guarantees rest on is set here and nowhere else."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from .logs import OncePerMinute

Configuration = Mapping[str, str | int | float | bool]
"""Where the brokers are and how to log in: `bootstrap.servers` and the security settings, named as librdkafka names them."""

_RECOVERY: dict[str, Any] = {
    # A consumer that lost all brokers begins its back-off anew with each try (librdkafka 2.16): it never grows, and the default of
    # 0.1 s makes twenty tries a second for as long as the outage lasts.
    "reconnect.backoff.ms": 500,
    "reconnect.backoff.max.ms": 1_000,  # the default of 10 s would add to every outage
    "topic.metadata.refresh.interval.ms": 10_000,  # a topic that was made anew is found soon
    "socket.keepalive.enable": True,
    "log.connection.close": False,
}

logger = logging.getLogger("librdkafka")
logger.addFilter(OncePerMinute())


class KafkaConfigurationError(Exception):
    """librdkafka refuses the settings: no waiting mends that."""


@contextmanager
def refusing_configuration() -> Iterator[None]:
    """Turns librdkafka's refusal to make a client into a KafkaConfigurationError that names the variables."""
    try:
        yield
    except (KafkaException, TypeError, ValueError) as error:
        words = error.args[0].str() if error.args and isinstance(error.args[0], KafkaError) else str(error)
        raise KafkaConfigurationError(
            f"Kafka's client refuses its settings ({words}): check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA"
        ) from error


def producer_configuration(common: Configuration, *, client_id: str, message_timeout_seconds: float) -> dict[str, Any]:
    return {
        **_RECOVERY,
        **common,
        "client.id": client_id,
        "enable.idempotence": True,
        "acks": "all",
        "message.timeout.ms": int(message_timeout_seconds * 1000),
        "topic.metadata.propagation.max.ms": 5_000,
    }


def consumer_configuration(common: Configuration, *, client_id: str, group: str) -> dict[str, Any]:
    """Offsets are committed by the loop alone, after the transaction that holds their effect."""
    return {
        **_RECOVERY,
        **common,
        "client.id": client_id,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "allow.auto.create.topics": False,
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 2_000,
        "queued.max.messages.kbytes": 8_192,
        "fetch.error.backoff.ms": 200,
        "fetch.wait.max.ms": 100,  # a broker that does not answer early (librdkafka's mock) adds this to each record
    }
