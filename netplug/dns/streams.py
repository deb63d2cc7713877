"""DNS over TCP (RFC 7766): bounded in connections, in bytes that wait, and in time."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from netplug.dns.loop import READ, WRITE, Loop, Timer
from netplug.dns.registry import Client

CONNECTIONS = 512
OF_ONE_CLIENT = 16
IDLE_SECONDS = 10.0
WAITING_BYTES = 1 << 18  # replies that a slow reader may leave with us

Send = Callable[[bytes], None]
Answer = Callable[[bytes, Client, Send], None]


class Streams:
    """All TCP connections. `answer` gets each question with what sends the reply."""

    def __init__(self, loop: Loop, answer: Answer, counts: Counter[str]) -> None:
        self._loop, self._answer, self.counts = loop, answer, counts
        self.open: set[Stream] = set()

    def accept(self, listener: socket.socket, client_of: Callable[[str], Client | None]) -> None:
        while True:
            try:
                connection, peer = listener.accept()
            except OSError:
                return
            client = client_of(peer[0])
            mine = sum(stream.client is client for stream in self.open)
            if client is None or len(self.open) >= CONNECTIONS or mine >= OF_ONE_CLIENT:
                self.counts["refused_connections"] += 1
                connection.close()
                continue
            connection.setblocking(False)
            self.open.add(Stream(self, connection, client))

    def drop(self, client: Client) -> None:
        """The attachment is gone."""
        for stream in [stream for stream in self.open if stream.client is client]:
            stream.close()


@dataclass(eq=False)
class Stream:
    """One connection: questions in, replies out, each behind its length."""

    streams: Streams
    socket: socket.socket
    client: Client

    def __post_init__(self) -> None:
        self._in, self._out = b"", b""
        self._loop = self.streams._loop
        self._loop.register(self.socket.fileno(), self._read)
        self._timer: Timer | None = None
        self._rest()

    def _rest(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.later(IDLE_SECONDS, self.close)

    def _read(self) -> None:
        try:
            part = self.socket.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self.close()
            return
        self._in += part
        while len(self._in) >= 2 and not self.closed:
            size = int.from_bytes(self._in[:2], "big")
            if len(self._in) < 2 + size:
                break
            question, self._in = self._in[2 : 2 + size], self._in[2 + size :]
            self._rest()  # only whole questions prolong it: a trickle of bytes does not
            self.streams._answer(question, self.client, self.send)

    def send(self, reply: bytes) -> None:
        """An empty reply ends the connection: what came was no question."""
        if self.closed:
            return
        if not reply or len(self._out) > WAITING_BYTES:
            self.close()
            return
        self._out += len(reply).to_bytes(2, "big") + reply
        self._write()

    def _write(self) -> None:
        try:
            sent = self.socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._out = self._out[sent:]
        fd = self.socket.fileno()
        if self._out:
            self._loop.register(fd, self._read_or_write, READ | WRITE)
        else:
            self._loop.register(fd, self._read)

    def _read_or_write(self) -> None:
        self._write()
        if not self.closed:
            self._read()

    @property
    def closed(self) -> bool:
        return self.socket.fileno() < 0

    def close(self) -> None:
        if self.closed:
            return
        if self._timer:
            self._timer.cancel()
        self._loop.unregister(self.socket.fileno())
        self.socket.close()
        self.streams.open.discard(self)
