"""Batched rtnetlink: many requests in one sendmsg, one acknowledgement for each.

A topology of 500 nodes is some 3000 requests; one system call for each, with its wake-ups,
costs more than the kernel's work. They are packed by hand: pyroute2's encoder takes 0.65 ms for
the five requests of one node, and 160 ms to be imported. Its decoder reads them in the tests.

Requests name links by index alone: whoever packs a batch chooses the indexes, since no
answer can be read before all is sent. In a new namespace `FIRST_INDEX` and up are free.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from netplug.errors import KernelRefused
from netplug.kernel.netlink import (
    HEADER,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    SOL_NETLINK,
    Refusal,
    attribute,
    each_attribute,
    each_message,
    nest,
    read_refusal,
    text,
)
from netplug.model import IPAddress, IPInterface, IPNetwork

# lo is 1; the fallback devices of tunnel modules (tunl0, sit0, ip6tnl0, ...) follow it where
# net.core.fb_tunnels_only_for_init_net is 0.
FIRST_INDEX = 21
LO_INDEX = 1

RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_NEWROUTE, RTM_NEWQDISC = 16, 18, 20, 24, 36
CHANGE = NLM_F_REQUEST | NLM_F_ACK
CREATE = CHANGE | NLM_F_CREATE | NLM_F_EXCL
IFLA_OPERSTATE, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS, IF_OPER_UP = 16, 29, 8, 6
IFINFOMSG = 16  # bytes of a link before its attributes
IFF_UP, IFA_F_NODAD = 0x1, 0x02
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST, RT_SCOPE_UNIVERSE = 254, 4, 1, 0
TC_H_ROOT = 0xFFFFFFFF

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER = 1, 3, 4, 10
IFLA_LINKINFO, IFLA_NET_NS_FD, IFLA_INFO_KIND, IFLA_INFO_DATA = 18, 28, 1, 2
IFLA_BR_STP_STATE, IFLA_BR_MCAST_SNOOPING, VETH_INFO_PEER = 5, 23, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST = 1, 2, 4
RTA_DST, RTA_GATEWAY = 1, 5
TCA_KIND, TCA_OPTIONS = 1, 2
NETEM_QUEUE = 1000  # packets
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, mask of flags
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg
_QUEUE = struct.Struct("=BxxxiIII")  # tcmsg: family, index, handle, parent, info
_NETEM = struct.Struct("=IIIIII")  # tc_netem_qopt: latency, limit, loss, gap, duplicate, jitter

# An acknowledgement takes about 770 bytes of the receive buffer, which is 208 KiB unless
# told otherwise, and the kernel answers a whole sendmsg before we can read: so bounded.
IN_FLIGHT = 128


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded request and the words for its refusal; `send` numbers it."""

    what: str
    data: bytes


def _request(what: str, kind: int, flags: int, *parts: bytes) -> Request:
    body = b"".join(parts)
    return Request(what, HEADER.pack(HEADER.size + len(body), kind, flags, 0, 0) + body)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("=I", value))


def _link(index: int, *, up: bool | None = None) -> bytes:
    flags, mask = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    return _LINK.pack(0, 0, index, flags, mask)


def new_bridge(name: str, *, index: int) -> Request:
    """A switch: no spanning tree, no multicast snooping (it would want a querier), up."""
    options = nest(
        IFLA_INFO_DATA,
        _number(IFLA_BR_STP_STATE, 0),
        attribute(IFLA_BR_MCAST_SNOOPING, b"\0"),
    )
    return _request(
        f"bridge {name} cannot be created",
        RTM_NEWLINK,
        CREATE,
        _link(index, up=True),
        text(IFLA_IFNAME, name),
        nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "bridge"), options),
    )


@dataclass(frozen=True, slots=True)
class VethEnd:
    """One end of a cable; `namespace` is a descriptor, None for the socket's own.

    The kernel does not look at the `master` of a peer: `set_link` gives it one.
    """

    name: str
    index: int
    mtu: int
    mac: str | None = None
    master: int | None = None
    namespace: int | None = None


def new_veth(end: VethEnd, peer: VethEnd, *, up: bool) -> Request:
    """A cable; `peer` is born in its namespace, `end` in the socket's own, and raised if `up`.

    The peer stays down: veth_open would run before the ends are tied (ENOTCONN).
    """
    data = nest(IFLA_INFO_DATA, nest(VETH_INFO_PEER, _link(peer.index), _end_attributes(peer)))
    return _request(
        f"veth pair {end.name} - {peer.name} cannot be created",
        RTM_NEWLINK,
        CREATE,
        _link(end.index, up=up or None),
        _end_attributes(end),
        nest(IFLA_LINKINFO, text(IFLA_INFO_KIND, "veth"), data),
    )


def _end_attributes(end: VethEnd) -> bytes:
    parts = [text(IFLA_IFNAME, end.name), _number(IFLA_MTU, end.mtu)]
    if end.mac is not None:
        parts.append(attribute(IFLA_ADDRESS, bytes.fromhex(end.mac.replace(":", ""))))
    if end.master is not None:
        parts.append(_number(IFLA_MASTER, end.master))
    if end.namespace is not None:
        parts.append(_number(IFLA_NET_NS_FD, end.namespace))
    return b"".join(parts)


