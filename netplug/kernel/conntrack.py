"""Connection tracking: forgetting the flows that a change of published ports made stale.

A UDP client that goes on sending keeps its entry alive, and an entry decides where packets
go before any rule is asked: without this, a client that sent before the port was published,
or to a container that is gone, would never reach the new one. TCP ends by itself.

The kernel filters by protocol and port (CTA_FILTER, Linux 5.8); where it does not know
that, it tells all entries and the same test is made here.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Protocol

from netplug.errors import KernelRefused
from netplug.kernel.netlink import NLM_F_DUMP, attribute, attributes, nest
from netplug.kernel.nfnetlink import SUBSYSTEM_CTNETLINK, Message, Nfnetlink, Reply
from netplug.model import Family, IPAddress

GET, DELETE = 1, 2  # IPCTNL_MSG_CT_*
TUPLE_ORIG, TUPLE_REPLY, STATUS, FILTER = 1, 2, 3, 25
TUPLE_IP, TUPLE_PROTO = 1, 2
PROTO_NUM, PROTO_DST_PORT = 1, 3
FILTER_PROTO, FILTER_DST_PORT = 1 << 3, 1 << 5
STATUS_SRC_NAT, STATUS_DST_NAT = 1 << 4, 1 << 5
NUMBERS = {"udp": 17, "sctp": 132}
FAMILIES: dict[Family, int] = {4: 2, 6: 10}  # NFPROTO_IPV4, NFPROTO_IPV6
SOURCE: dict[Family, int] = {4: 1, 6: 3}  # CTA_IP_V4_SRC, CTA_IP_V6_SRC; the destination follows


class Published(Protocol):
    """A published port; `firewall.intent.Mapping` is one."""

    @property
    def protocol(self) -> str: ...
    @property
    def host_port(self) -> int: ...
    @property
    def address(self) -> IPAddress: ...
    @property
    def host_ip(self) -> IPAddress | None: ...


@dataclass(frozen=True, slots=True)
class Flow:
    """One entry: where its first packet was sent to, and who answers."""

    destination: IPAddress
    port: int
    answers: IPAddress
    status: int
    original: bytes  # the tuple as the kernel told it: the key to delete by

    @property
    def left_the_host(self) -> bool:
        """Masqueraded to elsewhere: it only shares the port number."""
        return bool(self.status & STATUS_SRC_NAT) and not self.status & STATUS_DST_NAT


def flush_udp(fd: int, family: Family, mappings: Iterable[Published], *, gone: bool) -> int:
    """Forgets stale UDP and SCTP flows to published ports; how many.

    Just published: flows that lead anywhere but to the container. Just withdrawn (`gone`):
    flows that lead to the container. A flow that is right is never cut.
    """
    by_protocol: dict[str, dict[int, list[Published]]] = {}
    for mapping in mappings:
        if mapping.protocol in NUMBERS:
            ports = by_protocol.setdefault(mapping.protocol, {})
            ports.setdefault(mapping.host_port, []).append(mapping)
    if not by_protocol:
        return 0
    count = 0
    with Nfnetlink(fd) as link:
        for protocol, ports in by_protocol.items():
            single = next(iter(ports)) if len(ports) == 1 else None
            stale = [
                flow
                for flow in read_flows(link, family, protocol, single)
                if any(_is_stale(flow, mapping, gone) for mapping in ports.get(flow.port, ()))
            ]
            count += delete_flows(link, family, stale)
    return count


def _is_stale(flow: Flow, mapping: Published, gone: bool) -> bool:
    host = mapping.host_ip
    if host is not None and not host.is_unspecified and flow.destination != host:
        return False
    if flow.left_the_host:
        return False
    return (flow.answers == mapping.address) is gone


def read_flows(
    link: Nfnetlink, family: Family, protocol: str, port: int | None = None
) -> Iterator[Flow]:
    """Entries of one protocol, those to one original destination port where given."""
    wanted = attribute(PROTO_NUM, bytes((NUMBERS[protocol],)))
    flags = FILTER_PROTO
    if port is not None:
        wanted += attribute(PROTO_DST_PORT, struct.pack("!H", port))
        flags |= FILTER_DST_PORT
    # The flags of a filter are in host order, unlike all else here.
    mask = nest(FILTER, attribute(1, struct.pack("=I", flags)), attribute(2, bytes(4)))
    body = nest(TUPLE_ORIG, nest(TUPLE_PROTO, wanted)) + mask
    try:
        replies = link.dump(_message(GET, family, body, NLM_F_DUMP))
    except KernelRefused as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EPROTONOSUPPORT):  # no ctnetlink, no flows told
            return
        raise
    for reply in replies:
        flow = _read_flow(reply, family, NUMBERS[protocol])
        if flow is not None and port in (None, flow.port):
            yield flow


def delete_flows(link: Nfnetlink, family: Family, flows: Iterable[Flow]) -> int:
    """Deletes by original tuple; those that ended meanwhile are no error."""
    messages = [_message(DELETE, family, nest(TUPLE_ORIG, flow.original)) for flow in flows]
    refusals = link.command(messages)
    for refusal in refusals:
        if refusal.errno != errno.ENOENT:
            raise KernelRefused(
                "a tracked flow cannot be forgotten", refusal.words, errno=refusal.errno
            )
    return len(messages) - len(refusals)


def _message(kind: int, family: Family, body: bytes, flags: int = 0) -> Message:
    return Message(SUBSYSTEM_CTNETLINK << 8 | kind, flags, FAMILIES[family], body)


def _read_flow(reply: Reply, family: Family, protocol: int) -> Flow | None:
    if reply.family != FAMILIES[family]:
        return None
    found = attributes(reply.body)
    original, answer = attributes(found[TUPLE_ORIG]), attributes(found[TUPLE_REPLY])
    transport = attributes(original[TUPLE_PROTO])
    if transport[PROTO_NUM][0] != protocol or PROTO_DST_PORT not in transport:
        return None
    source = SOURCE[family]
    return Flow(
        destination=ip_address(attributes(original[TUPLE_IP])[source + 1]),
        port=int.from_bytes(transport[PROTO_DST_PORT], "big"),
        answers=ip_address(attributes(answer[TUPLE_IP])[source]),
        status=int.from_bytes(found.get(STATUS, b"\0"), "big"),
        original=found[TUPLE_ORIG],
    )
