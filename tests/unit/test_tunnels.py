"""Messages of tunnels packed by hand, read back by pyroute2's decoder and by our own."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from netplug.kernel import tunnels as tn
from netplug.kernel.netlink import HEADER
from netplug.kernel.rtmessages import Message

MAC = "02:00:00:00:00:01"


def decode(kind: type[Any], message: Message) -> Any:
    data = HEADER.pack(16 + len(message.body), message.kind, message.flags | 1, 7, 0)
    found = kind(data + message.body)
    found.decode()
    return found


@pytest.mark.parametrize("local", ["192.0.2.1", "2001:db8::1"])
def test_vxlan(local: str) -> None:
    address = ip_address(local)
    message = tn.new_vxlan("vx0", vni=77, local=address, port=4789, mac=MAC, mtu=1450)
    link = decode(ifinfmsg, message)
    info = link.get_attr("IFLA_LINKINFO")
    data = info.get_attr("IFLA_INFO_DATA")
    family = "" if address.version == 4 else "6"
    assert info.get_attr("IFLA_INFO_KIND") == "vxlan"
    assert data.get_attr("IFLA_VXLAN_ID") == 77
    assert data.get_attr("IFLA_VXLAN_PORT") == 4789
    assert data.get_attr(f"IFLA_VXLAN_LOCAL{family}") == local
    assert data.get_attr("IFLA_VXLAN_LEARNING") == 0
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_ADDRESS")) == (1450, MAC)
    held = tn.parse_vxlan(message.body)
    assert held == tn.HeldVxlan(77, 4789, address, learning=False)


@pytest.mark.parametrize(
    "item",
    [
        tn.Neighbour(ip_address("10.1.0.0"), MAC),
        tn.Neighbour(ip_address("fd00::"), MAC),
        tn.Forward(MAC, ip_address("192.0.2.1")),
        tn.Forward(MAC, ip_address("2001:db8::1")),
        tn.Bridged(MAC),
    ],
    ids=str,
)
def test_neighbours(item: tn.Neighbour | tn.Forward | tn.Bridged) -> None:
    message = tn.add(5, item)
    found = decode(ndmsg, message)
    assert found["ifindex"] == 5
    assert found.get_attr("NDA_LLADDR") == MAC
    via = getattr(item, "via", None) or getattr(item, "address", None)
    assert found.get_attr("NDA_DST") == (str(via) if via else None)
    assert tn.parse_neighbour(message.body) == (5, item)
    assert tn.parse_neighbour(tn.remove(5, item).body) == (5, item)


@pytest.mark.parametrize(
    "item",
    [
        tn.TunnelRoute(ip_network("10.1.0.0/24"), ip_address("10.1.0.0")),
        tn.TunnelRoute(ip_network("fd00:1::/64"), ip_address("fd00:1::")),
        tn.DirectRoute(ip_network("10.1.0.0/24"), ip_address("192.0.2.1")),
    ],
    ids=str,
)
def test_routes(item: tn.TunnelRoute | tn.DirectRoute) -> None:
    message = tn.add(5, item)
    found = decode(rtmsg, message)
    gateway = getattr(item, "gateway", None) or getattr(item, "via", None)
    assert found.get_attr("RTA_GATEWAY") == str(gateway)
    assert found.get_attr("RTA_DST") == str(item.subnet.network_address)
    assert (found["dst_len"], found.get_attr("RTA_OIF")) == (item.subnet.prefixlen, 5)
    assert bool(found["flags"] & 4) == isinstance(item, tn.TunnelRoute)
    assert tn.parse_route(message.body) == (5, item)


def test_a_port_that_suppresses() -> None:
    link = decode(ifinfmsg, tn.set_suppression("vx0"))
    port = link.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_SLAVE_DATA")
    assert port.get_attr("IFLA_BRPORT_NEIGH_SUPPRESS") == 1
    for name in ("LEARNING", "UNICAST_FLOOD", "MCAST_FLOOD", "BCAST_FLOOD"):
        assert port.get_attr(f"IFLA_BRPORT_{name}") == 0, name
