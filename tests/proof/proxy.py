"""A TCP proxy that breaks connections at a chosen moment of the talk: before a message, in the midst of it, or after it arrived."""

import asyncio
import contextlib
import enum
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Self

HOST = "127.0.0.1"
CHUNK_BYTES = 65536
COM_QUERY = 3
MATCHES_COMMIT = b"COMMIT"


class Side(enum.Enum):
    """Where in an exchange the connection breaks, seen from the message that the client sent."""

    BEFORE = "before"  # the server never sees it
    HALF = "half"  # the server has half of it
    AFTER = "after"  # the server has it and has answered; the client never hears the answer
    ANSWERED = "answered"  # the client has the answer


@dataclass(slots=True, kw_only=True)
class Cut:
    """Breaks the connection of each message that `matches`, as often as `times` says."""

    matches: Callable[[bytes], bool]
    side: Side
    times: int = 1


def is_commit(message: bytes) -> bool:
    """A COM_QUERY packet of the MySQL protocol that says COMMIT."""
    return len(message) >= 5 and message[4] == COM_QUERY and message[5:].strip().upper() == MATCHES_COMMIT


def smtp_command(verb: str) -> Callable[[bytes], bool]:
    """Messages that begin with an SMTP command, or, pipelined, hold it at the beginning of a line."""
    pattern = re.compile(rb"^%s\b" % verb.encode(), re.IGNORECASE | re.MULTILINE)
    return lambda message: not is_content(message) and pattern.search(message) is not None


def is_content(message: bytes) -> bool:
    """The content of a mail, of those that fit into one segment, with its final dot."""
    return message.endswith(b"\r\n.\r\n")


def is_greeting(message: bytes) -> bool:
    """The empty message by which a new connection makes itself known, before the server has spoken."""
    return message == b""


class FaultProxy:
    """Listens on a free port, forwards to `target`, and does what it is told from any thread.

    `cut` breaks connections at one kind of message; `black_hole` lets nothing through and says nothing, as a network that is
    partitioned does; `refuse` closes every connection at once; `answer_delay_seconds` slows each answer down.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.answer_delay_seconds = 0.0
        self.cuts_made = 0
        self.disturbed = 0  # connections that were broken, messages and answers that were held back or delayed
        self.port = 0
        self._cuts: list[Cut] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="fault-proxy", daemon=True)
        self._ready = threading.Event()
        self._refusing = False
        self._open: set[asyncio.Task[None]] = set()
        self._passing: asyncio.Event | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def cut(self, cut: Cut) -> None:
        self._call(self._set_cuts([cut]))

    def reset_all(self) -> None:
        """Breaks every connection that is open now."""
        self._call(self._reset_all())

    def black_hole(self) -> None:
        self._call(self._set_passing(passes=False))

    def refuse(self) -> None:
        self._call(self._refuse())

    def heal(self) -> None:
        """Forwards everything again; what a black hole held back is lost with its connections."""
        self._call(self._heal())

    def _call(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self._loop).result(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.create_task(self._listen())
        self._loop.run_forever()
        self._loop.close()

    async def _listen(self) -> None:
        self._passing = asyncio.Event()
        self._passing.set()
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self._ready.set()

    async def _end(self) -> None:
        self._server.close()
        await self._reset_all()

    async def _set_cuts(self, cuts: list[Cut]) -> None:
        self._cuts = cuts

    async def _set_passing(self, *, passes: bool) -> None:
        assert self._passing
        if passes:
            self._passing.set()
        else:
            self._passing.clear()

    async def _refuse(self) -> None:
        self._refusing = True
        await self._reset_all()

    async def _heal(self) -> None:
        assert self._passing
        self._refusing = False
        self._cuts = []
        self.answer_delay_seconds = 0.0
        if not self._passing.is_set():
            await self._reset_all()
            self._passing.set()

    async def _reset_all(self) -> None:
        tasks = list(self._open)
        self.disturbed += len(tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._open.add(task)
        client = Peer(reader, writer)
        server: Peer | None = None
        try:
            await self._pass()
            if self._refusing:
                self.disturbed += 1
                return
            server = Peer(*await asyncio.open_connection(*self.target))
            await self._forward(client, server)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            for peer in (client, server):
                if peer is not None:
                    peer.reset()

    async def _forward(self, client: "Peer", server: "Peer") -> None:
        if (cut := self._take(b"")) is not None:
            if cut.side is Side.BEFORE:
                return
            client.ends_with = cut.side
        answers = asyncio.create_task(self._forward_answers(client, server))
        messages = asyncio.create_task(self._forward_messages(client, server))
        try:
            await asyncio.wait((answers, messages), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (answers, messages):
                task.cancel()
            await asyncio.gather(answers, messages, return_exceptions=True)

    async def _forward_messages(self, client: "Peer", server: "Peer") -> None:
        while message := await client.read():
            await self._pass()
            cut = self._take(message)
            if cut is None:
                await server.write(message)
                continue
            if cut.side is Side.BEFORE:
                return
            if cut.side is Side.HALF:
                await server.write(message[: len(message) // 2])
                return
            client.ends_with = cut.side
            await server.write(message)

    async def _forward_answers(self, client: "Peer", server: "Peer") -> None:
        while answer := await server.read():
            await self._pass()
            if self.answer_delay_seconds:
                self.disturbed += 1
                await asyncio.sleep(self.answer_delay_seconds)
            if client.ends_with is Side.AFTER:
                return
            await client.write(answer)
            if client.ends_with is Side.ANSWERED:
                return

    async def _pass(self) -> None:
        assert self._passing
        if not self._passing.is_set():
            self.disturbed += 1
        await self._passing.wait()

    def _take(self, message: bytes) -> Cut | None:
        for cut in self._cuts:
            if cut.times > 0 and cut.matches(message):
                cut.times -= 1
                self.cuts_made += 1
                return cut
        return None


class Peer:
    """One side of a proxied connection. `ends_with`: how the exchange under way is to end, where it is to be cut."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.ends_with: Side | None = None
        channel = writer.get_extra_info("socket")
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def read(self) -> bytes:
        return await self._reader.read(CHUNK_BYTES)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Closes with RST, as a host that has crashed does; the other side is told of no orderly end."""
        channel = self._writer.get_extra_info("socket")
        with contextlib.suppress(OSError):
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
