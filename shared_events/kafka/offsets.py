"""How far a consumer group has come, as the brokers know it."""

import time

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from .configuration import Configuration, refusing_configuration

TIMEOUT_SECONDS = 15.0
RETRY_SECONDS = 0.2

COORDINATOR_MOVES = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""Answers of a broker that has just taken the group over, or given it away. Consumers ask again by themselves; the admin client, in
librdkafka 2.x, hands them out (https://kafka.apache.org/protocol#protocol_error_codes says which errors may be retried)."""


def consumed_offsets(common: Configuration, *, group: str, topic: str, all_present: bool = False) -> dict[int, int]:
    """Partition → the offset below which `group` may have consumed records of `topic`.

    That is what it committed; where it committed nothing, and everywhere with `all_present`, it is the partition's end as it is now.
    Blocks up to a minute. Raises KafkaException where no broker answers, one refuses, or the topic does not exist.
    """
    with refusing_configuration():
        client = AdminClient(dict(common))
    found = client.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    partitions = [TopicPartition(topic, number) for number in found.partitions]
    committed = {} if all_present else _committed(client, group, partitions)
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    unknown = {partition: latest for partition in partitions if partition.partition not in committed}
    if not unknown:
        return committed
    ends = client.list_offsets(unknown, request_timeout=TIMEOUT_SECONDS)
    return committed | {partition.partition: future.result().offset for partition, future in ends.items()}


def _committed(client: AdminClient, group: str, partitions: list[TopicPartition]) -> dict[int, int]:
    try:
        answered = _settled_answer(client, ConsumerGroupTopicPartitions(group, partitions))
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return {}
        raise
    for partition in answered:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return {found.partition: found.offset for found in answered if found.offset >= 0}


def _settled_answer(client: AdminClient, asked: ConsumerGroupTopicPartitions) -> list[TopicPartition]:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        answers = client.list_consumer_group_offsets([asked], request_timeout=TIMEOUT_SECONDS)
        try:
            return answers[asked.group_id].result().topic_partitions or []
        except KafkaException as error:
            if error.args[0].code() not in COORDINATOR_MOVES or time.monotonic() > deadline:
                raise
        time.sleep(RETRY_SECONDS)
