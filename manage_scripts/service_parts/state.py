"""What a folder of services remembers: the ports and passwords that were chosen when it was made."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

HOST = "127.0.0.1"
# Below the range from which Linux takes the ports of outgoing connections: none of those may sit on a server's port
# while that server is down for a test.
PORTS = range(20000, 32000)


class State:
    """`services.json`, readable by its owner only. Every value is chosen once; later readers get the same."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._values: dict[str, str | int] = {}

    def port(self, name: str) -> int:
        return int(self._value(f"{name}_port", self._choose_port))

    def password(self, name: str) -> str:
        return str(self._value(f"{name}_password", lambda: secrets.token_urlsafe(24)))

    def _value(self, name: str, choose: Callable[[], str | int]) -> str | int:
        if name not in self._values:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._values = json.loads(file.read() or "{}")
                if name not in self._values:
                    self._values[name] = choose()
                    file.seek(0)
                    json.dump(self._values, file, indent=2)
                    file.truncate()
        return self._values[name]

    def _choose_port(self) -> int:
        taken = set(self._values.values())
        for port in random.sample(PORTS, len(PORTS)):
            if port not in taken and port_is_free(port):
                return port
        raise RuntimeError(f"No port between {PORTS.start} and {PORTS.stop} is free on {HOST}: end some servers.")


def port_is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what is in TIME_WAIT does not hinder a server
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