@lru_cache(maxsize=1024)  # nodes of a topology ask for the same things
def set_link(
    index: int,
    *,
    name: str,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
) -> Request:
    wanted = ((IFLA_MTU, mtu), (IFLA_MASTER, master))
    parts = (_number(kind, value) for kind, value in wanted if value is not None)
    what = f"link {name} cannot be changed"
    return _request(what, RTM_NEWLINK, CHANGE, _link(index, up=up), *parts)


def new_address(index: int, address: IPInterface) -> Request:
    """IPv6 without duplicate address detection: usable at once."""
    own = address.ip.packed
    parts = [attribute(IFA_ADDRESS, own), attribute(IFA_LOCAL, own)]
    if address.version == 4 and address.network.prefixlen < 31:
        parts.append(attribute(IFA_BROADCAST, address.network.broadcast_address.packed))
    flags = IFA_F_NODAD if address.version == 6 else 0
    body = _ADDRESS.pack(_family(address), address.network.prefixlen, flags, 0, index)
    return _request(f"address {address} cannot be added", RTM_NEWADDR, CREATE, body, *parts)


@lru_cache(maxsize=1024)
def new_route(destination: IPNetwork, gateway: IPAddress) -> Request:
    length, family = destination.prefixlen, _family(destination)
    scope = RT_SCOPE_UNIVERSE
    head = (family, length, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST, 0)
    parts = [attribute(RTA_GATEWAY, gateway.packed)]
    if length:
        parts.append(attribute(RTA_DST, destination.network_address.packed))
    what = f"route to {destination} via {gateway} cannot be added"
    return _request(what, RTM_NEWROUTE, CREATE, _ROUTE.pack(*head), *parts)


def new_loss(index: int, *, name: str, percent: float) -> Request:
    """A netem qdisc that drops this share of what leaves the link."""
    share = min(int(percent / 100 * (1 << 32)), (1 << 32) - 1)
    return _request(
        f"packet loss on {name} cannot be set up",
        RTM_NEWQDISC,
        CREATE,
        _QUEUE.pack(0, index, 0, TC_H_ROOT, 0),
        text(TCA_KIND, "netem"),
        attribute(TCA_OPTIONS, _NETEM.pack(0, NETEM_QUEUE, share, 0, 0, 0)),
    )


def _family(value: IPInterface | IPNetwork) -> int:
    return int(socket.AF_INET if value.version == 4 else socket.AF_INET6)


def send(carrier: socket.socket, requests: Iterable[Request]) -> None:
    """Sends all, in order, and waits for every answer.

    Raises KernelRefused that names the first request refused; those behind it were
    tried as well (the kernel does not stop at an error), so the caller undoes by scope:
    closing the namespace.
    """
    pending = list(requests)
    for request, refusal in zip(pending, exchange(carrier, pending), strict=True):
        if refusal is not None:
            why = os.strerror(refusal.errno)
            if refusal.text:
                why = f"{why} ({refusal.text})"
            raise KernelRefused(request.what, why, errno=refusal.errno)


def exchange(carrier: socket.socket, requests: Sequence[Request]) -> list[Refusal | None]:
    """One answer for each request, in their order; None is yes."""
    carrier.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)  # answers without a copy of the request
    carrier.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    answers: dict[int, Refusal | None] = {}
    for start in range(0, len(requests), IN_FLIGHT):
        chunk = requests[start : start + IN_FLIGHT]
        carrier.send(b"".join(_numbered(r.data, start + i) for i, r in enumerate(chunk)))
        while len(answers) < start + len(chunk):
            answers.update(_parse_answers(carrier.recv(1 << 16)))
    return [answers[number] for number in range(len(requests))]


def _numbered(data: bytes, sequence: int) -> bytes:
    """The request with its sequence number (bytes 8-12 of nlmsghdr), padded to 4 bytes."""
    return data[:8] + struct.pack("=I", sequence) + data[12:] + bytes(-len(data) & 3)


def _parse_answers(data: bytes) -> Iterator[tuple[int, Refusal | None]]:
    for kind, flags, sequence, body in each_message(data):
        if kind == NLMSG_ERROR:
            yield sequence, read_refusal(flags, body)


def read_operational(carrier: socket.socket) -> set[int]:
    """Indexes of the links that carry traffic (IF_OPER_UP), of all links of the namespace.

    Raised is not yet operational: the kernel's link watcher activates the queue, and a
    bridge enables the port, some time after the far end came up.
    """
    body = struct.pack("=BxHiIIHHI", 0, 0, 0, 0, 0, 8, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)
    flags = NLM_F_REQUEST | NLM_F_DUMP
    carrier.send(HEADER.pack(HEADER.size + len(body), RTM_GETLINK, flags, 0, 0) + body)
    found: set[int] = set()
    while True:
        for kind, answer_flags, _, link in each_message(carrier.recv(1 << 17)):
            if kind == NLMSG_DONE:
                return found
            if kind == NLMSG_ERROR and (refusal := read_refusal(answer_flags, link)):
                raise KernelRefused(
                    "the links cannot be listed", refusal.words, errno=refusal.errno
                )
            (index,) = struct.unpack_from("=i", link, 4)
            if (IFLA_OPERSTATE, bytes((IF_OPER_UP,))) in each_attribute(link, IFINFOMSG):
                found.add(index)
