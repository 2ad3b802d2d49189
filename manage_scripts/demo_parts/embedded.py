"""The demo's Redis and Kafka: fakeredis and librdkafka's mock cluster, each in a process of its own.

Run as `python -m manage_scripts.demo_parts.embedded redis` (or `kafka`); prints `127.0.0.1:PORT` on standard output
as soon as clients may connect, and serves until it is ended by a signal. Everything is kept in memory.
"""

import ctypes
import signal
import socket
import sys
from typing import Any

from confluent_kafka import cimpl
from fakeredis import TcpFakeServer

PARTITIONS = 4
RD_KAFKA_PRODUCER = 0


class RedisServer(TcpFakeServer):
    """Answers a pipeline at once: Nagle's algorithm would hold all but the first of its replies for 40 ms."""

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, client = super().get_request()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, client


def serve_redis() -> None:
    server = RedisServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True  # a client that stays connected must not keep the process alive
    announce(f"127.0.0.1:{server.server_address[1]}")
    server.serve_forever()


def serve_kafka(topics: list[str]) -> None:
    """Serve a mock cluster of one broker that holds `topics`; others appear when a client first asks for them.

    `test.mock.num.brokers` would make the same cluster, but with a pause of three seconds before a group's first
    assignment, which only the C interface can switch off. What it cannot: after a group's member has left, the
    next one waits for the session time-out less a second before it is given partitions.
    """
    librdkafka = load_librdkafka()
    reason = ctypes.create_string_buffer(512)
    client = librdkafka.rd_kafka_new(RD_KAFKA_PRODUCER, librdkafka.rd_kafka_conf_new(), reason, len(reason))
    if not client:
        sys.exit(f"librdkafka could not be started: {reason.value.decode(errors='replace')}")
    cluster = librdkafka.rd_kafka_mock_cluster_new(client, 1)
    if not cluster:
        sys.exit("librdkafka's mock cluster could not be started: is 127.0.0.1 usable?")
    librdkafka.rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0)
    for topic in topics:
        librdkafka.rd_kafka_mock_topic_create(cluster, topic.encode(), PARTITIONS, 1)
    announce(librdkafka.rd_kafka_mock_cluster_bootstraps(cluster).decode())
    while True:  # the cluster lives in librdkafka's own threads
        signal.pause()


def load_librdkafka() -> ctypes.CDLL:
    """The library that confluent_kafka has loaded: a look-up through its extension module finds the names in it."""
    library = ctypes.CDLL(cimpl.__file__)
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    library.rd_kafka_conf_new.restype = pointer
    library.rd_kafka_new.argtypes = [number, pointer, text, ctypes.c_size_t]
    library.rd_kafka_new.restype = pointer
    library.rd_kafka_mock_cluster_new.argtypes = [pointer, number]
    library.rd_kafka_mock_cluster_new.restype = pointer
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [pointer]
    library.rd_kafka_mock_cluster_bootstraps.restype = text
    library.rd_kafka_mock_group_initial_rebalance_delay_ms.argtypes = [pointer, ctypes.c_int32]
    library.rd_kafka_mock_topic_create.argtypes = [pointer, text, number, number]
    return library


def announce(address: str) -> None:
    print(address, flush=True)


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    match arguments:
        case ["redis"]:
            serve_redis()
        case ["kafka", *topics]:
            serve_kafka(topics)
        case _:
            sys.exit("usage: python -m manage_scripts.demo_parts.embedded redis | kafka [TOPIC …]")


if __name__ == "__main__":
    main(sys.argv[1:])
