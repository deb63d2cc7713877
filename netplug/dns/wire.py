"""DNS messages: reading what strangers send, and finishing our own replies. Pure.

Strict where a packet could mislead (RFC 1035 section 4, RFC 6891 section 6), and bounded:
no pointer is followed without an end, no count is believed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

A, NS, SOA, PTR, AAAA, SRV, OPT, ANY = 1, 2, 6, 12, 28, 33, 41, 255
IXFR, AXFR = 251, 252
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
BADVERS = 16  # RFC 6891 section 9: its upper bits travel in OPT

QR, AA, TC, RD, RA, AD, CD = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x0020, 0x0010
DO = 0x8000  # of OPT's flags
OPCODE = 0x7800
HEADER = struct.Struct("!HHHHHH")
RECORD = struct.Struct("!HHIH")  # type, class, TTL, length: behind the name of a record
PLAIN_SIZE = 512  # bytes of a UDP reply without EDNS, RFC 1035 section 2.3.4
EDNS_SIZE = 1232  # bytes that no link fragments (DNS flag day 2020)
NAME_LIMIT = 255  # bytes, RFC 1035 section 2.3.4
POINTERS = 64  # that one name may hold: more than any real one


class Malformed(ValueError):
    """Not a question that can be answered: dropped and counted."""


class Refused(ValueError):
    """A question that is answered by this code alone."""

    def __init__(self, rcode: int, query: Query) -> None:
        super().__init__(rcode)
        self.rcode, self.query = rcode, query


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `question` holds name, type and class as they were sent."""

    id: int
    flags: int
    question: bytes
    kind: int
    edns: bool = False
    size: int = PLAIN_SIZE  # bytes of reply that its sender takes over UDP
    dnssec: bool = False
    plain: bool = True  # nothing in it but the question, and an OPT without options

    @property
    def labels(self) -> tuple[bytes, ...]:
        return split_labels(self.question)

    @property
    def name(self) -> str | None:
        """In lower case, without the last dot; None for what has no place in a host name."""
        return name_text(self.question)


def split_labels(name: bytes) -> tuple[bytes, ...]:
    labels, at = [], 0
    while size := name[at]:
        labels.append(name[at + 1 : at + 1 + size])
        at += 1 + size
    return tuple(labels)


def name_text(name: bytes) -> str | None:
    labels = split_labels(name)
    if any(b"." in label or not label.isascii() for label in labels):
        return None
    return b".".join(labels).decode().lower()


def encode_name(text: str) -> bytes:
    """Raises ValueError where a label is too long for the wire."""
    labels = [label.encode() for label in text.split(".") if label]
    if any(len(label) > 63 for label in labels):
        raise ValueError(text)
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > NAME_LIMIT:
        raise ValueError(text)
    return name


def parse_query(data: bytes) -> Query:
    """Raises Malformed, or Refused for a question of a kind that nobody here answers."""
    if len(data) < HEADER.size:
        raise Malformed("short")
    number, flags, questions, answers, authorities, additions = HEADER.unpack_from(data)
    if flags & QR:  # a reply: answering it could go on for ever
        raise Malformed("a reply")
    bare = Query(number, flags, b"", 0)
    if flags & OPCODE:
        raise Refused(NOTIMP, bare)
    if questions != 1 or answers or authorities:
        raise Refused(FORMERR, bare)
    try:
        end = skip_plain_name(data, HEADER.size) + 4
        kind, group = struct.unpack_from("!HH", data, end - 4)
        extra = _parse_additions(data, end, additions)
    except (IndexError, struct.error, Malformed):
        raise Refused(FORMERR, bare) from None
    edns, size, dnssec, version, plain = extra
    query = Query(number, flags, data[HEADER.size : end], kind, edns, size, dnssec, plain)
    if version:
        raise Refused(BADVERS, query)
    if group != IN or kind in (AXFR, IXFR, OPT):
        raise Refused(REFUSED, query)
    return query


def _parse_additions(data: bytes, at: int, count: int) -> tuple[bool, int, bool, int, bool]:
    """(EDNS?, size, DNSSEC OK?, version, nothing else?) of the additional section."""
    edns, size, dnssec, version, plain = False, PLAIN_SIZE, False, 0, True
    for _ in range(count):
        start = at
        at = skip_name(data, at)
        kind, group, ttl, length = RECORD.unpack_from(data, at)
        at += RECORD.size + length
        if at > len(data):
            raise Malformed("a record ends outside")
        if kind != OPT:
            plain = False
            continue
        if edns or data[start]:  # twice, or not at the root: RFC 6891 section 6.1.1
            raise Malformed("OPT")
        edns, size, dnssec = True, max(PLAIN_SIZE, group), bool(ttl & DO)
        version, plain = ttl >> 16 & 0xFF, plain and not length
    return edns, size, dnssec, version, plain and at == len(data)


