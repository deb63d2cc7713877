"""nf_tables objects as messages, and what the kernel answers about them.

Tables, chains, sets, elements, rules, and the expressions that rules are made of
(include/uapi/linux/netfilter/nf_tables.h). No meaning of netplug's own is in here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from netplug.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    each_attribute,
    nest,
    text,
    unpack_text,
)
from netplug.kernel.nfnetlink import (
    SUBSYSTEM_NFTABLES,
    Message,
    Reply,
    number,
    pack_comment,
    unpack_comment,
)

NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, GETCHAIN = 0, 1, 2, 3, 4
NEWRULE, GETRULE, DELRULE, NEWSET, GETSET = 6, 7, 8, 9, 10
NEWSETELEM, GETSETELEM, DELSETELEM = 12, 13, 14

INET, IPV4, BRIDGE, IPV6 = 1, 2, 7, 10  # NFPROTO_*
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = 0, 1, 2, 3, 4
DROP, ACCEPT = 0, 1

SET_INTERVAL, SET_MAP, SET_CONCAT = 0x4, 0x8, 0x80
ELEM_INTERVAL_END = 0x1
ELEMENTS_PER_MESSAGE = 256  # the list is one attribute, and an attribute ends at 64 KiB
REGISTER = 1  # the first of 16 bytes; 8 and up name the same memory by 4 bytes
WORDS = 8


@dataclass(frozen=True, slots=True)
class SetShape:
    """Key and data of a set, field by field: (data type number, bytes) as nft numbers them."""

    name: str
    key: tuple[tuple[int, int], ...]
    data: tuple[tuple[int, int], ...] = ()
    interval: bool = False
    host_order: bool = False  # interface names: nft lists them wrong without this word


@dataclass(frozen=True, slots=True)
class RawElement:
    """One element as bytes, fields padded to 4. `end` is the upper bound where keys are ranges."""

    key: bytes
    data: bytes = b""
    end: bytes = b""
    comment: str = ""
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain as the kernel tells it; only base chains have a hook and a policy."""

    family: int
    table: str
    name: str
    kind: str = ""
    hook: int | None = None
    priority: int = 0
    policy: int | None = None


@dataclass(frozen=True, slots=True)
class RuleFact:
    chain: str
    handle: int
    comment: str
    userdata: bytes


def _message(kind: int, family: int, body: bytes, flags: int = 0) -> Message:
    return Message(SUBSYSTEM_NFTABLES << 8 | kind, flags, family, body)


# -- tables, chains, sets ------------------------------------------------------------------


def new_table(family: int, name: str) -> Message:
    return _message(NEWTABLE, family, text(1, name) + number(2, 0), NLM_F_CREATE)


def get_table(family: int, name: str) -> Message:
    return _message(GETTABLE, family, text(1, name))


def delete_table(family: int, name: str) -> Message:
    return _message(DELTABLE, family, text(1, name))


def new_chain(family: int, table: str, chain: Chain) -> Message:
    """A base chain with policy accept."""
    body = text(1, table) + text(3, chain.name) + text(7, chain.kind) + number(5, ACCEPT)
    body += nest(4, number(1, chain.hook or 0), number(2, chain.priority))
    return _message(NEWCHAIN, family, body, NLM_F_CREATE)


def get_chain(family: int, table: str, chain: str) -> Message:
    return _message(GETCHAIN, family, text(1, table) + text(3, chain))


def all_chains(family: int = 0) -> Message:
    return _message(GETCHAIN, family, b"")


def read_chain(reply: Reply) -> Chain:
    found = attributes(reply.body)
    hook = attributes(found.get(4, b""))
    return Chain(
        family=reply.family,
        table=unpack_text(found[1]),
        name=unpack_text(found[3]),
        kind=unpack_text(found.get(7, b"")),
        hook=int.from_bytes(hook[1], "big") if 1 in hook else None,
        priority=int.from_bytes(hook.get(2, b"\0"), "big", signed=True),
        policy=int.from_bytes(found[5], "big") if 5 in found else None,
    )


