"""The proxy of the proof breaks a connection where it is told to, and nowhere else."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.end_to_end.platform import wait_until
from tests.proof.proxy import Cut, FaultProxy, Side, is_commit, is_content, is_greeting, smtp_command

COMMIT = b"\x07\x00\x00\x00\x03COMMIT"


class Echo:
    """Answers each message with itself, and remembers what came."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.received: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def _accept(self) -> None:
        while True:
            try:
                channel, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(channel,), daemon=True).start()

    def _echo(self, channel: socket.socket) -> None:
        with channel:
            try:
                while message := channel.recv(1000):
                    self.received.append(message)
                    channel.sendall(message)
            except OSError:
                return


@pytest.fixture
def server() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.listener.close()


@pytest.fixture
def proxy(server: Echo) -> Iterator[FaultProxy]:
    with FaultProxy(server.address) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: FaultProxy) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
        yield client


def ask(client: socket.socket, message: bytes) -> bytes | None:
    """The answer, None where the connection broke first."""
    try:
        client.sendall(message)
        return client.recv(1000) or None
    except ConnectionError:
        return None


def ask_anew(proxy: FaultProxy, message: bytes) -> bytes | None:
    """As `ask`, on a connection of its own; a connection that is refused breaks, too."""
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=5) as client:
            return ask(client, message)
    except ConnectionError:
        return None


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (Side.BEFORE, ([b"first"], None)),
        (Side.HALF, ([b"first", b"sec"], None)),
        (Side.AFTER, ([b"first", b"second"], None)),
        (Side.ANSWERED, ([b"first", b"second"], b"second")),
    ],
)
def test_a_cut_breaks_the_connection_on_its_side_of_the_message(
    client: socket.socket, server: Echo, proxy: FaultProxy, side: Side, expected: tuple[list[bytes], bytes | None]
) -> None:
    seen, answer = expected
    proxy.cut(Cut(matches=lambda message: message == b"second", side=side))
    assert ask(client, b"first") == b"first"
    assert ask(client, b"second") == answer
    assert ask(client, b"third") is None
    wait_until(lambda: server.received == seen, 5, f"the server saw {seen}, now {server.received}")
    assert proxy.cuts_made == 1


def test_a_cut_is_made_as_often_as_said_and_healing_takes_it_away(server: Echo, proxy: FaultProxy) -> None:
    proxy.cut(Cut(matches=lambda message: message == b"x", side=Side.BEFORE, times=2))
    assert [ask_anew(proxy, b"x") for _ in range(3)] == [None, None, b"x"]
    proxy.cut(Cut(matches=is_greeting, side=Side.BEFORE, times=100))
    assert ask_anew(proxy, b"y") is None
    proxy.heal()
    assert ask_anew(proxy, b"z") == b"z"
    assert server.received == [b"x", b"z"]


def test_a_black_hole_is_silent_and_its_connections_end_when_it_is_healed(
    client: socket.socket, server: Echo, proxy: FaultProxy
) -> None:
    assert ask(client, b"first") == b"first"
    proxy.black_hole()
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        ask(client, b"second")
    client.settimeout(5)
    proxy.heal()
    assert ask(client, b"third") is None
    assert server.received == [b"first"]


def test_a_refusing_proxy_ends_old_and_new_connections(client: socket.socket, proxy: FaultProxy) -> None:
    assert ask(client, b"first") == b"first"
    proxy.refuse()
    assert ask(client, b"second") is None
    assert ask_anew(proxy, b"third") is None


@pytest.mark.parametrize(
    ("matches", "message", "expected"),
    [
        (is_commit, COMMIT, True),
        (is_commit, COMMIT.replace(b"COMMIT", b"commit"), True),
        (is_commit, b"\x08\x00\x00\x00\x03COMMITS", False),
        (is_commit, COMMIT[:4] + b"\x16COMMIT", False),
        (is_commit, b"", False),
        (smtp_command("MAIL"), b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", True),
        (smtp_command("RCPT"), b"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n", True),
        (smtp_command("DATA"), b"DATA\r\n", True),
        (smtp_command("DATA"), b"Subject: x\r\n\r\nDATA\r\n.\r\n", False),
        (is_content, b"Subject: x\r\n\r\nDATA\r\n.\r\n", True),
        (is_content, b"DATA\r\n", False),
        (is_greeting, b"", True),
        (is_greeting, b"EHLO x\r\n", False),
    ],
)
def test_messages_are_told_apart(matches: object, message: bytes, expected: bool) -> None:
    assert callable(matches)
    assert matches(message) is expected
