"""rtnetlink in one network namespace: links, addresses, routes, as plain values.

pyroute2 speaks the protocol; nothing else of netplug sees its messages. One `Rtnl`
belongs to one thread (pyroute2 keeps an event loop for each).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from netplug.errors import KernelRefused
from netplug.kernel.namespaces import netlink_socket
from netplug.model import ROUTE_PROTOCOL, IPAddress, IPInterface, Route

IFF_UP, IFF_PROMISC = 0x1, 0x100
IFA_F_NODAD, IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x02, 0x08, 0x40
RT_TABLE_MAIN, RTPROT_RA = 254, 9
BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 0x2, 0x4
GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL)


@dataclass(frozen=True, slots=True)
class Link:
    """One link as the kernel shows it; `hairpin` and `isolated` are None off a bridge."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    alias: str = ""
    master: int = 0
    promisc: bool = False
    operstate: str = "UNKNOWN"
    hairpin: bool | None = None
    isolated: bool | None = None
    vlan_filtering: bool = False


@dataclass(frozen=True, slots=True)
class HeldAddress:
    interface: IPInterface
    tentative: bool = False
    dad_failed: bool = False


@contextmanager
def refused(what: str, *, tolerate: tuple[int, ...] = ()) -> Iterator[None]:
    """Turns the kernel's refusal into KernelRefused that says what was tried."""
    try:
        yield
    except NetlinkError as error:
        if error.code in tolerate:
            return
        raise KernelRefused(what, os.strerror(error.code), errno=error.code) from error


