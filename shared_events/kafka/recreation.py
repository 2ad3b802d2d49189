"""Noticing that a topic was deleted and made anew under its name, as after the loss of Kafka's data.

librdkafka (2.16) keeps the leader epochs it knew of the old topic and ignores the new one's lower ones, so that a consumer reads nothing
any more and reports no error. Only a new consumer helps.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from .configuration import Configuration, consumer_configuration, logger, refusing_configuration

CHECK_SECONDS = 5.0
REQUEST_SECONDS = 4.0

log = structlog.get_logger(__name__)


class TopicWatch:
    """Asks for a topic's id (KIP-516) every five seconds, without ever waiting for the answer."""

    def __init__(self, common: Configuration, topic: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        with refusing_configuration():
            self._client = AdminClient({**common, "reconnect.backoff.ms": 1_000}, logger=logger)
        self._topic = topic
        self._clock = clock
        self._id: str | None = None
        self._answer: Future[Any] | None = None
        self._asked_at = 0.0
        self._ask()

    def recreated(self) -> bool:
        """True once for each time that the topic was found under another id than before. Never blocks."""
        if self._answer is not None and self._answer.done():
            found, self._answer = self._id_of(self._answer), None
            known, self._id = self._id, found or self._id
            if known is not None and self._id != known:
                log.warning("topic was made anew", topic=self._topic)
                return True
        if self._answer is None and self._clock() - self._asked_at >= CHECK_SECONDS:
            self._ask()
        return False

    def _ask(self) -> None:
        self._asked_at = self._clock()
        asked = self._client.describe_topics(TopicCollection([self._topic]), request_timeout=REQUEST_SECONDS)
        self._answer = asked[self._topic]

    def _id_of(self, answer: Future[Any]) -> str | None:
        try:
            return str(answer.result().topic_id)  # a Uuid of confluent-kafka compares with == alone, not with !=
        except KafkaException:  # the broker is away, or the topic is not there yet
            return None


class ConsumerSource:
    """Makes the consumers of one process: the first one, and another whenever the topic was made anew."""

    def __init__(self, common: Configuration, topic: str, *, client_id: str, group: str) -> None:
        self._configuration = consumer_configuration(common, client_id=client_id, group=group)
        self._watch = TopicWatch(common, topic)

    def connect(self) -> Consumer:
        with refusing_configuration():
            return Consumer(self._configuration, logger=logger)

    def renew(self) -> Consumer | None:
        """A consumer to go on with, where the one in use reads a topic that is no more; else None. Never blocks."""
        return self.connect() if self._watch.recreated() else None
