"""rtnetlink messages packed by hand, read back by pyroute2's decoder."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from netplug.kernel import rtmessages as rt
from netplug.kernel import tcmessages as tc
from netplug.kernel.netlink import HEADER
from netplug.kernel.rtmessages import Message
from netplug.model import Route


def decode(kind: type[Any], message: Message) -> Any:
    """What pyroute2 reads in the message."""
    data = HEADER.pack(16 + len(message.body), message.kind, message.flags | 1, 7, 0)
    found = kind(data + message.body)
    found.decode()
    return found


def test_veth() -> None:
    message = rt.new_veth(
        rt.VethEnd("veth0", "02:00:00:00:00:01"),
        rt.VethEnd("eth0", "02:00:00:00:00:02"),
        mtu=1400,
        master=5,
        peer_fd=9,
    )
    link = decode(ifinfmsg, message)
    assert link["flags"] & 1
    assert link.get_attr("IFLA_IFNAME") == "veth0"
    assert link.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    assert (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_MASTER")) == (1400, 5)
    info = link.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert not peer["flags"] & 1, "an end that is up before both are tied is refused"
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:02"
    assert (peer.get_attr("IFLA_MTU"), peer.get_attr("IFLA_NET_NS_FD")) == (1400, 9)


@pytest.mark.parametrize("vlan_filtering", [False, True])
def test_bridge(vlan_filtering: bool) -> None:
    message = rt.new_bridge("br0", mac="02:00:00:00:00:03", mtu=0, vlan_filtering=vlan_filtering)
    link = decode(ifinfmsg, message)
    assert link.get_attr("IFLA_MTU") is None
    info = link.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "bridge"
    data = info.get_attr("IFLA_INFO_DATA")
    assert (data is not None and data.get_attr("IFLA_BR_VLAN_FILTERING") == 1) == vlan_filtering


def test_alias_and_port() -> None:
    link = decode(ifinfmsg, rt.set_alias("veth0", "netplug/a/b/c"))
    assert (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_IFALIAS")) == (
        "veth0",
        "netplug/a/b/c",
    )
    info = decode(ifinfmsg, rt.set_port("veth0", hairpin=True, isolated=False)).get_attr(
        "IFLA_LINKINFO"
    )
    assert info.get_attr("IFLA_INFO_SLAVE_KIND") == "bridge"
    port = info.get_attr("IFLA_INFO_SLAVE_DATA")
    assert (port.get_attr("IFLA_BRPORT_MODE"), port.get_attr("IFLA_BRPORT_ISOLATED")) == (1, 0)


def test_a_link_as_pyroute2_packs_it() -> None:
    """Our reader against its encoder."""
    packed = ifinfmsg()
    packed["index"], packed["flags"] = 3, 0x1 | 0x100
    packed["attrs"] = [
        ("IFLA_IFNAME", "veth0"),
        ("IFLA_ADDRESS", "02:00:00:00:00:01"),
        ("IFLA_MTU", 1400),
        ("IFLA_MASTER", 5),
        ("IFLA_IFALIAS", "netplug/x"),
        ("IFLA_OPERSTATE", "UP"),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth")]}),
    ]
    packed.encode()
    link = rt.parse_link(bytes(packed.data[16:]))
    assert (link.name, link.index, link.kind, link.mtu) == ("veth0", 3, "veth", 1400)
    assert (link.mac, link.master, link.alias) == ("02:00:00:00:00:01", 5, "netplug/x")
    assert (link.up, link.promisc, link.operstate) == (True, True, "UP")
    assert (link.hairpin, link.isolated) == (None, None)


@pytest.mark.parametrize("text", ["10.1.0.5/24", "10.1.0.5/31", "fd00::5/64", "fd00::5/128"])
def test_address(text: str) -> None:
    address = ip_interface(text)
    found = decode(ifaddrmsg, rt.new_address(4, address, nodad=True))
    assert (found["index"], found["prefixlen"]) == (4, address.network.prefixlen)
    assert found.get_attr("IFA_LOCAL") == found.get_attr("IFA_ADDRESS") == str(address.ip)
    broadcast = "10.1.0.255" if text == "10.1.0.5/24" else None
    assert found.get_attr("IFA_BROADCAST") == broadcast
    assert found.get_attr("IFA_FLAGS") == (rt.IFA_F_NODAD if address.version == 6 else None)
    assert rt.parse_address(rt.new_address(4, address, nodad=False).body).interface == address


ROUTES = [
    Route(ip_network("0.0.0.0/0"), ip_address("10.1.0.1")),
    Route(ip_network("10.2.0.0/16")),
    Route(ip_network("::/0"), ip_address("fd00::1"), priority=50),
    Route(ip_network("10.3.0.0/16"), ip_address("10.1.0.9"), mtu=1300, advmss=1200, table=1000),
    Route(ip_network("10.4.0.0/16"), scope=254, table=100),
]


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_route(route: Route) -> None:
    message = rt.new_route(7, route)
    found = decode(rtmsg, message)
    assert found["dst_len"] == route.dst.prefixlen
    assert (found["proto"], found.get_attr("RTA_OIF")) == (110, 7)
    assert found.get_attr("RTA_TABLE") == (route.table or 254)
    assert found.get_attr("RTA_GATEWAY") == (str(route.gw) if route.gw else None)
    assert found.get_attr("RTA_PRIORITY") == route.priority
    metrics = found.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU") if metrics else None) == route.mtu
    assert (metrics.get_attr("RTAX_ADVMSS") if metrics else None) == route.advmss
    if route.scope is None:
        assert found["scope"] == (253 if route.gw is None else 0)
    (held,) = rt.parse_routes(message.body)
    assert (held.route.dst, held.route.gw, held.oif) == (route.dst, route.gw, 7)
    assert (held.route.mtu, held.route.advmss) == (route.mtu, route.advmss)


def test_token_bucket() -> None:
    found = decode(tcmsg, tc.set_tbf(3, rate=1_250_000, burst=12_500, limit=43_750))
    assert (found["index"], found["handle"], found["parent"]) == (3, 0x10000, 0xFFFFFFFF)
    assert found.get_attr("TCA_KIND") == "tbf"
    parameters = found.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
    assert (parameters["rate"], parameters["limit"]) == (1_250_000, 43_750)
    assert parameters["buffer"] == 156_250  # 10 ms in ticks of 64 ns
    assert tc.parse_qdisc(tc.set_tbf(3, rate=1_250_000, burst=12_500, limit=1).body) == (
        3,
        "tbf",
        1_250_000,
    )


def test_rates_beyond_32_bits() -> None:
    rate = 5 * 2**32
    assert tc.parse_qdisc(tc.set_tbf(3, rate=rate, burst=2**20, limit=2**30).body)[2] == rate


def test_redirection() -> None:
    found = decode(tcmsg, tc.new_redirect(3, 9))
    assert (found["parent"], found["info"]) == (0xFFFF0000, 1 << 16 | 0x0300)
    options = found.get_attr("TCA_OPTIONS")
    assert options.get_attr("TCA_U32_SEL")["nkeys"] == 1
    (_, action), *rest = options.get_attr("TCA_U32_ACT")["attrs"]
    assert not rest
    assert action.get_attr("TCA_ACT_KIND") == "mirred"
    parameters = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
    assert (parameters["eaction"], parameters["action"], parameters["ifindex"]) == (1, 4, 9)


def test_ingress() -> None:
    found = decode(tcmsg, tc.new_ingress(3))
    assert (found["handle"], found["parent"]) == (0xFFFF0000, 0xFFFFFFF1)
    assert found.get_attr("TCA_KIND") == "ingress"


def test_a_body_is_whole_attributes() -> None:
    """Each message's attributes fill it to the last byte, padding included."""
    message = rt.set_alias("veth0", "abc")
    offset = 16
    while offset < len(message.body):
        (length,) = struct.unpack_from("=H", message.body, offset)
        offset += (length + 3) & ~3
    assert offset == len(message.body)
