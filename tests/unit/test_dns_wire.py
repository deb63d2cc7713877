"""DNS messages: what is refused, what is dropped, and how a reply is finished."""

from __future__ import annotations

import pytest
from dnslib import EDNS0, QTYPE, RR, SOA, A, DNSRecord, EDNSOption
from hypothesis import given
from hypothesis import strategies as st

from netplug.dns import wire
from netplug.dns.cache import Cache, lifetime
from netplug.dns.upstream import strip_opt


def asked(name: str = "web", kind: str = "A", **edns: int) -> bytes:
    record = DNSRecord.question(name, kind)
    record.header.id = 0x1234
    if edns:
        record.add_ar(EDNS0(**edns))
    return bytes(record.pack())


def replied(question: bytes, count: int = 1, *, opt: bool = False) -> bytes:
    reply = DNSRecord.parse(question).reply()
    for number in range(count):
        reply.add_answer(RR(reply.q.qname, QTYPE.A, ttl=60, rdata=A(f"10.1.{number // 250}.9")))
    if opt:
        reply.add_ar(EDNS0(udp_len=4096))
    return bytes(reply.pack())


def test_a_plain_question() -> None:
    query = wire.parse_query(asked("Web.LAN"))
    assert (query.id, query.name, query.kind, query.size) == (0x1234, "web.lan", wire.A, 512)
    assert query.plain and not query.edns


def test_edns_says_size_and_dnssec() -> None:
    query = wire.parse_query(asked(udp_len=4096, flags="do"))  # type: ignore[arg-type]
    assert (query.edns, query.size, query.dnssec, query.plain) == (True, 4096, True, True)
    assert wire.parse_query(asked(udp_len=100)).size == 512  # RFC 6891 section 6.2.3
    record = DNSRecord.question("web")
    record.add_ar(EDNS0(udp_len=1232, opts=[EDNSOption(10, b"cookie00")]))
    assert not wire.parse_query(bytes(record.pack())).plain


@pytest.mark.parametrize("data", [b"", b"\0" * 11, replied(asked())], ids=["", "short", "reply"])
def test_what_is_no_question_is_dropped(data: bytes) -> None:
    with pytest.raises(wire.Malformed):
        wire.parse_query(data)


OPT = b"\0" + wire.RECORD.pack(wire.OPT, 1232, 0, 0)


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (b"\0\1\x28\0" + asked()[4:], wire.NOTIMP),  # an update
        (asked()[:4] + b"\0\2" + asked()[6:], wire.FORMERR),  # two questions
        (asked()[:4] + b"\0\0" + asked()[6:], wire.FORMERR),
        (asked()[:-3], wire.FORMERR),
        (asked()[:12] + b"\xc0\x0c\0\1\0\1", wire.FORMERR),  # a name that points to itself
        (asked()[:11] + b"\2" + asked()[12:] + OPT + OPT, wire.FORMERR),
        (asked(udp_len=1232, version=1), wire.BADVERS),
        (asked("web", "AXFR"), wire.REFUSED),
        (asked()[:-2] + b"\0\3", wire.REFUSED),  # class CHAOS
    ],
)
def test_what_is_refused(data: bytes, rcode: int) -> None:
    with pytest.raises(wire.Refused) as caught:
        wire.parse_query(data)
    assert caught.value.rcode == rcode
    reply = DNSRecord.parse(wire.refuse(caught.value.query, rcode))
    assert reply.header.qr and reply.header.rcode == rcode & 0xF
    if rcode == wire.BADVERS:
        assert reply.ar[0].ttl >> 24 == 1


def test_a_reply_takes_the_askers_id_and_spelling() -> None:
    message = replied(asked("web.lan"))
    query = wire.parse_query(b"\xab\xcd" + asked("wEb.LaN", udp_len=1232)[2:])
    reply = DNSRecord.parse(wire.finish(message, query, 1232))
    assert reply.header.id == 0xABCD
    assert str(reply.q.qname) == "wEb.LaN." and str(reply.rr[0].rname) == "wEb.LaN."
    assert [record.rtype for record in reply.ar] == [wire.OPT]


