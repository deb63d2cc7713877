"""Whatever strangers and upstream servers send: no crash, no second reply, no wrong answer."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from dns_fuzzing import (
    ADDRESSES,
    Answering,
    demand_reply,
    mutate,
    render_question,
    render_reply,
)
from dnslib import EDNS0, QTYPE, RR, A, DNSBuffer, DNSQuestion, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from netplug.dns import wire
from netplug.dns.listening import Place
from netplug.dns.streams import Stream, Streams
from netplug.dns.upstream import strip_opt
from netplug.kernel import namespaces
from netplug.model import IPAddress

FEW, MANY = 5_000, 1_000_000
labels = st.binary(min_size=1, max_size=63).filter(
    lambda label: b"." not in label and label.isascii()  # dnslib reads no others
)
own_names = st.sampled_from(
    [f"{name}{suffix}" for name in ADDRESSES for suffix in ("", ".internal")]
)
spelling = st.randoms(use_true_random=False)


def spell(name: str, choice: random.Random) -> str:
    return "".join(choice.choice((letter.upper(), letter)) for letter in name)


# --- questions


def fuzz_questions(count: int, seed: int) -> Answering:
    """Questions, most of them broken, over UDP and TCP; every word of reply is judged."""
    choice, answering = random.Random(seed), Answering()
    seeds = [render_question(choice) for _ in range(200)]
    dropped = 0
    for number in range(count):
        packet = choice.choice(seeds)
        if choice.random() < 0.9:
            packet = mutate(packet, choice, seeds)
        reply = answering.ask(packet, over_tcp=choice.random() < 0.3)
        assert reply is not None, packet  # there is no upstream server to wait for
        dropped += not reply
        if reply and (count <= FEW or number % 20 == 0):  # dnslib is slow
            demand_reply(packet, reply)
    assert answering.counts["malformed"] == dropped
    return answering


def test_broken_questions() -> None:
    counts = fuzz_questions(FEW, seed=1).counts
    for kind in ("malformed", "refused_kinds", "own", "nxdomain", "servfail"):
        assert counts[kind] > FEW / 100, counts


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_broken_questions() -> None:
    fuzz_questions(MANY, seed=2)


@given(st.binary(max_size=600), st.booleans())
def test_any_bytes(packet: bytes, over_tcp: bool) -> None:
    reply = Answering().ask(packet, over_tcp=over_tcp)
    assert reply is not None
    if reply:
        demand_reply(packet, reply)


@given(
    name=st.lists(labels, max_size=20).filter(lambda name: sum(map(len, name)) + len(name) < 255),
    kind=st.integers(1, 65535).filter(lambda kind: kind not in (wire.OPT, wire.AXFR, wire.IXFR)),
    number=st.integers(0, 65535),
    size=st.none() | st.integers(0, 65535),
)
def test_what_dnslib_reads_is_what_we_read(
    name: list[bytes], kind: int, number: int, size: int | None
) -> None:
    record = DNSRecord(q=DNSQuestion(name, kind))
    record.header.id = number
    if size is not None:
        record.add_ar(EDNS0(udp_len=size, flags="do"))
    packet = bytes(record.pack())
    theirs, ours = DNSRecord.parse(packet), wire.parse_query(packet)
    assert (ours.id, ours.kind) == (theirs.header.id, theirs.q.qtype)
    assert ours.labels == tuple(theirs.q.qname.label)
    assert (ours.edns, ours.dnssec) == (size is not None,) * 2
    assert ours.size == max(512, size or 0) and ours.plain


@given(st.binary(max_size=300))
def test_what_we_read_dnslib_reads_too(rest: bytes) -> None:
    packet = b"\0\1\1\0\0\1\0\0\0\0\0\0" + rest
    try:
        ours = wire.parse_query(packet)
    except (wire.Malformed, wire.Refused):
        return
    if not ours.question[:-4].isascii():
        return
    buffer = DNSBuffer(packet, 12)
    theirs = DNSQuestion.parse(buffer)
    assert ours.labels == tuple(theirs.qname.label) and ours.kind == theirs.qtype
    assert buffer.offset == 12 + len(ours.question)


@given(own_names, st.sampled_from(["A", "AAAA"]), spelling, st.none() | st.integers(512, 4096))
def test_own_names_in_any_spelling(
    name: str, kind: str, choice: random.Random, size: int | None
) -> None:
    """The first answer is looked up, the second is ready: both have all addresses."""
    record = DNSRecord.question(spell(name, choice), kind)
    if size is not None:
        record.add_ar(EDNS0(udp_len=size))
    packet, answering = bytes(record.pack()), Answering()
    for _ in range(2):
        reply = answering.ask(packet)
        assert reply
        demand_reply(packet, reply)
        parsed = DNSRecord.parse(reply)
        expected = ADDRESSES[name.partition(".")[0]]
        if kind == "AAAA":
            expected = [f"fd00:1::{address[-1]}" for address in expected]
        assert sorted(str(record.rdata) for record in parsed.rr) == expected


def test_datagrams_get_the_same_answers_in_bursts() -> None:
    """The way that is optimized beside the plain one, at the same moments."""
    choice, plain, fast = random.Random(3), Answering(), Answering()
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        server.bind(("127.0.0.1", 0))
        client.connect(server.getsockname())
        client.setblocking(False)
        place = Place((0, 0), "", address_of(server), server, server, only=fast.client)
        for _ in range(60):
            packets = [render_question(choice) for _ in range(choice.randrange(1, 90))]
            packets = [
                mutate(packet, choice) if choice.random() < 0.2 else packet for packet in packets
            ]
            packets = [number.to_bytes(2, "big") + p[2:] for number, p in enumerate(packets)]
            for packet in packets:
                client.send(packet)
            expected = {}
            for packet in packets:
                fast.client.allowance = 1000.0
                if reply := plain.ask(packet):
                    expected[reply[:2]] = parts(reply)
            heard = {}
            for _ in range(2):  # a burst is 64
                fast.answers.drain(place)
            try:
                while True:
                    reply = client.recv(4096)
                    assert reply[:2] not in heard
                    heard[reply[:2]] = parts(reply)
            except BlockingIOError:
                pass
            assert heard == expected
    assert fast.counts["ready"] > 100
    assert fast.counts["malformed"] == plain.counts["malformed"] > 50


def address_of(own: socket.socket) -> IPAddress:
    return ip_address(own.getsockname()[0])


def parts(reply: bytes) -> tuple[bytes, list[str]]:
    """All but the order of records, which turns."""
    if len(reply) > 12 and not reply[12 : wire.skip_plain_name(reply, 12)].isascii():
        return reply[:12], [reply[12:].hex()]  # dnslib cannot read it; nothing is ours
    parsed = DNSRecord.parse(reply)
    return reply[:12], sorted(map(str, (*parsed.rr, *parsed.auth, *parsed.ar)))


# --- TCP


def fuzz_stream(choice: random.Random) -> None:
    """Frames in pieces of any size: as many replies as whole questions, in their order."""
    answering = Answering()
    streams = Streams(answering.loop, answering.answers.answer_stream, answering.counts)
    near, far = socket.socketpair()
    near.setblocking(False)
    far.setblocking(False)
    answering.client.allowance = 1000.0
    stream = Stream(streams, near, answering.client)
    streams.open.add(stream)
    packets = [render_question(choice) for _ in range(choice.randrange(1, 8))]
    broken = choice.random() < 0.5
    if broken:
        packets.insert(choice.randrange(len(packets)), mutate(choice.choice(packets), choice)[:9])
    data = b"".join(len(packet).to_bytes(2, "big") + packet for packet in packets)
    said = b""
    while data and not stream.closed:
        size = choice.choice((1, 2, 3, 17, 600))
        far.send(data[:size])
        data = data[size:]
        answering.loop.turn()
    try:
        while part := far.recv(1 << 16):
            said += part
    except (BlockingIOError, ConnectionResetError):
        pass
    replies = []
    while said:
        size = int.from_bytes(said[:2], "big")
        assert size and len(said) >= 2 + size
        replies.append(said[2 : 2 + size])
        said = said[2 + size :]
    whole = packets[: next((n for n, p in enumerate(packets) if len(p) < 12), len(packets))]
    assert len(replies) == len(whole)
    for packet, reply in zip(whole, replies, strict=True):
        demand_reply(packet, reply)
    assert stream.closed is broken
    stream.close()
    far.close()
    assert not streams.open


def test_frames_over_tcp() -> None:
    choice = random.Random(4)
    for _ in range(150):
        fuzz_stream(choice)


# --- upstream servers


def fuzz_replies(count: int, seed: int) -> None:
    """Replies of an upstream server, broken: what is taken has our question and can be told."""
    choice = random.Random(seed)
    seeds = [render_reply(render_question(choice), choice.randrange(6)) for _ in range(100)]
    for number in range(count):
        packet = choice.choice(seeds)
        question = packet[12 : wire.skip_plain_name(packet, 12) + 4]
        broken = mutate(packet, choice, seeds) if choice.random() < 0.95 else packet
        try:
            reply = wire.parse_reply(broken, question)
            assert broken[12 : 12 + len(question)].lower() == question.lower()
            bare = strip_opt(broken, reply)
        except wire.Malformed:
            continue
        again = wire.parse_reply(bare, question)
        aged = wire.age(bare, again.ttls, 30)
        query = wire.Query(7, wire.RD, question, 1, edns=number % 2 > 0, size=1232)
        told = wire.finish(aged, query, wire.udp_limit(query))
        assert len(told) <= wire.udp_limit(query) or len(question) > 200
        wire.parse_reply(told, question)


def test_broken_replies() -> None:
    fuzz_replies(FEW, seed=5)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_million_broken_replies() -> None:
    fuzz_replies(MANY, seed=6)


class Poisoner:
    """An upstream server whose port others write from as well."""

    def __init__(self) -> None:
        self.server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for one in (self.server, self.other):
            one.bind(("127.0.0.1", 0))
            one.settimeout(5)
        address, port = self.server.getsockname()
        self.answering = Answering((address, port))
        self.heard: list[bytes | None] = []

    def ask(self, name: str) -> tuple[bytes, tuple[str, int]]:
        """The question as it reached the server."""
        query = wire.parse_query(bytes(DNSRecord.question(name).pack()))
        answering = self.answering
        self.heard = []
        answering.answers.forwarder.ask(
            answering.upstreams, query, lambda message, who: self.heard.append(message)
        )
        if self.heard:
            return b"", ("", 0)
        return self.server.recvfrom(4096)

    def close(self) -> None:
        self.server.close()
        self.other.close()


@pytest.fixture
def poisoner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Poisoner]:
    # The tests' own namespace is where the server is.
    monkeypatch.setattr(namespaces, "in_namespace", lambda fd, work: work())
    made = Poisoner()
    yield made
    made.close()


def test_false_replies_are_not_believed(poisoner: Poisoner) -> None:
    """Another id, another question, another address, another port: none is told or kept."""
    choice = random.Random(7)
    for number in range(60):
        name = f"n{number}.example.org"
        asked, peer = poisoner.ask(name)
        true = render_reply(asked)
        false: list[bytes] = []
        for _ in range(20):
            wrong_id = (int.from_bytes(true[:2], "big") ^ choice.randrange(1, 65536)).to_bytes(
                2, "big"
            )
            false.append(wrong_id + true[2:])
        other = render_reply(bytes(DNSRecord.question("victim.example.org").pack()))
        false += [true[:2] + other[2:], asked, true[: choice.randrange(len(true))], b"", true[:12]]
        for packet in false:
            poisoner.server.sendto(packet, peer)
        for packet in (true, *(mutate(true, choice) for _ in range(5))):
            poisoner.other.sendto(packet, peer)  # not from where we asked
        poisoner.answering.loop.turn()
        for _ in range(len(false) + 8):
            poisoner.answering.loop.turn()
        assert not poisoner.heard and not len(poisoner.answering.upstreams.cache) - number
        poisoner.server.sendto(true, peer)
        while not poisoner.heard:
            poisoner.answering.loop.turn(1.0)
        assert [str(r.rdata) for r in DNSRecord.parse(poisoner.heard[0]).rr] == [
            "192.0.2.0",
            "192.0.2.1",
        ]
    counts = poisoner.answering.answers.forwarder.counts
    assert counts["false_reply"] >= 60 * 20


def test_what_nobody_asked_is_not_kept(poisoner: Poisoner) -> None:
    """Records of other names in a true reply (bailiwick): the cache knows questions alone."""
    asked, peer = poisoner.ask("bad.example.org")
    reply = DNSRecord.parse(render_reply(asked))
    for section in (reply.add_answer, reply.add_auth, reply.add_ar):
        section(RR("victim.example.net", QTYPE.A, ttl=3600, rdata=A("203.0.113.66")))
    poisoner.server.sendto(bytes(reply.pack()), peer)
    while not poisoner.heard:
        poisoner.answering.loop.turn(1.0)
    asked, peer = poisoner.ask("victim.example.net")  # it is asked for, not known
    poisoner.server.sendto(render_reply(asked), peer)
    while not poisoner.heard:
        poisoner.answering.loop.turn(1.0)
    assert b"\xcb\x00\x71\x42" not in (poisoner.heard[0] or b"")
    assert poisoner.ask("VICTIM.example.net") == (b"", ("", 0))  # now it is


# --- guided by coverage

GUIDED = Path(__file__).parents[1] / "dns_atheris.py"


@pytest.mark.long
def test_guided_by_coverage() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed (pip install atheris)")
    done = subprocess.run(
        [sys.executable, str(GUIDED), "-runs=1000000", "-max_total_time=240", "-max_len=600"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
