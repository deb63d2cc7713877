"""Packets of every bad kind, and a name server without a network that they are given to."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

from dnslib import EDNS0, QTYPE, RR, A, DNSHeader, DNSQuestion, DNSRecord, EDNSOption

from netplug.dns import wire
from netplug.dns.answering import Answers
from netplug.dns.loop import Loop
from netplug.dns.names import Member, Service
from netplug.dns.records import Attached
from netplug.dns.registry import Client, Registry
from netplug.dns.upstream import Forwarder, Upstreams

ADDRESSES = {"web": ["10.1.0.2"], "api": ["10.1.0.3"], "www": ["10.1.0.2", "10.1.0.3"]}
NAMES = (
    *("web", "WWW", "api.internal", "web.lan.internal", "nobody.internal", "lan.internal"),
    *("2.0.1.10.in-addr.arpa", "_http._tcp.web", "host.containers.internal", "example.org"),
    *(".", "x" * 63 + ".lan.internal", ".".join(["ab"] * 80)),
)
KINDS = (1, 2, 5, 6, 12, 15, 16, 28, 33, 41, 64, 251, 252, 255, 65535)
BYTES = (0, 1, 12, 41, 63, 64, 127, 128, 191, 192, 255)


class HandLoop(Loop):
    """Turned by hand: what is ready now is done, and nobody waits."""

    def turn(self, seconds: float = 0.0) -> None:
        for fd, _ in self._epoll.poll(seconds):
            if call := self._calls.get(fd):
                call()


def member(name: str, number: int) -> Member:
    return Member(
        host="h",
        network="lan",
        owner=f"lan/{name}/eth0",
        group=f"h/{number}",
        names=(name, "www"),
        addresses=(ip_address(f"10.1.0.{number}"), ip_address(f"fd00:1::{number}")),
        services=(Service("http", "tcp", 80),),
        subnets=(ip_network("10.1.0.0/24"), ip_network("fd00:1::/64")),
        gateways=(ip_address("10.1.0.1"),),
    )


class Answering:
    """Two containers of one network; `ask` is what a client of the first one hears."""

    def __init__(self, *servers: tuple[str, int]) -> None:
        self.registry = Registry()
        for name, number in (("web", 2), ("api", 3)):
            self.registry.put(Attached(member(name, number), ("ready", 1.0), 1, "", (), (), ()))
        self.client: Client = self.registry.clients["h", "lan/web/eth0"]
        self.counts: Counter[str] = Counter()
        self.loop = HandLoop()
        self.upstreams = Upstreams(-1, servers)
        self.answers = Answers(Forwarder(self.loop), self.counts, lambda client: self.upstreams)

    def ask(self, packet: bytes, *, over_tcp: bool = False) -> bytes | None:
        """The reply; None for no word, b"" for what is dropped. Fails for a second one."""
        heard: list[bytes] = []
        self.client.allowance = 10.0  # the rate is not what is tested here
        self.answers.answer(packet, self.client, heard.append, over_tcp=over_tcp)
        assert len(heard) < 2, heard
        return heard[0] if heard else None


def render_question(choice: random.Random) -> bytes:
    """A question as clients send it, or nearly."""
    name = choice.choice(NAMES)
    if choice.random() < 0.4:
        name = "".join(choice.choice((letter.upper(), letter)) for letter in name)
    record = DNSRecord(
        DNSHeader(id=choice.getrandbits(16), bitmap=choice.choice((0x100, 0x120, 0, 0x110))),
        q=DNSQuestion(name, choice.choice((wire.A, choice.choice(KINDS)))),
    )
    if choice.random() < 0.4:
        options = [EDNSOption(choice.randrange(20), bytes(choice.randrange(9)))]
        flags = choice.choice(("", "do"))
        record.add_ar(
            EDNS0(
                udp_len=choice.choice((0, 512, 1232, 4096, 65535)),
                flags=flags,
                version=choice.choice((0, 0, 0, 1)),
                opts=options if choice.random() < 0.3 else None,
            )
        )
    return bytes(record.pack())


def render_reply(question: bytes, records: int = 2, *, opt: bool = True) -> bytes:
    """An upstream server's reply."""
    reply = DNSRecord.parse(question).reply(aa=0)
    for number in range(records):
        reply.add_answer(RR(reply.q.qname, QTYPE.A, ttl=60, rdata=A(f"192.0.2.{number}")))
    if opt:
        reply.add_ar(EDNS0(udp_len=1232))
    return bytes(reply.pack())


def mutate(data: bytes, choice: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Changed at a few places: bytes that mean something, lengths, cuts, repetitions, splices."""
    text = bytearray(data)
    for _ in range(choice.randrange(1, 5)):
        at = choice.randrange(len(text)) if text else 0
        match choice.randrange(8):
            case 0 | 1 if text:
                text[at] = choice.choice(BYTES)
            case 2 if text:
                text[at] ^= 1 << choice.randrange(8)
            case 3:
                del text[at:]
            case 4:
                text[at:at] = text[at : at + choice.randrange(1, 40)]
            case 5:
                text += choice.randbytes(choice.randrange(30))
            case 6 if len(text) > 12:
                struct.pack_into("!H", text, choice.choice((2, 4, 6, 8, 10)), choice.randrange(4))
            case 7 if others:
                other = choice.choice(others)
                text = text[:at] + other[choice.randrange(len(other)) :]
            case _:
                del text[at : at + choice.randrange(1, 9)]
    return bytes(text)


def demand_reply(packet: bytes, reply: bytes) -> None:
    """It is to this packet: the id, a reply, the question as it was sent; whole by dnslib.

    dnslib reads names of UTF-8 alone; DNS allows every byte (RFC 2181 section 11).
    """
    assert reply[:2] == packet[:2] and reply[2] & 0x80 and len(reply) <= 65535
    if reply[3] & 0xF not in (wire.FORMERR, wire.NOTIMP):
        assert reply[4:6] == b"\0\1"
        end = wire.skip_plain_name(reply, wire.HEADER.size) + 4
        assert reply[wire.HEADER.size : end] == packet[wire.HEADER.size : end]
        wire.parse_reply(reply, reply[wire.HEADER.size : end])
        if not reply[wire.HEADER.size : end - 4].isascii():
            return
    DNSRecord.parse(reply)