@pytest.mark.parametrize(("size", "limit"), [(0, 512), (600, 600), (4096, 1232)])
def test_what_does_not_fit_is_cut_off(size: int, limit: int) -> None:
    question = asked(udp_len=size) if size else asked()
    query = wire.parse_query(question)
    assert wire.udp_limit(query) == limit
    reply = DNSRecord.parse(wire.finish(replied(asked(), 100), query, limit))
    assert reply.header.tc and not reply.rr and len(reply.ar) == bool(size)
    whole = wire.finish(replied(asked(), 20), query, limit)
    assert bool(DNSRecord.parse(whole).header.tc) is (len(replied(asked(), 20)) > limit)


def test_a_reply_is_checked() -> None:
    question = asked()[12:]
    reply = wire.parse_reply(replied(asked("WEB"), 2, opt=True), question)
    assert (reply.rcode, reply.ttl, len(reply.ttls)) == (0, 60, 2) and reply.opt
    for false in (asked(), replied(asked("other")), replied(asked())[:-1], b"", b"\0" * 40):
        with pytest.raises(wire.Malformed):
            wire.parse_reply(false, question)


def test_ttls_count_down() -> None:
    message = replied(asked(), 2)
    reply = wire.parse_reply(message, asked()[12:])
    cache = Cache()
    key = (asked()[12:], False, False)
    cache.put(key, message, reply, 100.0)
    assert [r.ttl for r in DNSRecord.parse(cache.get(key, 110.5) or b"").rr] == [50, 50]
    assert cache.get(key, 160.0) is None and not len(cache) and not cache.bytes


def negative(minimum: int, ttl: int = 60) -> wire.Reply:
    reply = DNSRecord.parse(asked()).reply()
    reply.header.rcode = wire.NXDOMAIN
    reply.add_auth(RR("lan", QTYPE.SOA, ttl=ttl, rdata=SOA("a", "b", (1, 2, 3, 4, minimum))))
    return wire.parse_reply(bytes(reply.pack()), asked()[12:])


def test_how_long_a_reply_is_kept() -> None:
    assert lifetime(negative(10)) == 10 and lifetime(negative(100)) == 60  # RFC 2308
    assert lifetime(negative(9999, 9999)) == 300
    assert lifetime(wire.Reply(wire.NOERROR, 0, 99_999, (), None, 12)) == 3600
    assert lifetime(wire.Reply(wire.NXDOMAIN, 0, None, (), None, 12)) == 0
    assert lifetime(wire.Reply(wire.SERVFAIL, 0, None, (), None, 12)) == 1
    assert lifetime(wire.Reply(wire.REFUSED, 0, None, (), None, 12)) == 0


def test_the_cache_is_bounded() -> None:
    cache = Cache(entries=10, size=400)
    reply = wire.Reply(wire.NOERROR, 0, 60, (), None, 12)
    for number in range(50):
        cache.put((bytes([number]), False, False), b"x" * 45, reply, 0.0)
        assert len(cache) <= 10 and cache.bytes <= 400
    assert cache.get((b"\x31", False, False), 1.0) and not cache.get((b"\0", False, False), 1.0)


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    refused: wire.Refused | None = None
    try:
        query = wire.parse_query(data)
    except wire.Malformed:
        return
    except wire.Refused as error:
        refused, query = error, error.query
    assert query.question in data
    if refused:
        assert len(wire.refuse(query, refused.rcode)) <= len(data) + len(OPT)


@given(st.data())
def test_any_damage(data: st.DataObject) -> None:
    """A good message with bytes changed, cut or doubled is read, refused or dropped."""
    message = bytearray(data.draw(st.sampled_from([asked(udp_len=1232), replied(asked(), 3)])))
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(message[: data.draw(st.integers(0, len(message)))])
    try:
        wire.parse_query(damaged)
    except (wire.Malformed, wire.Refused):
        pass
    try:
        reply = wire.parse_reply(damaged, asked()[12:])
        assert len(wire.age(damaged, reply.ttls, 7)) == len(damaged)
    except wire.Malformed:
        pass


def test_what_is_behind_the_last_record_is_not_passed_on() -> None:
    """Found by fuzzing: our own OPT came behind it, where nobody could read it."""
    question = asked()[12:]
    for opt in (False, True):
        message = replied(asked(), 2, opt=opt) + b"more"
        bare = strip_opt(message, wire.parse_reply(message, question))
        assert bare == replied(asked(), 2)
        told = wire.finish(bare, wire.parse_query(asked(udp_len=1232)), 1232)
        assert len(DNSRecord.parse(told).ar) == 1