def skip_plain_name(data: bytes, at: int) -> int:
    """Where the name ends; a question's own name needs no pointers."""
    start = at
    while size := data[at]:
        if size > 63:
            raise Malformed("a label")
        at += 1 + size
    if at + 1 - start > NAME_LIMIT:
        raise Malformed("a long name")
    return at + 1


def skip_name(data: bytes, at: int) -> int:
    """Where the name ends in its own place. A pointer ends it, and is not followed."""
    start = at
    while size := data[at]:
        if size >= 0xC0:
            data[at + 1]
            return at + 2
        if size > 63 or at - start > NAME_LIMIT:
            raise Malformed("a label")
        at += 1 + size
    return at + 1


# --- replies


def refuse(query: Query, rcode: int, *, authoritative: bool = False) -> bytes:
    """A reply without records."""
    flags = QR | RA | query.flags & (OPCODE | RD | CD) | rcode & 0xF
    counts = (1 if query.question else 0, 0, 0, 1 if query.edns else 0)
    head = HEADER.pack(query.id, flags | (AA if authoritative else 0), *counts)
    return head + query.question + (render_opt(query, rcode) if query.edns else b"")


def render_opt(query: Query, rcode: int = 0) -> bytes:
    flags = (rcode >> 4) << 24 | (DO if query.dnssec else 0)
    return b"\0" + RECORD.pack(OPT, EDNS_SIZE, flags, 0)


def finish(message: bytes, query: Query, limit: int) -> bytes:
    """A whole message made into the reply to this query: its id, its spelling, its size.

    `message` is a reply to the same question, in whatever case, without OPT. Names that
    point to the question then come in the asker's case as well. What does not fit in
    `limit` bytes is left out, and TC says so (RFC 2181 section 9).
    """
    _, flags, _, answers, authorities, additions = HEADER.unpack_from(message)
    flags = flags & ~(RD | CD) | query.flags & (RD | CD)
    body = message[HEADER.size + len(query.question) :]
    opt = render_opt(query) if query.edns else b""
    if HEADER.size + len(query.question) + len(body) + len(opt) > limit:
        flags, body, answers, authorities, additions = flags | TC, b"", 0, 0, 0
    head = HEADER.pack(query.id, flags, 1, answers, authorities, additions + bool(opt))
    return head + query.question + body + opt


def udp_limit(query: Query) -> int:
    """Bytes of a reply over UDP."""
    return min(query.size, EDNS_SIZE) if query.edns else PLAIN_SIZE


# --- replies of others


@dataclass(frozen=True, slots=True)
class Reply:
    """What a walk over a reply found: `ttls` are offsets of TTL fields, `opt` is where OPT is,
    `end` is where the last record ends: some servers send more."""

    rcode: int
    flags: int
    ttl: int | None  # the least of answers; of a negative one, of its SOA (RFC 2308)
    ttls: tuple[int, ...]
    opt: tuple[int, int] | None
    end: int


def parse_reply(data: bytes, question: bytes) -> Reply:
    """Raises Malformed for what is no whole reply to this question (its case apart)."""
    try:
        _, flags, questions, *counts = HEADER.unpack_from(data)
        end = HEADER.size + len(question)
        if not flags & QR or questions != 1 or flags & OPCODE:
            raise Malformed("no reply")
        if data[HEADER.size : end].lower() != question.lower():
            raise Malformed("another question")
        return _walk(data, end, flags, counts)
    except (IndexError, struct.error):
        raise Malformed("cut off") from None


def _walk(data: bytes, at: int, flags: int, counts: list[int]) -> Reply:
    ttls: list[int] = []
    least: list[int] = []
    opt, rcode = None, flags & 0xF
    for section, count in enumerate(counts):
        for _ in range(count):
            start, at = at, skip_name(data, at)
            kind, _, ttl, length = RECORD.unpack_from(data, at)
            end = at + RECORD.size + length
            if end > len(data):
                raise Malformed("cut off")
            if kind == OPT and section == 2:
                opt, rcode = (start, end), rcode | ttl >> 24 << 4
            else:
                ttls.append(at + 4)
                ttl = 0 if ttl >> 31 else ttl  # RFC 2181 section 8
                if section == 0:
                    least.append(ttl)
                elif section == 1 and kind == SOA and not counts[0] and length >= 4:
                    least.append(min(ttl, struct.unpack_from("!I", data, end - 4)[0]))
            at = end
    return Reply(rcode, flags, min(least) if least else None, tuple(ttls), opt, at)


def age(message: bytes, ttls: tuple[int, ...], seconds: int) -> bytes:
    """The message with every TTL less by so many seconds, and at least 0."""
    if not seconds:
        return message
    aged = bytearray(message)
    for at in ttls:
        left = max(0, int.from_bytes(aged[at : at + 4], "big") - seconds)
        aged[at : at + 4] = left.to_bytes(4, "big")
    return bytes(aged)