def table_owned(reply: Reply) -> bool:
    """Whether a process holds the table for itself (NFT_TABLE_F_OWNER): others get EPERM."""
    return bool(int.from_bytes(attributes(reply.body).get(2, b"\0"), "big") & 0x2)


def new_set(family: int, table: str, shape: SetShape, identifier: int) -> Message:
    flags = SET_INTERVAL if shape.interval else 0
    flags |= SET_CONCAT if shape.interval and len(shape.key) > 1 else 0
    flags |= SET_MAP if shape.data else 0
    body = text(1, table) + text(2, shape.name) + number(3, flags)
    body += number(4, _type_of(shape.key)) + number(5, _width(shape.key))
    if shape.data:
        body += number(6, _type_of(shape.data)) + number(7, _width(shape.data))
    body += number(10, identifier)
    if flags & SET_CONCAT:  # only ranges need to know where a field begins
        body += nest(9, nest(2, *(nest(1, number(1, size)) for _, size in shape.key)))
    # nft's own word on byte order, without which it cannot list what it did not make:
    # 0 for a concatenation, 1 host order, 2 network order.
    order = 0 if len(shape.key) > 1 else 1 if shape.host_order else 2
    body += attribute(13, bytes((0, 4)) + struct.pack("=I", order))
    return _message(NEWSET, family, body, NLM_F_CREATE)


def get_set(family: int, table: str, name: str) -> Message:
    return _message(GETSET, family, text(1, table) + text(2, name))


def _type_of(fields: Iterable[tuple[int, int]]) -> int:
    joined = 0
    for number_, _ in fields:
        joined = joined << 6 | number_  # a concatenation is numbered by its parts, 6 bits each
    return joined


def _width(fields: Iterable[tuple[int, int]]) -> int:
    fields = tuple(fields)
    if len(fields) == 1:
        return fields[0][1]
    return sum((size + 3) & ~3 for _, size in fields)


# -- elements ------------------------------------------------------------------------------


def add_elements(
    family: int, table: str, name: str, *, elements: Sequence[RawElement], exclusive: bool = False
) -> list[Message]:
    """`exclusive`: an element that is there already fails the transaction."""
    flags = NLM_F_CREATE | (NLM_F_EXCL if exclusive else 0)
    return list(_element_messages((NEWSETELEM, family, flags), table, name, elements))


def delete_elements(
    family: int, table: str, name: str, elements: Sequence[RawElement]
) -> list[Message]:
    """By key; an element that is absent fails the transaction (ENOENT)."""
    keys = [RawElement(e.key, end=e.end, flags=e.flags) for e in elements]
    return list(_element_messages((DELSETELEM, family, 0), table, name, keys))


def get_element(family: int, table: str, name: str, element: RawElement) -> Message:
    key = RawElement(element.key, end=element.end, flags=element.flags)
    return next(_element_messages((GETSETELEM, family, 0), table, name, [key]))


def all_elements(family: int, table: str, name: str) -> Message:
    return _message(GETSETELEM, family, text(1, table) + text(2, name))


def _element_messages(
    head: tuple[int, int, int], table: str, name: str, elements: Sequence[RawElement]
) -> Iterator[Message]:
    kind, family, flags = head
    prefix = text(1, table) + text(2, name)
    for start in range(0, len(elements), ELEMENTS_PER_MESSAGE):
        packed = (_pack_element(e) for e in elements[start : start + ELEMENTS_PER_MESSAGE])
        yield _message(kind, family, prefix + nest(3, *packed), flags)


def _pack_element(element: RawElement) -> bytes:
    parts = [number(3, element.flags)] if element.flags else []
    parts.append(nest(1, attribute(1, element.key)))
    if element.end:
        parts.append(nest(10, attribute(1, element.end)))
    if element.data:
        parts.append(nest(2, attribute(1, element.data)))
    if element.comment:
        parts.append(attribute(6, pack_comment(element.comment)))
    return nest(1, *parts)


def read_elements(reply: Reply) -> list[RawElement]:
    listed = attributes(reply.body).get(3, b"")
    return [_read_element(body) for _, body in each_attribute(listed)]


