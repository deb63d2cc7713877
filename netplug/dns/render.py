"""Answers -> DNS messages, by dnslib: compression, and each kind of record as it is on the wire."""

from __future__ import annotations

from ipaddress import IPv4Address

from dnslib import AAAA, NS, PTR, RD, RR, SOA, SRV, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from netplug.dns import wire
from netplug.dns.names import Answer, Data

TURNS = 8  # at most so many orders of one answer are kept ready
REFRESH, RETRY, EXPIRE = 3600, 600, 86400  # seconds: for secondaries, of which there are none


def render_answer(answer: Answer, query: wire.Query, serial: int) -> list[bytes]:
    """The reply to the query's name in lower case, without EDNS, in every order of its records.

    One alias of several containers then leads to each of them in turn.
    """
    turns = min(len(answer.records), TURNS) or 1
    return [_render(answer, query, serial, turn) for turn in range(turns)]


def _render(answer: Answer, query: wire.Query, serial: int, turn: int) -> bytes:
    name = DNSLabel([label.lower() for label in query.labels])
    header = DNSHeader(id=0, qr=1, aa=1, ra=1, rcode=answer.rcode)
    reply = DNSRecord(header, q=DNSQuestion(name, query.kind))
    for kind, data in answer.records[turn:] + answer.records[:turn]:
        reply.add_answer(RR(name, kind, ttl=answer.ttl, rdata=_rdata(kind, data, answer, serial)))
    if not answer.records:
        soa = _soa(answer.zone, answer.ttl, serial)
        reply.add_auth(RR(_label(answer.zone), wire.SOA, ttl=answer.ttl, rdata=soa))
    for owner, address in answer.additions:
        kind = wire.A if isinstance(address, IPv4Address) else wire.AAAA
        rdata = _rdata(kind, address, answer, serial)
        reply.add_ar(RR(_label(owner), kind, ttl=answer.ttl, rdata=rdata))
    packed: bytes = reply.pack()
    return packed


def _rdata(kind: int, data: Data, answer: Answer, serial: int) -> RD:
    if isinstance(data, tuple):
        return SRV(0, 0, data[0], _label(data[1]))
    if isinstance(data, str):
        if kind == wire.SOA:
            return _soa(data, answer.ttl, serial)
        return NS(_label(data)) if kind == wire.NS else PTR(_label(data))
    return A(str(data)) if kind == wire.A else AAAA(str(data))


def _soa(zone: str, ttl: int, serial: int) -> SOA:
    times = (serial, REFRESH, RETRY, EXPIRE, ttl)
    return SOA(_label("host.containers.internal"), _label(f"hostmaster.{zone}"), times)


def _label(name: str) -> DNSLabel:
    return DNSLabel([label.encode() for label in name.split(".") if label])
