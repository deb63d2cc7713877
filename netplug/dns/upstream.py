"""Asking other name servers, from the host's namespace, for what is not ours.

Every attempt has a socket of its own: a source port and an id that the kernel's and the
process's random numbers choose (RFC 5452). A reply counts when it comes from the server that
was asked (the socket is connected), with that id and that question. A silent server gets
company after 300 ms; within 4.5 s there is an answer, SERVFAIL at worst, before a client
gives up (resolv.conf's 5 s).
"""

from __future__ import annotations

import math
import os
import secrets
import socket as sockets
import struct
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace

from netplug.dns import wire
from netplug.dns.cache import Cache, Key
from netplug.dns.loop import READ, WRITE, Loop, Timer
from netplug.kernel import namespaces

RACE_SECONDS = 0.3
PATIENCE_SECONDS = 4.5
ATTEMPTS = (0.0, 0.3, 0.6, 1.5, 3.0)  # seconds; the servers in turn, healthy ones first
REST_SECONDS = 10.0  # an unhealthy server is asked after the others so long
FAILURES = 2  # silences in a row that make a server unhealthy
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
IN_FLIGHT = 2048  # questions at once
SETS_KEPT = 256
BAD = (wire.SERVFAIL, wire.REFUSED, wire.NOTIMP, wire.FORMERR)

Server = tuple[str, int]
Done = Callable[[bytes | None, str], None]  # a message without OPT, None for none; who said it


@dataclass(slots=True)
class Health:
    """What is known of one server."""

    silences: int = 0
    rests_until: float = 0.0
    queries: int = 0
    replies: int = 0
    seconds: float = 0.0  # of all replies together


@dataclass(eq=False, slots=True)
class Upstreams:
    """A set of servers as one host reaches them. `fd` is that host's namespace."""

    fd: int
    servers: tuple[Server, ...]
    cache: Cache = field(default_factory=Cache)
    health: dict[Server, Health] = field(default_factory=dict)
    flying: dict[Key, Exchange] = field(default_factory=dict)

    def ordered(self, now: float) -> list[Server]:
        """Those that rest come last."""
        return sorted(self.servers, key=lambda one: self.of(one).rests_until > now)

    def of(self, server: Server) -> Health:
        return self.health.setdefault(server, Health())


