"""Making the topics."""

from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from .configuration import Configuration, refusing_configuration

TIMEOUT_SECONDS = 15.0


def create_topics(
    common: Configuration, names: Sequence[str], *, partitions: int = -1, replication_factor: int = -1
) -> list[str]:
    """Makes those of `names` that do not exist, with the broker's own numbers unless given (-1), and returns them.

    Blocks up to 15 seconds. Raises KafkaException where no broker answers or one refuses.
    """
    with refusing_configuration():
        client = AdminClient(dict(common))
    existing = client.list_topics(timeout=TIMEOUT_SECONDS).topics
    wanted = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication_factor)
        for name in names
        if name not in existing
    ]
    if not wanted:
        return []
    made = []
    for name, future in client.create_topics(wanted, operation_timeout=TIMEOUT_SECONDS).items():
        try:
            future.result()
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        else:
            made.append(name)
    return made
