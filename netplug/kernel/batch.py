"""Batched rtnetlink: many requests in one sendmsg, one acknowledgement for each.

A topology of 500 nodes is some 3000 requests; one system call for each, with its wake-ups,
costs more than the kernel's work. pyroute2's message classes encode (0.65 ms for the five
requests of one node; its `IPBatch` takes 2.8 ms), a plain socket carries.

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
from typing import Any

from pyroute2.netlink import nlmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import sched_netem, tcmsg

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
    each_attribute,
    each_message,
    read_refusal,
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
RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST, RT_SCOPE_LINK = 254, 4, 1, 253
TC_H_ROOT = 0xFFFFFFFF

# An acknowledgement takes about 770 bytes of the receive buffer, which is 208 KiB unless
# told otherwise, and the kernel answers a whole sendmsg before we can read: so bounded.
IN_FLIGHT = 128


@dataclass(frozen=True, slots=True)
class Request:
    """One encoded request and the words for its refusal; `send` numbers it."""

    what: str
    data: bytes


def _request(what: str, message: nlmsg, kind: int, flags: int) -> Request:
    message["header"]["type"] = kind
    message["header"]["flags"] = flags
    message.encode()
    return Request(what, bytes(message.data))


def _link(*, index: int, up: bool | None, attributes: list[tuple[str, Any]]) -> ifinfmsg:
    message = ifinfmsg()
    message["index"] = index
    if up is not None:
        message["flags"] = IFF_UP if up else 0
        message["change"] = IFF_UP
    message["attrs"] = attributes
    return message


def new_bridge(name: str, *, index: int) -> Request:
    """A switch: no spanning tree, no multicast snooping (it would want a querier), up."""
    options = {"attrs": [("IFLA_BR_STP_STATE", 0), ("IFLA_BR_MCAST_SNOOPING", 0)]}
    info = {"attrs": [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", options)]}
    message = _link(
        index=index, up=True, attributes=[("IFLA_IFNAME", name), ("IFLA_LINKINFO", info)]
    )
    return _request(f"bridge {name} cannot be created", message, RTM_NEWLINK, CREATE)


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
    peer_message = {"index": peer.index, "attrs": _end_attributes(peer)}
    info = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", peer_message)]}),
        ]
    }
    attributes = [*_end_attributes(end), ("IFLA_LINKINFO", info)]
    message = _link(index=end.index, up=up or None, attributes=attributes)
    what = f"veth pair {end.name} - {peer.name} cannot be created"
    return _request(what, message, RTM_NEWLINK, CREATE)


def _end_attributes(end: VethEnd) -> list[tuple[str, Any]]:
    attributes: list[tuple[str, Any]] = [("IFLA_IFNAME", end.name), ("IFLA_MTU", end.mtu)]
    if end.mac is not None:
        attributes.append(("IFLA_ADDRESS", end.mac))
    if end.master is not None:
        attributes.append(("IFLA_MASTER", end.master))
    if end.namespace is not None:
        attributes.append(("IFLA_NET_NS_FD", end.namespace))
    return attributes


@lru_cache(maxsize=1024)  # nodes of a topology ask for the same things
def set_link(
    index: int,
    *,
    name: str,
    up: bool | None = None,
    mtu: int | None = None,
    master: int | None = None,
) -> Request:
    wanted = (("IFLA_MTU", mtu), ("IFLA_MASTER", master))
    attributes = [(key, value) for key, value in wanted if value is not None]
    message = _link(index=index, up=up, attributes=attributes)
    return _request(f"link {name} cannot be changed", message, RTM_NEWLINK, CHANGE)


def new_address(index: int, address: IPInterface) -> Request:
    """IPv6 without duplicate address detection: usable at once."""
    message = ifaddrmsg()
    message["family"] = _family(address)
    message["prefixlen"] = address.network.prefixlen
    message["index"] = index
    text = str(address.ip)
    attributes: list[tuple[str, Any]] = [("IFA_ADDRESS", text), ("IFA_LOCAL", text)]
    if address.version == 6:
        message["flags"] = IFA_F_NODAD
    elif address.network.prefixlen < 31:
        attributes.append(("IFA_BROADCAST", str(address.network.broadcast_address)))
    message["attrs"] = attributes
    return _request(f"address {address} cannot be added", message, RTM_NEWADDR, CREATE)


@lru_cache(maxsize=1024)
def new_route(destination: IPNetwork, gateway: IPAddress) -> Request:
    message = rtmsg()
    message["family"] = _family(destination)
    message["dst_len"] = destination.prefixlen
    message["table"] = RT_TABLE_MAIN
    message["proto"] = RTPROT_STATIC
    message["type"] = RTN_UNICAST
    attributes = [("RTA_GATEWAY", str(gateway))]
    if destination.prefixlen:
        attributes.append(("RTA_DST", str(destination.network_address)))
    message["attrs"] = attributes
    what = f"route to {destination} via {gateway} cannot be added"
    return _request(what, message, RTM_NEWROUTE, CREATE)


def new_loss(index: int, *, name: str, percent: float) -> Request:
    """A netem qdisc that drops this share of what leaves the link."""
    message = tcmsg()
    message["index"] = index
    message["parent"] = TC_H_ROOT
    options = sched_netem.get_parameters({"loss": percent, "limit": 1000})
    message["attrs"] = [("TCA_KIND", "netem"), ("TCA_OPTIONS", options)]
    return _request(f"packet loss on {name} cannot be set up", message, RTM_NEWQDISC, CREATE)


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
