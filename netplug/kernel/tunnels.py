"""rtnetlink messages of tunnels: VXLAN devices, neighbours, forwarding entries, peer routes.

Packed by hand for the same reason as `rtmessages`: a node of a thousand peers makes three
thousand of them at once. pyroute2's decoder reads them back in the tests. Layouts and
numbers: include/uapi/linux/{if_link,neighbour,rtnetlink}.h.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from netplug.kernel.netlink import (
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    attribute,
    attributes,
    nest,
    text,
    unpack_text,
)
from netplug.kernel.rtmessages import (
    _LINK,
    _ROUTE,
    AF_BRIDGE,
    FAMILIES,
    IFLA_IFNAME,
    IFLA_INFO_DATA,
    IFLA_INFO_KIND,
    IFLA_INFO_SLAVE_DATA,
    IFLA_INFO_SLAVE_KIND,
    IFLA_LINKINFO,
    RT_TABLE_MAIN,
    RTA_DST,
    RTA_GATEWAY,
    RTA_OIF,
    RTA_TABLE,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTN_UNICAST,
    Link,
    Message,
    get_addresses,
    get_link,
    get_links,
    new_link,
    parse_address,
    parse_link,
    u32,
)
from netplug.kernel.rtnl import Rtnl
from netplug.model import ROUTE_PROTOCOL, IPAddress, IPInterface, IPNetwork

RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
NDA_DST, NDA_LLADDR = 1, 2
NUD_PERMANENT, NUD_REACHABLE, NUD_NOARP = 0x80, 0x02, 0x40
NTF_SELF, NTF_MASTER = 0x02, 0x04
RTNH_F_ONLINK = 0x04

IFLA_VXLAN_ID, IFLA_VXLAN_LOCAL, IFLA_VXLAN_LEARNING = 1, 4, 7
IFLA_VXLAN_PORT, IFLA_VXLAN_LOCAL6 = 15, 17
PIECE = 64  # messages in one send
OVERHEAD = {4: 50, 6: 70}  # bytes: inner Ethernet 14, VXLAN 8, UDP 8, IP 20 or 40

IFLA_BRPORT_LEARNING, IFLA_BRPORT_UNICAST_FLOOD, IFLA_BRPORT_MCAST_FLOOD = 8, 9, 27
IFLA_BRPORT_BCAST_FLOOD, IFLA_BRPORT_NEIGH_SUPPRESS = 30, 32
SUPPRESSION = (
    *((IFLA_BRPORT_NEIGH_SUPPRESS, 1), (IFLA_BRPORT_LEARNING, 0), (IFLA_BRPORT_UNICAST_FLOOD, 0)),
    *((IFLA_BRPORT_MCAST_FLOOD, 0), (IFLA_BRPORT_BCAST_FLOOD, 0)),
)

_NEIGHBOUR = struct.Struct("=BxxxiHBB")  # ndmsg: family, link, state, flags, type


# --- the device


def new_vxlan(name: str, *, vni: int, local: IPAddress, port: int, mac: str, mtu: int) -> Message:
    """Without learning and without a lower device.

    A device bound to a link (`dev`) goes when that link goes, even from another namespace,
    and would follow its MTU only at its making.
    """
    family = IFLA_VXLAN_LOCAL if local.version == 4 else IFLA_VXLAN_LOCAL6
    data = u32(IFLA_VXLAN_ID, vni) + attribute(family, local.packed)
    data += attribute(IFLA_VXLAN_LEARNING, b"\0")
    data += attribute(IFLA_VXLAN_PORT, struct.pack("!H", port))
    return new_link(name, "vxlan", mtu=mtu, mac=mac, data=data)


def set_suppression(name: str) -> Message:
    """A bridge port that answers ARP and ND by the bridge's own neighbours, and learns nothing;
    unknown unicast, multicast and broadcast do not leave by it."""
    port = b"".join(attribute(kind, bytes((value,))) for kind, value in SUPPRESSION)
    info = text(IFLA_INFO_SLAVE_KIND, "bridge") + nest(IFLA_INFO_SLAVE_DATA, port)
    body = _LINK.pack(0, 0, 0, 0, 0) + text(IFLA_IFNAME, name) + nest(IFLA_LINKINFO, info)
    return Message(RTM_NEWLINK, 0, body, f"bridge port {name} cannot be configured")


@dataclass(frozen=True, slots=True)
class HeldVxlan:
    vni: int
    port: int
    local: IPAddress | None
    learning: bool
    suppressed: bool = False  # as a bridge port: everything that `set_suppression` says


def parse_vxlan(body: bytes) -> HeldVxlan | None:
    """The VXLAN part of a link's answer; None for a link of another kind."""
    info = attributes(attributes(body, _LINK.size).get(IFLA_LINKINFO, b""))
    if unpack_text(info.get(IFLA_INFO_KIND, b"")) != "vxlan":
        return None
    data = attributes(info.get(IFLA_INFO_DATA, b""))
    port = attributes(info.get(IFLA_INFO_SLAVE_DATA, b""))
    local = data.get(IFLA_VXLAN_LOCAL) or data.get(IFLA_VXLAN_LOCAL6)
    return HeldVxlan(
        vni=struct.unpack("=I", data[IFLA_VXLAN_ID])[0],
        port=struct.unpack("!H", data.get(IFLA_VXLAN_PORT, b"\0\0"))[0],
        local=ip_address(local) if local else None,
        learning=data.get(IFLA_VXLAN_LEARNING, b"\0") != b"\0",
        suppressed=all(port.get(kind) == bytes((value,)) for kind, value in SUPPRESSION),
    )


