"""From a question to its reply: ready ones at once, others looked up, the rest forwarded."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from netplug.dns import wire
from netplug.dns.burst import burst_of
from netplug.dns.listening import Place
from netplug.dns.names import Answer
from netplug.dns.registry import Client
from netplug.dns.render import render_answer
from netplug.dns.upstream import Forwarder, Upstreams

READY_LIMIT = 65_536  # replies kept for one view
RATE = 2_000.0  # questions a second of one client that are not answered from what is ready
BURST_ALLOWANCE = 4_000.0
PLAIN_FLAGS = (wire.RD, wire.RD | wire.AD, 0)
TCP_LIMIT = 65_535

Send = Callable[[bytes], None]
log = logging.getLogger("netplug.dns")


@dataclass(slots=True)
class Answers:
    """Answers questions of clients. `upstreams_of` gives the servers that one may ask."""

    forwarder: Forwarder
    counts: Counter[str]
    upstreams_of: Callable[[Client], Upstreams]
    _turn: int = 0

    def drain(self, place: Place) -> None:
        """Answers what waits on a UDP socket, a burst of it."""
        fd, only, client_of = place.udp.fileno(), place.only, place.clients.get
        burst = burst_of(place.udp.family)
        questions, replies, sizes = burst.questions, burst.replies, burst.reply_sizes
        first = ready = refused = 0  # the first slot whose reply has not been sent
        received = burst.receive(fd)
        for (number, at, text, host, host_end), size in zip(burst.slots, received, strict=False):
            client = only or client_of(bytes(burst.addresses[host:host_end]))
            if client is not None:
                view, question = client.view, bytes(questions[text : at + size])
                reply = view.ready.get(question) or view.turn(question)
                if reply is not None:
                    ready += 1
                    sizes[number] = length = len(reply) + 2
                    replies[at : at + length] = bytes(questions[at:text]) + reply
                    continue
            refused += burst.send(fd, first, number)
            first = number + 1
            self._answer_datagram(
                place, bytes(questions[at : at + size]), client, burst.peer(number)
            )
        refused += burst.send(fd, first, len(received))
        self.counts["ready"] += ready
        if refused:
            self.counts["send_errors"] += refused

    def _answer_datagram(
        self, place: Place, data: bytes, client: Client | None, peer: tuple[object, ...]
    ) -> None:
        def send(reply: bytes) -> None:
            if not reply or place.udp.fileno() < 0:  # nothing to say, or nobody to say it
                return
            try:
                place.udp.sendto(reply, peer)
            except OSError:
                self.counts["send_errors"] += 1

        try:
            self.answer(data, client, send, over_tcp=False)
        except Exception:  # the others of the burst are answered all the same
            self.counts["failed"] += 1
            log.exception("a question failed")

    def answer_stream(self, data: bytes, client: Client, send: Send) -> None:
        self.answer(data, client, send, over_tcp=True)

    def answer(self, data: bytes, client: Client | None, send: Send, *, over_tcp: bool) -> None:
        """Calls `send` once, now or later; with nothing for what is not to be answered."""
        try:
            query = wire.parse_query(data)
        except wire.Malformed:
            self.counts["malformed"] += 1
            send(b"")
            return
        except wire.Refused as refused:
            self.counts["refused_kinds"] += 1
            send(wire.refuse(refused.query, refused.rcode) if client or over_tcp else b"")
            return
        if client is None:
            self.counts["strangers"] += 1
            send(wire.refuse(query, wire.REFUSED))
            return
        if not _allow(client):
            self.counts["limited"] += 1
            send(wire.refuse(query, wire.REFUSED) if over_tcp else b"")
            return
        limit = TCP_LIMIT if over_tcp else wire.udp_limit(query)
        name = query.name
        found = client.view.lookup(name, query.kind) if name is not None else None
        if found is not None:
            send(self._own(client, query, found, data, limit))
        else:
            self._forward(client, query, send, limit)

    def _own(
        self, client: Client, query: wire.Query, found: Answer, data: bytes, limit: int
    ) -> bytes:
        view = client.view
        self.counts["own" if found.rcode == wire.NOERROR else "nxdomain"] += 1
        replies = [
            wire.finish(message, query, limit)
            for message in render_answer(found, query, view.serial)
        ]
        self._turn += 1
        turn = self._turn % len(replies)
        replies = replies[turn:] + replies[:turn]
        plain = query.plain and query.question.islower() and query.flags in PLAIN_FLAGS
        if found.base and plain and limit < TCP_LIMIT:
            client.allowance += 1  # the next time it costs nothing, so this one is free as well
            view.keep(found.base, data[2:], [reply[2:] for reply in replies], READY_LIMIT)
        return replies[0]

    def _forward(self, client: Client, query: wire.Query, send: Send, limit: int) -> None:
        if client.view.internal:  # no way out, so there are no other names
            self.counts["internal"] += 1
            send(wire.refuse(query, wire.NXDOMAIN))
            return
        if not query.flags & wire.RD:
            self.counts["refused_kinds"] += 1
            send(wire.refuse(query, wire.REFUSED))
            return
        self.counts["forwarded"] += 1

        def done(message: bytes | None, who: str) -> None:
            if message is None:
                self.counts["servfail"] += 1
                send(wire.refuse(query, wire.SERVFAIL))
            else:
                send(wire.finish(message, query, limit))

        self.forwarder.ask(self.upstreams_of(client), query, done)


def _allow(client: Client) -> bool:
    """A bucket for each client: so that one that floods leaves time for the others."""
    if client.allowance < 1:
        now = time.monotonic()
        client.allowance = min(BURST_ALLOWANCE, (now - client.filled) * RATE)
        client.filled = now
        if client.allowance < 1:
            return False
    client.allowance -= 1
    return True
