"""The state of a network namespace as plain values, in more detail than an ADD needs.

For labs and whoever explains: pyroute2 decodes, names instead of indexes.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from netplug.kernel.namespaces import netlink_socket

if TYPE_CHECKING:
    from pyroute2 import IPRoute

AF_BRIDGE = 7
IFF_UP = 0x1
KINDS = {1: "unicast", 2: "local", 3: "broadcast", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
RULES = {1: "lookup", 6: "blackhole", 7: "unreachable", 8: "prohibit"}
PORT_STATES = ("disabled", "listening", "learning", "forwarding", "blocking")
MACVLAN_MODES = {1: "private", 2: "vepa", 4: "bridge", 8: "passthru", 16: "source"}
RT_TABLE_MAIN, RT_TABLE_LOCAL = 254, 255
NUD_PERMANENT, NUD_NOARP, NUD_FAILED, NUD_INCOMPLETE = 0x80, 0x40, 0x20, 0x01


@dataclass(frozen=True, slots=True)
class LinkState:
    """A link; `master`, `parent` are names, counters are packets."""

    name: str
    index: int
    kind: str
    mac: str
    mtu: int
    up: bool
    carrier: bool
    operstate: str = "UNKNOWN"
    master: str = ""
    parent: str = ""
    peer_index: int = 0
    port_state: str = ""
    hairpin: bool = False
    isolated: bool = False
    stp: bool = False
    mode: str = ""  # of a macvlan
    limited: bool = False  # by a token bucket
    vni: int | None = None
    local: str = ""
    remote: str = ""
    port: int | None = None
    learning: bool = True
    received: int = 0
    sent: int = 0
    received_dropped: int = 0


@dataclass(frozen=True, slots=True)
class RouteState:
    """A route; `kind` is unicast, blackhole, ...; `via` and `device` may be empty."""

    destination: str  # a network, "default"
    via: str
    device: str
    kind: str
    table: int
    metric: int
    source: str = ""


@dataclass(frozen=True, slots=True)
class RuleState:
    priority: int
    action: str
    source: str
    destination: str
    table: int


@dataclass(frozen=True, slots=True)
class NeighbourState:
    """Who has an address (`address` -> `mac`), or where a MAC is (`device`, `remote`: fdb)."""

    device: str
    mac: str
    address: str = ""
    remote: str = ""
    permanent: bool = False
    failed: bool = False


@contextmanager
def _netlink(fd: int) -> Iterator[IPRoute]:
    from pyroute2 import IPRoute  # late: 90 ms, and who starts a lab reads nothing

    with netlink_socket(fd, socket.NETLINK_ROUTE) as plain:
        route = IPRoute(fileno=plain.detach())
        try:
            yield route
        finally:
            route.close()


def read_links(fd: int) -> dict[str, LinkState]:
    """Every link by name."""
    with _netlink(fd) as route:
        messages = list(route.get_links())
        names = {m["index"]: m.get("IFLA_IFNAME") for m in messages}
        return {names[m["index"]]: _link(m, names) for m in messages}


def _link(message: Any, names: dict[int, str]) -> LinkState:
    info = message.get("IFLA_LINKINFO")
    kind = (info.get("IFLA_INFO_KIND") if info else None) or ""
    data = info.get("IFLA_INFO_DATA") if info else None
    port = info.get("IFLA_INFO_SLAVE_DATA") if info else None
    link = message.get("IFLA_LINK") or 0
    counters = message.get("IFLA_STATS64") or message.get("IFLA_STATS") or {}

    def detail(key: str) -> Any:
        return data.get(key) if data is not None and hasattr(data, "get") else None

    def of_port(key: str) -> Any:
        return port.get(key) if port is not None and hasattr(port, "get") else None

    return LinkState(
        name=message.get("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        mac=message.get("IFLA_ADDRESS") or "",
        mtu=message.get("IFLA_MTU") or 0,
        up=bool(message["flags"] & IFF_UP),
        carrier=bool(message.get("IFLA_CARRIER")),
        operstate=message.get("IFLA_OPERSTATE") or "UNKNOWN",
        master=names.get(message.get("IFLA_MASTER") or 0, ""),
        parent=names.get(link, "") if kind in ("macvlan", "ipvlan", "vlan", "vxlan") else "",
        peer_index=link if kind == "veth" else 0,
        port_state=_port_state(of_port("IFLA_BRPORT_STATE")),
        hairpin=bool(of_port("IFLA_BRPORT_MODE")),
        isolated=bool(of_port("IFLA_BRPORT_ISOLATED")),
        stp=bool(detail("IFLA_BR_STP_STATE")),
        limited=message.get("IFLA_QDISC") == "tbf",
        mode=MACVLAN_MODES.get(_number(detail("IFLA_MACVLAN_MODE")), ""),
        vni=detail("IFLA_VXLAN_ID"),
        local=detail("IFLA_VXLAN_LOCAL") or "",
        remote=detail("IFLA_VXLAN_GROUP") or "",
        port=detail("IFLA_VXLAN_PORT"),
        learning=bool(detail("IFLA_VXLAN_LEARNING")),
        received=counters.get("rx_packets", 0),
        sent=counters.get("tx_packets", 0),
        received_dropped=counters.get("rx_dropped", 0),
    )


def _number(value: Any) -> int:
    if isinstance(value, str):
        return next((n for n, name in MACVLAN_MODES.items() if name == value), 0)
    return int(value or 0)


def _port_state(value: int | None) -> str:
    return "" if value is None else PORT_STATES[value] if value < len(PORT_STATES) else str(value)


def read_addresses(fd: int) -> dict[str, list[str]]:
    """Addresses with prefix length, by link."""
    with _netlink(fd) as route:
        names = {m["index"]: m.get("IFLA_IFNAME") for m in route.get_links()}
        found: dict[str, list[str]] = {name: [] for name in names.values()}
        for message in route.get_addr():
            address = message.get("IFA_LOCAL") or message.get("IFA_ADDRESS")
            name = names.get(message["index"])
            if name is not None:
                found[name].append(f"{address}/{message['prefixlen']}")
        return found


def read_routes(fd: int) -> list[RouteState]:
    """Routes of all tables but `local`, both families."""
    with _netlink(fd) as route:
        names = {m["index"]: m.get("IFLA_IFNAME") for m in route.get_links()}
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in route.get_routes(family=family):
                table = message.get("RTA_TABLE") or message["table"]
                if table == RT_TABLE_LOCAL or message["flags"] & 0x200:  # RTM_F_CLONED
                    continue
                target = message.get("RTA_DST")
                found.append(
                    RouteState(
                        f"{target}/{message['dst_len']}" if target else "default",
                        message.get("RTA_GATEWAY") or "",
                        names.get(message.get("RTA_OIF") or 0, ""),
                        KINDS.get(message["type"], str(message["type"])),
                        table,
                        message.get("RTA_PRIORITY") or 0,
                        message.get("RTA_PREFSRC") or "",
                    )
                )
        return found


def read_rules(fd: int) -> list[RuleState]:
    """IPv4 policy rules, in the order in which the kernel asks them."""
    with _netlink(fd) as route:
        found = []
        for message in route.get_rules(family=socket.AF_INET):
            source, target = message.get("FRA_SRC"), message.get("FRA_DST")
            found.append(
                RuleState(
                    message.get("FRA_PRIORITY") or 0,
                    RULES.get(message["action"], str(message["action"])),
                    f"{source}/{message['src_len']}" if source else "all",
                    f"{target}/{message['dst_len']}" if target else "all",
                    message.get("FRA_TABLE") or message["table"],
                )
            )
        return sorted(found, key=lambda rule: rule.priority)


def read_neighbours(fd: int) -> list[NeighbourState]:
    """The neighbour table (ARP and NDP) of all links."""
    with _netlink(fd) as route:
        names = {m["index"]: m.get("IFLA_IFNAME") for m in route.get_links()}
        return [
            NeighbourState(
                names.get(message["ifindex"], ""),
                message.get("NDA_LLADDR") or "",
                address=message.get("NDA_DST") or "",
                permanent=bool(message["state"] & NUD_PERMANENT),
                failed=bool(message["state"] & (NUD_FAILED | NUD_INCOMPLETE)),
            )
            for family in (socket.AF_INET, socket.AF_INET6)
            for message in route.get_neighbours(family=family)
            if not message["state"] & NUD_NOARP
        ]


def read_fdb(fd: int) -> list[NeighbourState]:
    """Forwarding entries of bridges and VXLAN devices."""
    with _netlink(fd) as route:
        names = {m["index"]: m.get("IFLA_IFNAME") for m in route.get_links()}
        return [
            NeighbourState(
                names.get(message["ifindex"], ""),
                message.get("NDA_LLADDR") or "",
                remote=message.get("NDA_DST") or "",
                permanent=bool(message["state"] & (NUD_PERMANENT | NUD_NOARP)),
            )
            for message in route.get_neighbours(family=AF_BRIDGE)
        ]
