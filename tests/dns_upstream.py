"""Name servers for tests, with every bad habit: silent, slow, lying, cut off, refusing."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dnslib import QTYPE, RCODE, RR, SOA, A, DNSRecord

if TYPE_CHECKING:
    from conftest import Host

Behave = Callable[[DNSRecord, bool], list[bytes]]  # the question, over TCP? -> what is sent


def answer(asked: DNSRecord, address: str = "192.0.2.7", ttl: int = 60) -> bytes:
    reply = asked.reply(aa=0)
    reply.add_answer(RR(asked.q.qname, QTYPE.A, ttl=ttl, rdata=A(address)))
    return bytes(reply.pack())


def honest(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    return [answer(asked)]


def silent(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    return []


def failing(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    reply = asked.reply()
    reply.header.rcode = RCODE.SERVFAIL
    return [bytes(reply.pack())]


def nxdomain(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    reply = asked.reply()
    reply.header.rcode = RCODE.NXDOMAIN
    reply.add_auth(
        RR(
            "example.",
            QTYPE.SOA,
            ttl=60,
            rdata=SOA("ns.example.", "h.example.", (1, 60, 60, 60, 60)),
        )
    )
    return [bytes(reply.pack())]


def cut_off(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    if over_tcp:
        return [answer(asked, "192.0.2.8")]
    reply = asked.reply()
    reply.header.tc = 1
    return [bytes(reply.pack())]


def lying(asked: DNSRecord, over_tcp: bool) -> list[bytes]:
    """False replies before the true one: another id, another question, no reply at all."""
    false = answer(asked, "203.0.113.66")
    other = DNSRecord.parse(false)
    other.q.qname = "evil.example."
    wrong_id = bytes([false[0] ^ 0xFF]) + false[1:]
    question = false[:2] + bytes([false[2] & 0x7F]) + false[3:]
    return [wrong_id, bytes(other.pack()), question, b"", false[:9], answer(asked)]


@dataclass(slots=True)
class Upstream:
    """What a server was asked: names, and the source ports and ids of the questions."""

    names: list[str] = field(default_factory=list)
    ports: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    over_tcp: int = 0

    def note(self, asked: DNSRecord, port: int) -> None:
        self.names.append(str(asked.q.qname).rstrip("."))
        self.ports.append(port)
        self.ids.append(asked.header.id)


@contextmanager
def upstream(host: Host, address: str, behave: Behave = honest) -> Iterator[Upstream]:
    """A server on port 53 of the address in the host's namespace while it lasts."""
    seen, end = Upstream(), threading.Event()
    udp = host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    tcp = host.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for one in (udp, tcp):
        one.bind((address, 53))
    tcp.listen()

    def serve() -> None:
        while not end.is_set():
            ready, _, _ = select.select([udp, tcp], [], [], 0.05)
            if udp in ready:
                data, peer = udp.recvfrom(4096)
                asked = DNSRecord.parse(data)
                seen.note(asked, peer[1])
                for reply in behave(asked, False):
                    udp.sendto(reply, peer)
            if tcp in ready:
                connection, peer = tcp.accept()
                with connection:
                    data = connection.recv(4096)
                    asked = DNSRecord.parse(data[2:])
                    seen.note(asked, peer[1])
                    seen.over_tcp += 1
                    for reply in behave(asked, True):
                        connection.sendall(len(reply).to_bytes(2, "big") + reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield seen
    finally:
        end.set()
        thread.join()
        udp.close()
        tcp.close()