def _read_element(body: bytes) -> RawElement:
    found = attributes(body)
    return RawElement(
        key=attributes(found[1]).get(1, b"") if 1 in found else b"",
        data=attributes(found[2]).get(1, b"") if 2 in found else b"",
        end=attributes(found[10]).get(1, b"") if 10 in found else b"",
        comment=unpack_comment(found.get(6, b"")),
        flags=int.from_bytes(found.get(3, b"\0"), "big"),
    )


# -- rules ---------------------------------------------------------------------------------


def new_rule(
    family: int, table: str, chain: str, *, code: bytes, userdata: bytes, append: bool = True
) -> Message:
    """At the end of its chain, or at its head."""
    body = text(1, table) + text(2, chain) + nest(4, code) + attribute(7, userdata)
    return _message(NEWRULE, family, body, NLM_F_CREATE | (NLM_F_APPEND if append else 0))


def flush_chain(family: int, table: str, chain: str) -> Message:
    return _message(DELRULE, family, text(1, table) + text(2, chain))


def delete_rule(family: int, table: str, chain: str, handle: int) -> Message:
    body = text(1, table) + text(2, chain) + attribute(3, handle.to_bytes(8, "big"))
    return _message(DELRULE, family, body)


def all_rules(family: int, table: str, chain: str = "") -> Message:
    """The rules of one table, or of one chain of it, in order."""
    return _message(GETRULE, family, text(1, table) + (text(2, chain) if chain else b""))


def read_rule(reply: Reply) -> RuleFact:
    found = attributes(reply.body)
    userdata = found.get(7, b"")
    return RuleFact(
        chain=unpack_text(found[2]),
        handle=int.from_bytes(found[3], "big"),
        comment=unpack_comment(userdata),
        userdata=userdata,
    )


# -- expressions ---------------------------------------------------------------------------


def _expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *parts))


def payload(base: int, offset: int, length: int, register: int = REGISTER) -> bytes:
    """Bytes of the packet: base 0 link, 1 network, 2 transport header."""
    return _expression(
        "payload", number(1, register), number(2, base), number(3, offset), number(4, length)
    )


def meta(key: int, register: int = REGISTER) -> bytes:
    return _expression("meta", number(2, key), number(1, register))


def conntrack(key: int, register: int = REGISTER) -> bytes:
    return _expression("ct", number(2, key), number(1, register))


def address_type(register: int = REGISTER) -> bytes:
    """What the routing table calls the destination: fib, result ADDRTYPE (3), flag DADDR (2)."""
    return _expression("fib", number(1, register), number(2, 3), number(3, 2))


def compare(data: bytes, *, equal: bool = True) -> bytes:
    operator = 0 if equal else 1
    return _expression("cmp", number(1, REGISTER), number(2, operator), nest(3, attribute(1, data)))


def any_bit(mask: int) -> bytes:
    """True when a 32-bit word in host order has one of these bits."""
    zero = bytes(4)
    masked = _expression(
        "bitwise",
        number(1, REGISTER),
        number(2, REGISTER),
        number(3, 4),
        nest(4, attribute(1, struct.pack("=I", mask))),
        nest(5, attribute(1, zero)),
    )
    return masked + compare(zero, equal=False)


def lookup(name: str, *, into: int | None = None, inverted: bool = False) -> bytes:
    """The key in REGISTER is (not) in the set; with `into`, the map's data goes there."""
    parts = [text(1, name), number(2, REGISTER)]
    if into is not None:
        parts.append(number(3, into))
    if inverted:
        parts.append(number(5, 1))
    return _expression("lookup", *parts)


def destination_nat(family: int, port_register: int) -> bytes:
    """DNAT to the address in REGISTER and the port in `port_register`."""
    return _expression(
        "nat", number(1, 1), number(2, family), number(3, REGISTER), number(5, port_register)
    )


def masquerade() -> bytes:
    return _expression("masq")


def verdict(code: int) -> bytes:
    return _expression("immediate", number(1, 0), nest(2, nest(2, number(1, code))))
