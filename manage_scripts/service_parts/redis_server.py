"""A Redis server that keeps nothing on disk: a restart finds it empty, as an eviction or a failover does."""

from __future__ import annotations

import socket

from manage_scripts.service_parts.process import ServiceProcess
from manage_scripts.service_parts.programs import require_program
from manage_scripts.service_parts.state import HOST


class RedisServer(ServiceProcess):
    name = "redis"
    programs = ("redis-server",)
    start_seconds = 20

    def prepare(self) -> None:
        """Nothing lies on disk."""

    def command(self) -> list[str]:
        return [
            *(require_program("redis-server"), "--port", str(self.port), "--bind", HOST),
            *("--save", "", "--appendonly", "no", "--daemonize", "no", "--dir", str(self.folder)),
        ]

    def answers(self) -> bool:
        with socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(b"PING\r\n")
            return connection.recv(7) == b"+PONG\r\n"

    def wipe_data(self) -> None:
        """A stopped Redis has no data left."""

    def url(self, database: int = 0) -> str:
        return f"redis://{HOST}:{self.port}/{database}"