# --- neighbours and forwarding entries


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour: `address` on the link has this MAC. Keyed by the address."""

    address: IPAddress
    mac: str


@dataclass(frozen=True, slots=True)
class Forward:
    """A forwarding entry of a VXLAN device: frames to `mac` go to `via`. Keyed by both."""

    mac: str
    via: IPAddress


@dataclass(frozen=True, slots=True)
class Bridged:
    """A forwarding entry of a bridge: frames to `mac` leave by this port."""

    mac: str


@dataclass(frozen=True, slots=True)
class TunnelRoute:
    """A route to a peer's subnet by `gateway`, which counts as on the link."""

    subnet: IPNetwork
    gateway: IPAddress


@dataclass(frozen=True, slots=True)
class DirectRoute:
    """A route to a peer's subnet by the peer's own address, which is on the underlay's link."""

    subnet: IPNetwork
    via: IPAddress


Item = Neighbour | Forward | TunnelRoute | DirectRoute | Bridged


def add(index: int, item: Item) -> Message:
    """Makes the item; one under the same key is replaced."""
    flags = NLM_F_CREATE | NLM_F_REPLACE
    if isinstance(item, TunnelRoute | DirectRoute):
        return Message(RTM_NEWROUTE, flags, _route(index, item), f"{item} cannot be added")
    if isinstance(item, Forward):  # one MAC may have several destinations
        flags = NLM_F_CREATE | NLM_F_APPEND
    return Message(RTM_NEWNEIGH, flags, _neighbour(index, item), f"{item} cannot be added")


def remove(index: int, item: Item) -> Message:
    if isinstance(item, TunnelRoute | DirectRoute):
        return Message(RTM_DELROUTE, 0, _route(index, item), f"{item} cannot be removed")
    return Message(RTM_DELNEIGH, 0, _neighbour(index, item), f"{item} cannot be removed")


def _neighbour(index: int, item: Neighbour | Forward | Bridged) -> bytes:
    mac = attribute(NDA_LLADDR, bytes.fromhex(item.mac.replace(":", "")))
    if isinstance(item, Neighbour):
        family = FAMILIES[item.address.version]
        head = _NEIGHBOUR.pack(family, index, NUD_PERMANENT, 0, RTN_UNICAST)
        return head + attribute(NDA_DST, item.address.packed) + mac
    if isinstance(item, Bridged):
        return _NEIGHBOUR.pack(AF_BRIDGE, index, NUD_NOARP, NTF_MASTER, 0) + mac
    head = _NEIGHBOUR.pack(AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0)
    return head + mac + attribute(NDA_DST, item.via.packed)


def _route(index: int, item: TunnelRoute | DirectRoute) -> bytes:
    tunnel = isinstance(item, TunnelRoute)
    gateway = item.gateway if isinstance(item, TunnelRoute) else item.via
    head = _ROUTE.pack(
        FAMILIES[item.subnet.version],
        item.subnet.prefixlen,
        0,
        0,
        RT_TABLE_MAIN,
        ROUTE_PROTOCOL,
        0,
        RTN_UNICAST,
        RTNH_F_ONLINK if tunnel else 0,
    )
    return (
        head
        + attribute(RTA_DST, item.subnet.network_address.packed)
        + attribute(RTA_GATEWAY, gateway.packed)
        + u32(RTA_OIF, index)
        + u32(RTA_TABLE, RT_TABLE_MAIN)
    )


# --- reading


def get_neighbours(family: int, index: int) -> Message:
    """A dump that the kernel limits to one link (NETLINK_GET_STRICT_CHK)."""
    body = _NEIGHBOUR.pack(family, 0, 0, 0, 0)
    body += u32(8, index)  # NDA_IFINDEX
    return Message(RTM_GETNEIGH, 0, body, "neighbours cannot be read")


def parse_neighbour(body: bytes) -> tuple[int, Neighbour | Forward | Bridged | None]:
    """(link, item); None for what is not permanent, multicast, or of no interest here."""
    family, index, state, flags, _ = _NEIGHBOUR.unpack_from(body)
    found = attributes(body, _NEIGHBOUR.size)
    mac = found.get(NDA_LLADDR, b"").hex(":")
    if not mac:
        return index, None
    if family == AF_BRIDGE:
        if flags & NTF_SELF and NDA_DST in found:
            return index, Forward(mac, ip_address(found[NDA_DST]))
        if not flags & NTF_SELF and state & NUD_NOARP:
            return index, Bridged(mac)
        return index, None
    if not state & NUD_PERMANENT:
        return index, None
    return index, Neighbour(ip_address(found[NDA_DST]), mac)


