"""DHCP messages: bytes <-> values. Pure, and patient with servers that lie.

Layouts: RFC 2131 (message), RFC 2132 (options), RFC 3396 (long options), RFC 3397 (119),
RFC 3442 (121).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from netplug.model import Dns, Lease, LeasedAddress, Route

DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE = 1, 2, 3, 4, 5, 6, 7
NETMASK, ROUTER, DNS_SERVERS, HOST_NAME, DOMAIN, MTU = 1, 3, 6, 12, 15, 26
REQUESTED_IP, LEASE_TIME, OVERLOAD, KIND, SERVER_ID = 50, 51, 52, 53, 54
PARAMETERS, MAX_SIZE, T1, T2, CLIENT_ID = 55, 57, 58, 59, 61
SEARCH, CLASSLESS_ROUTES, END = 119, 121, 255
WANTED = (NETMASK, CLASSLESS_ROUTES, ROUTER, DNS_SERVERS, DOMAIN, MTU, T1, T2, SEARCH)
COOKIE = b"\x63\x82\x53\x63"
INFINITE = 0xFFFF_FFFF
LEAST_SECONDS = 5  # a shorter lease is no lease: its owner would do nothing but renew
LEAST_MTU = 576  # what every IPv4 host must take (RFC 791)
SMALLEST = 300  # bytes; BOOTP relays drop shorter messages
ROUTES_LIMIT, NAMES_LIMIT = 64, 32
BROADCAST_FLAG = 0x8000
_HEADER = struct.Struct("!4BIHH4s4s4s4s16s64s128s")


class Malformed(Exception):
    """The answer cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """What we send. `address` is our own (ciaddr), where we have one."""

    kind: int
    xid: int
    mac: str
    address: IPv4Address = field(default=IPv4Address(0))
    seconds: int = 0
    broadcast: bool = False
    options: tuple[tuple[int, bytes], ...] = ()

    def pack(self) -> bytes:
        flags = BROADCAST_FLAG if self.broadcast else 0
        none = bytes(4)
        chaddr = bytes.fromhex(self.mac.replace(":", "")).ljust(16, b"\0")
        seconds = min(self.seconds, 0xFFFF)
        header = _HEADER.pack(
            *(1, 1, 6, 0),  # a request over Ethernet
            *(self.xid, seconds, flags),
            *(self.address.packed, none, none, none),
            *(chaddr, b"", b""),
        )
        body = b"".join(
            _option(code, value) for code, value in ((KIND, bytes([self.kind])), *self.options)
        )
        return (header + COOKIE + body + bytes([END])).ljust(SMALLEST, b"\0")