class Forwarder:
    """All questions that are under way."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.counts: Counter[str] = Counter()
        self.flying = 0
        self.latency: Counter[float] = Counter()  # replies by the bound of their seconds
        self.seconds = 0.0  # of all replies together

    def note_reply(self, seconds: float) -> None:
        self.seconds += seconds
        self.latency[next((bound for bound in BOUNDS if seconds <= bound), math.inf)] += 1

    def ask(self, upstreams: Upstreams, query: wire.Query, done: Done) -> None:
        """Calls `done` once, at once where the cache knows; equal questions share one exchange."""
        key = question_key(query)
        known = upstreams.cache.get(key, time.monotonic())
        if known is not None:
            self.counts["cache"] += 1
            done(known, "cache")
            return
        exchange = upstreams.flying.get(key)
        if exchange is not None:
            self.counts["coalesced"] += 1
            exchange.waiting.append(done)
            return
        if not upstreams.servers or self.flying >= IN_FLIGHT:
            self.counts["no_server" if self.flying < IN_FLIGHT else "overload"] += 1
            done(None, "")
            return
        self.flying += 1
        exchange = upstreams.flying[key] = Exchange(self, upstreams, key, query, [done])
        exchange.begin()


def question_key(query: wire.Query) -> Key:
    return query.question.lower(), query.dnssec, bool(query.flags & wire.CD)


@dataclass(eq=False, slots=True)
class Exchange:
    """One question on its way to the servers of a set."""

    forwarder: Forwarder
    upstreams: Upstreams
    key: Key
    query: wire.Query
    waiting: list[Done]
    began: float = field(default_factory=time.monotonic)
    attempts: list[Attempt] = field(default_factory=list)
    tried: int = 0
    worst: bytes | None = None  # a refusal, told where nobody says better
    deadline: Timer | None = None
    timer: Timer | None = None

    def begin(self) -> None:
        loop = self.forwarder.loop
        self.deadline = loop.later(PATIENCE_SECONDS, self.expire)
        self.advance()

    def advance(self) -> None:
        """Asks the next server, and plans the attempt after it."""
        if self.timer:
            self.timer.cancel()
            self.timer = None
        servers = self.upstreams.ordered(time.monotonic())
        if self.tried >= max(len(ATTEMPTS), len(servers)):
            if not self.open:
                self.fail()
            return
        server = servers[self.tried % len(servers)]
        self.tried += 1
        attempt = Attempt(self, server)
        self.attempts.append(attempt)
        if self.tried < len(ATTEMPTS):
            wait = max(0.0, ATTEMPTS[self.tried] - (time.monotonic() - self.began))
            self.timer = self.forwarder.loop.later(max(wait, RACE_SECONDS), self.advance)
        attempt.start()

    def failed(self, attempt: Attempt, refusal: bytes | None = None) -> None:
        """One server refused, or cannot be reached: the next one does not have to wait."""
        attempt.close()
        self.worst = refusal or self.worst
        if self.tried < len(self.upstreams.servers):
            self.advance()
        elif not self.open and (not self.timer or self.tried >= 2 * len(self.upstreams.servers)):
            self.fail(attempt.name)

    def succeed(self, attempt: Attempt, bare: bytes) -> None:
        again = wire.parse_reply(bare, self.query.question)
        self.upstreams.cache.put(self.key, bare, again, time.monotonic())
        self.finish(bare, attempt.name)

    def expire(self) -> None:
        for attempt in self.attempts:
            if attempt.socket:
                attempt.note_silence()
        self.forwarder.counts["timeout"] += 1
        self.fail()

    @property
    def open(self) -> bool:
        return any(attempt.socket for attempt in self.attempts)

    def fail(self, who: str = "") -> None:
        """The refusal, else SERVFAIL, which is kept for a second (RFC 9520)."""
        bare = replace(self.query, edns=False)
        message = self.worst or wire.refuse(bare, wire.SERVFAIL)
        reply = wire.parse_reply(message, self.query.question)
        self.upstreams.cache.put(self.key, message, reply, time.monotonic())
        self.finish(message, who)

    def finish(self, message: bytes | None, who: str) -> None:
        for timer in (self.timer, self.deadline):
            if timer:
                timer.cancel()
        for attempt in self.attempts:
            attempt.close()
        if self.upstreams.flying.pop(self.key, None) is None:
            return
        self.forwarder.flying -= 1
        for done in self.waiting:
            done(message, who)


@dataclass(eq=False, slots=True)
class Attempt:
    """One question to one server: over UDP, then over TCP where the reply is cut off."""

    exchange: Exchange
    server: Server
    id: int = 0
    edns: bool = True
    socket: sockets.socket | None = None
    sent: float = 0.0
    buffer: bytes = b""

    @property
    def name(self) -> str:
        return self.server[0]

    @property
    def health(self) -> Health:
        return self.exchange.upstreams.of(self.server)

    @property
    def _loop(self) -> Loop:
        return self.exchange.forwarder.loop

    def start(self, kind: sockets.SocketKind = sockets.SOCK_DGRAM) -> None:
        self.id = secrets.randbits(16)
        self.sent = time.monotonic()
        self.health.queries += 1
        try:
            self._connect(kind)
        except OSError:
            self.note_silence()
            self.exchange.failed(self)

    def _connect(self, kind: sockets.SocketKind) -> None:
        host, port = self.server
        family = sockets.AF_INET6 if ":" in host else sockets.AF_INET
        flags = kind | sockets.SOCK_NONBLOCK | sockets.SOCK_CLOEXEC
        fd = self.exchange.upstreams.fd
        own = self.socket = namespaces.in_namespace(fd, lambda: sockets.socket(family, flags))
        address = sockets.getaddrinfo(host, port, family, kind, 0, sockets.AI_NUMERICHOST)[0][4]
        if kind == sockets.SOCK_DGRAM:
            own.connect(address)
            own.send(self._question())
            self._loop.register(own.fileno(), self._read)
            return
        with suppress(BlockingIOError):
            own.connect(address)
        self._loop.register(own.fileno(), self._connected, WRITE)

    def _question(self) -> bytes:
        query = self.exchange.query
        flags = wire.RD | query.flags & wire.CD
        head = wire.HEADER.pack(self.id, flags, 1, 0, 0, int(self.edns))
        return head + query.question + (wire.render_opt(query) if self.edns else b"")

    def _read(self) -> None:
        if self.socket is None:
            return
        try:
            data = self.socket.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # ICMP said that nobody is there
            self.note_silence()
            self.exchange.failed(self)
            return
        self._judge(data, over_tcp=False)

    def _judge(self, data: bytes, *, over_tcp: bool) -> None:
        counts = self.exchange.forwarder.counts
        query = self.exchange.query
        try:
            reply = wire.parse_reply(data, query.question)
            if data[:2] != self.id.to_bytes(2, "big"):
                raise wire.Malformed("another id")
            bare = strip_opt(data, reply)
        except wire.Malformed:  # somebody guesses: the true reply may still come
            counts["false_reply"] += 1
            if over_tcp:
                self.exchange.failed(self)
            return
        self._note_reply()
        if reply.flags & wire.TC and not over_tcp:
            counts["tcp"] += 1
            self.close()
            self.start(sockets.SOCK_STREAM)
        elif reply.rcode == wire.FORMERR and self.edns:  # a server from before RFC 6891
            self.close()
            self.edns = False
            self.start()
        elif reply.rcode in BAD or reply.rcode > 15:
            self.exchange.failed(self, bare)
        else:
            self.exchange.succeed(self, bare)

    # over TCP

    def _connected(self) -> None:
        assert self.socket is not None
        question = self._question()
        try:
            code = self.socket.getsockopt(sockets.SOL_SOCKET, sockets.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            self.socket.send(struct.pack("!H", len(question)) + question)
        except OSError:
            self.exchange.failed(self)
            return
        self._loop.register(self.socket.fileno(), self._read_stream, READ)

    def _read_stream(self) -> None:
        assert self.socket is not None
        try:
            part = self.socket.recv(65537 - len(self.buffer))
        except BlockingIOError:
            return
        except OSError:
            part = b""
        self.buffer += part
        if len(self.buffer) >= 2 and len(self.buffer) - 2 >= int.from_bytes(self.buffer[:2], "big"):
            size = int.from_bytes(self.buffer[:2], "big")
            self._judge(self.buffer[2 : 2 + size], over_tcp=True)
        elif not part:
            self.exchange.failed(self)

    # what is learned of the server

    def _note_reply(self) -> None:
        health = self.health
        health.silences, health.rests_until = 0, 0.0
        health.replies += 1
        seconds = time.monotonic() - self.sent
        health.seconds += seconds
        self.exchange.forwarder.note_reply(seconds)

    def note_silence(self) -> None:
        health = self.health
        health.silences += 1
        if health.silences >= FAILURES:
            health.rests_until = time.monotonic() + REST_SECONDS

    def close(self) -> None:
        if self.socket is not None:
            self._loop.unregister(self.socket.fileno())
            self.socket.close()
            self.socket = None
        self.buffer = b""


def strip_opt(message: bytes, reply: wire.Reply) -> bytes:
    """Without the record that is between the server and us (RFC 6891 section 6.1.1), and
    without what is behind the last record.

    It is the last one as a rule; where it is not, pointers behind it would go wrong, so that
    the message is packed anew. Raises Malformed where that cannot be done.
    """
    if reply.opt is None:
        return message[: reply.end]
    start, end = reply.opt
    if end != reply.end:
        from dnslib import DNSRecord

        try:
            whole = DNSRecord.parse(message)
            whole.ar = [record for record in whole.ar if record.rtype != wire.OPT]
            packed: bytes = whole.pack()
        except Exception:  # dnslib has many, for what is wrong inside of records
            raise wire.Malformed("records that cannot be read") from None
        return packed
    *rest, additions = wire.HEADER.unpack_from(message)
    return wire.HEADER.pack(*rest, additions - 1) + message[wire.HEADER.size : start]
