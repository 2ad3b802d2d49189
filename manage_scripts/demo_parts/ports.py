"""TCP ports on 127.0.0.1: checked, and kept from others until the server that is meant to have them is up."""

import contextlib
import socket
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HOST = "127.0.0.1"


class PortInUseError(Exception):
    """The port that was asked for cannot be had; the text says what to do."""


def take(wanted: int | None, usual: int, option: str, bind: Callable[[int], T]) -> T:
    """What `bind` returns for the port `wanted`, or, where none is asked for, for the usual one, else for any free one.

    Raises PortInUseError where a port was asked for and is not free.
    """
    if wanted is None:
        with contextlib.suppress(OSError):
            return bind(usual)
        return bind(0)
    try:
        return bind(wanted)
    except OSError as error:
        raise PortInUseError(
            f"Port {wanted} cannot be used ({error.strerror}): give another one with {option}, or leave that out."
        ) from error


class Reservation:
    """Holds a port for granian, which binds with SO_REUSEPORT: it can join, others cannot, and this never listens."""

    def __init__(self, port: int) -> None:
        """Raises OSError where the port is in use; 0 chooses a free one."""
        with socket.socket() as probe:
            probe.bind((HOST, port))
            self.port: int = probe.getsockname()[1]
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((HOST, self.port))

    def close(self) -> None:
        self._socket.close()
