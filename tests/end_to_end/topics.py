"""The topics, seen past the product."""

from collections.abc import Iterator
from contextlib import closing

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, TopicPartition
from confluent_kafka.admin import AdminClient

GROUPS = (("email-service", "notification-events-topic"), ("notification-service", "notification-status-topic"))
SECONDS = 10


def lag(servers: str) -> int:
    """Records that the two consumer groups have not committed yet."""
    admin = AdminClient({"bootstrap.servers": servers})
    total = 0
    with closing(_reader(servers)) as reader:
        for group, topic in GROUPS:
            partitions = [
                TopicPartition(topic, n) for n in admin.list_topics(topic, timeout=SECONDS).topics[topic].partitions
            ]
            asked = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, partitions)])
            for partition in asked[group].result(timeout=SECONDS).topic_partitions or []:
                low, high = reader.get_watermark_offsets(TopicPartition(topic, partition.partition), timeout=SECONDS)
                total += high - max(low, partition.offset)
    return total


def messages(servers: str, topic: str) -> Iterator[Message]:
    """All records of a topic, partition by partition. TimeoutError where one that should be there does not come."""
    with closing(_reader(servers)) as reader:
        for partition in reader.list_topics(topic, timeout=SECONDS).topics[topic].partitions:
            low, high = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=SECONDS)
            reader.assign([TopicPartition(topic, partition, low)])
            while low < high:
                message = reader.poll(SECONDS)
                if message is None:
                    raise TimeoutError(f"{topic}/{partition} offset {low} of {high}")
                if message.error() is None:
                    low = (message.offset() or 0) + 1
                    yield message


def values(servers: str, topic: str) -> list[bytes]:
    return [bytes(message.value() or b"") for message in messages(servers, topic)]


def _reader(servers: str) -> Consumer:
    return Consumer({"bootstrap.servers": servers, "group.id": "reader", "enable.auto.commit": False})