class Rtnl:
    """Reads and changes the links, addresses and routes of the namespace behind `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._socket = netlink_socket(fd, socket.NETLINK_ROUTE)
        self._route = IPRoute(fileno=self._socket.fileno())

    def close(self) -> None:
        self._route.close()
        try:
            self._socket.detach()  # pyroute2 has closed the descriptor
        except OSError:
            pass

    # links

    def links(self) -> tuple[Link, ...]:
        with refused("the links cannot be listed"):
            return tuple(_parse_link(message) for message in self._route.get_links())

    def link(self, name: str) -> Link | None:
        """The link of this name, or None."""
        try:
            (message,) = self._route.link("get", ifname=name)
        except NetlinkError as error:
            if error.code == errno.ENODEV:
                return None
            raise KernelRefused(
                f"link {name} cannot be read", os.strerror(error.code), errno=error.code
            ) from error
        return _parse_link(message)

    def add_bridge(self, name: str, *, mac: str, mtu: int, vlan_filtering: bool) -> None:
        options: dict[str, Any] = {"br_vlan_filtering": 1} if vlan_filtering else {}
        if mtu:
            options["mtu"] = mtu
        with refused(f"bridge {name} cannot be created"):
            self._route.link("add", ifname=name, kind="bridge", address=mac, state="up", **options)

    def add_veth(
        self,
        name: str,
        *,
        mac: str,
        mtu: int,
        master: int | None,
        peer_name: str,
        peer_mac: str,
        peer_fd: int | None,
    ) -> None:
        """Both ends in one message, the peer born inside its namespace under its final name.

        Moving a link between namespaces later would wait 18-41 ms for RCU. The peer
        must not be up in this message: veth_open runs before the ends are tied (ENOTCONN).
        """
        peer: dict[str, Any] = {"ifname": peer_name, "address": peer_mac, "mtu": mtu}
        if peer_fd is not None:
            peer["net_ns_fd"] = peer_fd
        options: dict[str, Any] = {"master": master} if master else {}
        with refused(f"veth pair {name} - {peer_name} cannot be created"):
            self._route.link(
                "add",
                ifname=name,
                kind="veth",
                address=mac,
                mtu=mtu,
                state="up",
                peer=peer,
                **options,
            )

    def add_link(self, name: str, kind: str, **options: Any) -> None:
        with refused(f"{kind} link {name} cannot be created"):
            self._route.link("add", ifname=name, kind=kind, **options)

    def set_link(self, index: int, **options: Any) -> None:
        """Changes attributes: state, master, mtu, address, ifalias, flags and mask."""
        with refused(f"link {index} cannot be changed to {options}"):
            self._route.link("set", index=index, **options)

    def set_alias(self, index: int, alias: str) -> None:
        self.set_link(index, ifalias=alias)

    def set_promisc(self, index: int, on: bool) -> None:
        self.set_link(index, flags=IFF_PROMISC if on else 0, mask=IFF_PROMISC)

    def set_port(self, index: int, *, hairpin: bool, isolated: bool) -> None:
        """Bridge port flags IFLA_BRPORT_MODE (hairpin) and IFLA_BRPORT_ISOLATED."""
        with refused(f"bridge port {index} cannot be configured"):
            self._route.brport("set", index=index, mode=int(hairpin), isolated=int(isolated))

    def add_vlan(self, index: int, vid: int, *, untagged: bool) -> None:
        flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED if untagged else 0
        with refused(f"VLAN {vid} cannot be added to bridge port {index}"):
            self._route.vlan_filter("add", index=index, vlan_info={"vid": vid, "flags": flags})

    def delete_vlan(self, index: int, vid: int) -> None:
        with refused(f"VLAN {vid} cannot be removed from port {index}", tolerate=GONE):
            self._route.vlan_filter("del", index=index, vlan_info={"vid": vid})

    def delete_link(self, index: int) -> None:
        """Deletes a link; silent when it is gone."""
        with refused(f"link {index} cannot be deleted", tolerate=GONE):
            self._route.link("del", index=index)

    # addresses

    def addresses(self, index: int) -> tuple[HeldAddress, ...]:
        """Addresses of one link, link-local ones included."""
        with refused(f"addresses of link {index} cannot be read"):
            messages = self._route.get_addr(index=index)
        return tuple(_parse_address(message) for message in messages)

    def add_address(self, index: int, address: IPInterface, *, nodad: bool) -> bool:
        """Adds one address; False when the link has it already."""
        options: dict[str, Any] = {}
        if address.version == 6 and nodad:
            options["flags"] = IFA_F_NODAD
        if address.version == 4 and address.network.prefixlen < 31:
            options["broadcast"] = str(address.network.broadcast_address)
        try:
            self._route.addr(
                "add",
                index=index,
                address=str(address.ip),
                prefixlen=address.network.prefixlen,
                **options,
            )
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return False
            raise KernelRefused(
                f"address {address} cannot be added to link {index}",
                os.strerror(error.code),
                "is IPv6 disabled in this namespace?" if address.version == 6 else "",
                errno=error.code,
            ) from error
        return True

    def delete_address(self, index: int, address: IPInterface) -> None:
        with refused(f"address {address} cannot be removed", tolerate=GONE):
            self._route.addr(
                "del", index=index, address=str(address.ip), prefixlen=address.network.prefixlen
            )

    # routes

    def routes(self, index: int | None = None) -> tuple[Route, ...]:
        """Unicast routes of all tables, of one link when `index` is given."""
        found: list[Route] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            with refused("the routes cannot be read"):
                for message in self._route.get_routes(family=family):
                    route = _parse_route(message, index)
                    if route is not None:
                        found.append(route)
        return tuple(found)

    def add_route(self, index: int, route: Route) -> bool:
        """Appends one route, so that an earlier route to the same place stays first.

        False when the identical route is there already.
        """
        try:
            self._route.route("append", proto=ROUTE_PROTOCOL, oif=index, **_route_options(route))
        except NetlinkError as error:
            if error.code == errno.EEXIST:
                return False
            raise KernelRefused(
                f"route to {route.dst}{f' via {route.gw}' if route.gw else ''} cannot be added",
                os.strerror(error.code),
                "the gateway must be reachable through an address of this interface"
                if error.code in (errno.ENETUNREACH, errno.EHOSTUNREACH)
                else "",
                errno=error.code,
            ) from error
        return True

    def delete_route(self, index: int, route: Route) -> None:
        with refused(f"route to {route.dst} cannot be removed", tolerate=GONE):
            self._route.route("del", proto=ROUTE_PROTOCOL, oif=index, **_route_options(route))

    def default_interface(self) -> Link | None:
        """The link of the preferred default route, IPv4 first."""
        for family in (socket.AF_INET, socket.AF_INET6):
            best: tuple[int, int] | None = None
            for message in self._route.get_default_routes(family=family):
                oif = message.get_attr("RTA_OIF")
                metric = message.get_attr("RTA_PRIORITY") or 0
                if oif and (best is None or metric < best[0]):
                    best = (metric, oif)
            if best:
                for link in self.links():
                    if link.index == best[1]:
                        return link
        return None

    def ra_interfaces(self) -> tuple[str, ...]:
        """Names of links with routes learned from router advertisements (proto ra)."""
        indexes = {
            message.get_attr("RTA_OIF")
            for message in self._route.get_routes(family=socket.AF_INET6)
            if message["proto"] == RTPROT_RA
        }
        return tuple(sorted(link.name for link in self.links() if link.index in indexes))

    # traffic control

    def tc(self, command: str, kind: str, **options: Any) -> None:
        with refused(f"queueing discipline {kind} cannot be set up"):
            self._route.tc(command, kind, **options)

    def filter(self, command: str, kind: str, **options: Any) -> None:
        with refused(f"traffic filter {kind} cannot be set up"):
            self._route.tc(command, kind, **options)

    def qdiscs(self, index: int) -> tuple[Any, ...]:
        with refused(f"queueing disciplines of link {index} cannot be read"):
            return tuple(self._route.get_qdiscs(index=index))

    def filters(self, index: int, parent: int) -> tuple[Any, ...]:
        with refused(f"traffic filters of link {index} cannot be read"):
            return tuple(self._route.get_filters(index=index, parent=parent))


def _parse_link(message: Any) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = (info.get_attr("IFLA_INFO_KIND") if info else None) or ""
    slave = info.get_attr("IFLA_INFO_SLAVE_DATA") if info else None
    data = info.get_attr("IFLA_INFO_DATA") if info else None
    hairpin = isolated = None
    if slave is not None and (info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"):
        hairpin = bool(slave.get_attr("IFLA_BRPORT_MODE"))
        isolated = bool(slave.get_attr("IFLA_BRPORT_ISOLATED"))
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        alias=message.get_attr("IFLA_IFALIAS") or "",
        master=message.get_attr("IFLA_MASTER") or 0,
        promisc=bool(message["flags"] & IFF_PROMISC),
        operstate=message.get_attr("IFLA_OPERSTATE") or "UNKNOWN",
        hairpin=hairpin,
        isolated=isolated,
        vlan_filtering=bool(
            kind == "bridge" and data is not None and data.get_attr("IFLA_BR_VLAN_FILTERING")
        ),
    )


def _parse_address(message: Any) -> HeldAddress:
    text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
    flags = message.get_attr("IFA_FLAGS") or message["flags"]
    return HeldAddress(
        interface=ip_interface(f"{text}/{message['prefixlen']}"),
        tentative=bool(flags & IFA_F_TENTATIVE),
        dad_failed=bool(flags & IFA_F_DADFAILED),
    )


def _parse_route(message: Any, index: int | None) -> Route | None:
    if message["type"] != 1 or message["flags"] & 0x200:  # RTN_UNICAST; not RTM_F_CLONED
        return None
    if index is not None and message.get_attr("RTA_OIF") != index:
        return None
    version = 4 if message["family"] == socket.AF_INET else 6
    zero = "0.0.0.0" if version == 4 else "::"
    gateway = message.get_attr("RTA_GATEWAY")
    metrics = message.get_attr("RTA_METRICS")
    return Route(
        dst=ip_network(f"{message.get_attr('RTA_DST') or zero}/{message['dst_len']}"),
        gw=_as_address(gateway),
        mtu=metrics.get_attr("RTAX_MTU") if metrics else None,
        advmss=metrics.get_attr("RTAX_ADVMSS") if metrics else None,
        priority=message.get_attr("RTA_PRIORITY"),
        table=message.get_attr("RTA_TABLE") or message["table"],
        scope=message["scope"],
    )


def _as_address(text: str | None) -> IPAddress | None:
    return ip_address(text) if text else None


def _route_options(route: Route) -> dict[str, Any]:
    options: dict[str, Any] = {
        "dst": str(route.dst),
        "family": socket.AF_INET if route.dst.version == 4 else socket.AF_INET6,
        "table": route.table if route.table is not None else RT_TABLE_MAIN,
    }
    if route.gw is not None:
        options["gateway"] = str(route.gw)
    if route.priority:
        options["priority"] = route.priority
    if route.scope is not None:
        options["scope"] = route.scope
    elif route.gw is None and route.dst.version == 4:
        options["scope"] = 253  # link: what is reached without a gateway
    metrics = {k: v for k, v in (("mtu", route.mtu), ("advmss", route.advmss)) if v}
    if metrics:
        options["metrics"] = metrics
    return options