def _option(code: int, value: bytes) -> bytes:
    """Long values are split (RFC 3396)."""
    parts = [value[at : at + 255] for at in range(0, len(value), 255)] or [b""]
    return b"".join(bytes([code, len(part)]) + part for part in parts)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says; `address` is the one it gives (yiaddr)."""

    kind: int
    xid: int
    address: IPv4Address
    mac: str
    options: dict[int, bytes]

    @property
    def server(self) -> IPv4Address | None:
        raw = self.options.get(SERVER_ID, b"")
        return IPv4Address(raw) if len(raw) == 4 else None


def parse_answer(data: bytes) -> Answer:
    """Raises Malformed."""
    if len(data) < _HEADER.size + 4 or data[_HEADER.size : _HEADER.size + 4] != COOKIE:
        raise Malformed("it is no DHCP message")
    op, _, length, _, xid, _, _, _, yours, _, _, chaddr, sname, file = _HEADER.unpack_from(data)
    options: dict[int, bytes] = {}
    _read_options(data[_HEADER.size + 4 :], options)
    overload = options.get(OVERLOAD, b"\0")[:1]
    if overload in (b"\1", b"\3"):
        _read_options(file, options)
    if overload in (b"\2", b"\3"):
        _read_options(sname, options)
    kind = options.get(KIND, b"")
    if op != 2 or len(kind) != 1:
        raise Malformed("it is no answer of a server")
    return Answer(kind[0], xid, IPv4Address(yours), chaddr[: min(length, 16)].hex(":"), options)


def _read_options(data: bytes, found: dict[int, bytes]) -> None:
    """Adds what stands there; an option that comes again is continued (RFC 3396)."""
    at = 0
    while at < len(data) and data[at] != END:
        if not data[at]:  # padding
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise Malformed("an option is cut off")
        code, length = data[at], data[at + 1]
        found[code] = found.get(code, b"") + data[at + 2 : at + 2 + length]
        at += 2 + length


@dataclass(frozen=True, slots=True)
class Terms:
    """A granted lease. `t1`, `t2` and `seconds` count from its request; None is for ever."""

    address: IPv4Interface
    server: IPv4Address
    seconds: int | None
    t1: int
    t2: int
    lease: Lease


def parse_terms(answer: Answer, *, priority: int | None = None) -> Terms:
    """What an offer or acknowledgement grants. Raises Malformed for what nobody can live with;
    what is only odd (a route, a name) is left out."""
    options = answer.options
    server = answer.server
    if server is None or _is_odd(server):
        raise Malformed("it does not say which server it comes from (option 54)")
    if _is_odd(answer.address):
        raise Malformed(f"{answer.address} is no address of a host")
    interface = _interface(answer.address, options.get(NETMASK, b""))
    seconds = _number(options.get(LEASE_TIME, b""))
    if seconds is None or seconds < LEAST_SECONDS:
        raise Malformed(f"the lease lasts {seconds or 0} s (option 51)")
    t1, t2 = _times(options, seconds)
    routers = [ip for ip in _addresses(options.get(ROUTER, b"")) if ip != answer.address]
    mtu = _number(options.get(MTU, b""))
    routes = tuple(_routes(options, interface, routers, mtu=mtu, priority=priority))
    gateway = routers[0] if routers else None
    lease = Lease((LeasedAddress(interface, gateway),), routes, _dns(options))
    return Terms(interface, server, None if seconds == INFINITE else seconds, t1, t2, lease)


def _is_odd(ip: IPv4Address) -> bool:
    return ip.is_multicast or ip.is_unspecified or ip.is_loopback or int(ip) == INFINITE


def _interface(ip: IPv4Address, mask: bytes) -> IPv4Interface:
    if len(mask) != 4:
        raise Malformed("the subnet mask is missing (option 1)")
    ones = bin(int.from_bytes(mask, "big")).count("1")
    interface = IPv4Interface((int(ip), ones))
    if interface.netmask.packed != mask or not ones:
        raise Malformed(f"{IPv4Address(mask)} is no subnet mask (option 1)")
    net = interface.network
    if ones < 31 and ip in (net.network_address, net.broadcast_address):
        raise Malformed(f"{interface} is the number of its subnet, or its broadcast address")
    return interface


def _number(raw: bytes) -> int | None:
    return int.from_bytes(raw, "big") if len(raw) in (2, 4) else None


def _times(options: dict[int, bytes], seconds: int) -> tuple[int, int]:
    """T1 and T2; where they are missing or out of order half and 7/8 (RFC 2131, 4.4.5)."""
    t1, t2 = _number(options.get(T1, b"")), _number(options.get(T2, b""))
    t2 = t2 if t2 and t2 < seconds else seconds * 7 // 8
    return (t1 if t1 and t1 < t2 else t2 * 4 // 7), t2


def _addresses(raw: bytes) -> list[IPv4Address]:
    found = [IPv4Address(raw[at : at + 4]) for at in range(0, len(raw) - 3, 4)]
    return [ip for ip in dict.fromkeys(found) if not _is_odd(ip)][:NAMES_LIMIT]


def _routes(
    options: dict[int, bytes],
    own: IPv4Interface,
    routers: Sequence[IPv4Address],
    *,
    mtu: int | None,
    priority: int | None,
) -> Iterator[Route]:
    """Option 121 alone where it is there (RFC 3442), else a default route by option 3.

    A router outside the subnet is made reachable first, on the link.
    """
    listed = _classless(options.get(CLASSLESS_ROUTES, b""))
    if not listed and routers:
        listed = [(IPv4Network("0.0.0.0/0"), routers[0])]
    path_mtu = mtu if mtu and mtu >= LEAST_MTU else None
    reached = {own.network} | {dst for dst, gw in listed if gw.is_unspecified}
    for dst, gw in sorted(listed, key=lambda route: not route[1].is_unspecified):
        if gw.is_unspecified:
            yield Route(dst, mtu=path_mtu, priority=priority, scope=253)
            continue
        if not any(gw in network for network in reached):
            reached.add(IPv4Network(gw))
            yield Route(IPv4Network(gw), scope=253)
        yield Route(dst, gw, mtu=path_mtu, priority=priority)


def _classless(raw: bytes) -> list[tuple[IPv4Network, IPv4Address]]:
    """(destination, router) pairs; none at all where the option is malformed."""
    found: list[tuple[IPv4Network, IPv4Address]] = []
    at = 0
    while at < len(raw):
        length = raw[at]
        octets = (length + 7) // 8
        if length > 32 or at + 1 + octets + 4 > len(raw):
            return []
        dst = int.from_bytes(raw[at + 1 : at + 1 + octets].ljust(4, b"\0"), "big")
        gw = IPv4Address(raw[at + 1 + octets : at + 5 + octets])
        found.append((IPv4Network((dst, length), strict=False), gw))
        at += 5 + octets
    return list(dict.fromkeys(found))[:ROUTES_LIMIT]


def _dns(options: dict[int, bytes]) -> Dns:
    domain = options.get(DOMAIN, b"").rstrip(b"\0").decode("ascii", "replace").rstrip(".")
    return Dns(
        nameservers=tuple(str(ip) for ip in _addresses(options.get(DNS_SERVERS, b""))),
        domain=domain if _is_name(domain) else "",
        search=tuple(filter(_is_name, _names(options.get(SEARCH, b"")))),
    )


def _is_name(name: str) -> bool:
    """What may stand in a resolv.conf: no blank, nothing that begins a new line or option."""
    labels = name.split(".")
    return len(name) <= 253 and all(
        0 < len(label) <= 63
        and label.replace("-", "").replace("_", "").isalnum()
        and label.isascii()
        for label in labels
    )


def _names(raw: bytes) -> list[str]:
    """Names in DNS form, compressed within the option (RFC 3397); what loops is left out."""
    found: list[str] = []
    at = 0
    while at < len(raw) and len(found) < NAMES_LIMIT:
        labels, at = _name(raw, at)
        if labels:
            found.append(".".join(labels))
    return found


def _name(raw: bytes, at: int) -> tuple[list[str], int]:
    """The labels of one name and where the next one begins."""
    labels: list[str] = []
    after = 0
    for _ in range(len(raw)):  # each step reads on or jumps; more would be a loop
        if at >= len(raw):
            break
        length = raw[at]
        if not length:
            return labels, after or at + 1
        if length >= 0xC0:
            if at + 1 >= len(raw):
                break
            after = after or at + 2
            at = (length & 0x3F) << 8 | raw[at + 1]
            continue
        labels.append(raw[at + 1 : at + 1 + length].decode("ascii", "replace"))
        at += 1 + length
    return [], after or len(raw)
