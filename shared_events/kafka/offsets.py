"""How far a consumer group has come, as the brokers know it."""

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from .configuration import Configuration, refusing_configuration

TIMEOUT_SECONDS = 15.0


def consumed_offsets(common: Configuration, *, group: str, topic: str, all_present: bool = False) -> dict[int, int]:
    """Partition → the offset below which `group` may have consumed records of `topic`.

    That is what it committed; where it committed nothing, and everywhere with `all_present`, it is the partition's end as it is now.
    Blocks up to 45 seconds. Raises KafkaException where no broker answers, one refuses, or the topic does not exist.
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
    request = [ConsumerGroupTopicPartitions(group, partitions)]
    try:
        answer = client.list_consumer_group_offsets(request, request_timeout=TIMEOUT_SECONDS)[group].result()
    except KafkaException as error:
        if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return {}
        raise
    for partition in answer.topic_partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return {found.partition: found.offset for found in answer.topic_partitions if found.offset >= 0}