def get_tunnel_routes(version: int, index: int) -> Message:
    """Main table, one link (both checked by the kernel: NETLINK_GET_STRICT_CHK)."""
    body = _ROUTE.pack(FAMILIES[version], 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, body + u32(RTA_OIF, index), "routes cannot be read")


def parse_route(body: bytes) -> tuple[int, TunnelRoute | DirectRoute | None]:
    """(link, route); None for a route without gateway or not of ours."""
    family, length, _, _, _, protocol, _, kind, flags = _ROUTE.unpack_from(body)
    found = attributes(body, _ROUTE.size)
    index = struct.unpack("=I", found[RTA_OIF])[0] if RTA_OIF in found else 0
    if kind != RTN_UNICAST or protocol != ROUTE_PROTOCOL or RTA_GATEWAY not in found:
        return index, None
    raw = found.get(RTA_DST, bytes(4 if family == socket.AF_INET else 16))
    made = TunnelRoute if flags & RTNH_F_ONLINK else DirectRoute
    return index, made(ip_network((raw, length)), ip_address(found[RTA_GATEWAY]))


def read_vxlan(rtnl: Rtnl, name: str) -> HeldVxlan | None:
    """The VXLAN part of the link of this name; None when it is gone or of another kind."""
    answer = rtnl._get(get_link(name))
    return parse_vxlan(answer) if isinstance(answer, bytes) else None


def find_vxlan(rtnl: Rtnl, vni: int, port: int) -> str | None:
    """The name of the link that holds this VNI on this port: one namespace has it once."""
    for body in rtnl.dump(get_links()):
        held = parse_vxlan(body)
        if held is not None and (held.vni, held.port) == (vni, port):
            return parse_link(body).name
    return None


def read_items(rtnl: Rtnl, index: int, families: Iterable[int], *, bridge: int = 0) -> set[Item]:
    """Forwarding entries and routes of a tunnel, and the neighbours on it, or on its bridge."""
    found: set[Item] = set()
    for body in rtnl.dump(get_neighbours(AF_BRIDGE, index)):
        link, entry = parse_neighbour(body)
        if link == index and (bridge or not isinstance(entry, Bridged)):
            _keep(found, entry)
    for version in families:
        for body in rtnl.dump(get_neighbours(FAMILIES[version], bridge or index)):
            link, entry = parse_neighbour(body)
            if link == (bridge or index):
                _keep(found, entry)
    return found | read_routes(rtnl, index, families)


def read_routes(rtnl: Rtnl, index: int, families: Iterable[int]) -> set[Item]:
    """Routes of ours through one link, by a gateway."""
    found: set[Item] = set()
    for version in families:
        for body in rtnl.dump(get_tunnel_routes(version, index)):
            link, route = parse_route(body)
            if link == index:
                _keep(found, route)
    return found


def _keep(found: set[Item], item: Item | None) -> None:
    if item is not None:
        found.add(item)


def send(rtnl: Rtnl, messages: Sequence[Message], tolerate: tuple[int, ...] = ()) -> None:
    """In pieces whose acknowledgements fit into the socket's buffer."""
    for start in range(0, len(messages), PIECE):
        rtnl.change(*messages[start : start + PIECE], tolerate=tolerate)


def read_addresses(rtnl: Rtnl) -> list[tuple[int, IPInterface]]:
    """(link, address) of every address of the namespace but link-local ones."""
    found = []
    for body in rtnl.dump(get_addresses(0)):
        address = parse_address(body).interface
        if not address.is_link_local and not address.is_loopback:
            found.append((struct.unpack_from("=I", body, 4)[0], address))
    return found


def link_at(rtnl: Rtnl, index: int) -> Link | None:
    """The link of this index."""
    answer = rtnl._get(Message(RTM_GETLINK, 0, _LINK.pack(0, 0, index, 0, 0), "link"))
    return parse_link(answer) if isinstance(answer, bytes) else None


def changed_link(kind: int, body: bytes) -> tuple[str, int]:
    """What a notification is about: (name of a link that changed, 0), or ("", index) of a link
    that lost a neighbour, a forwarding entry or a route. ("", 0) for what is of no interest."""
    if kind in (RTM_NEWLINK, RTM_DELLINK):
        family = body[0]
        return ("" if family == AF_BRIDGE else parse_link(body).name), 0
    if kind == RTM_DELNEIGH:
        return "", _NEIGHBOUR.unpack_from(body)[1]
    if kind == RTM_DELROUTE:
        found = attributes(body, _ROUTE.size)
        return "", struct.unpack("=I", found[RTA_OIF])[0] if RTA_OIF in found else 0
    return "", 0
