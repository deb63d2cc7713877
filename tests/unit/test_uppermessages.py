"""Messages for links on top of others, read back by pyroute2's decoder, and by our own."""

from __future__ import annotations

from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netplug.kernel import rtmessages as rt
from netplug.kernel.netlink import HEADER
from netplug.kernel.rtmessages import Message
from netplug.kernel.uppermessages import Kind, move_link, new_upper, read_kind

MACS = ("02:00:00:00:00:21", "02:00:00:00:00:22")


def decode(message: Message) -> Any:
    data = HEADER.pack(16 + len(message.body), message.kind, message.flags | 1, 7, 0)
    found = ifinfmsg(data + message.body)
    found.decode()
    return found


def make(kind: Kind, **more: Any) -> Message:
    wanted = {"parent": 5, "mac": "02:00:00:00:00:01", "mtu": 1400, "fd": 9, **more}
    return new_upper("eth0", kind, **wanted)


def test_what_all_kinds_have() -> None:
    message = make(Kind("macvlan", "bridge"), index=77)
    link = decode(message)
    assert link["index"] == 77 and not link["flags"] & 1, "born down"
    assert link.get_attr("IFLA_IFNAME") == "eth0"
    assert link.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:01"
    names = ("IFLA_LINK", "IFLA_MTU", "IFLA_NET_NS_FD")
    assert [link.get_attr(name) for name in names] == [5, 1400, 9]
    bare = decode(make(Kind("dummy"), parent=0, mac="", mtu=0, fd=None))
    assert not [name for name in (*names, "IFLA_ADDRESS") if bare.get_attr(name) is not None]


@pytest.mark.parametrize("mode", ["private", "vepa", "bridge", "passthru", "source"])
def test_macvlan(mode: str) -> None:
    kind = Kind("macvlan", mode, queue=2000, sources=MACS if mode == "source" else ())
    message = make(kind)
    info = decode(message).get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "macvlan"
    data = info.get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_MACVLAN_MODE") == mode
    if mode == "source":
        assert data.get_attr("IFLA_MACVLAN_MACADDR_MODE") == "set"
        listed = data.get_attr("IFLA_MACVLAN_MACADDR_DATA").get_attrs("IFLA_MACVLAN_MACADDR")
        assert tuple(listed) == MACS
    assert read_kind(rt.parse_link(message.body)) == kind


@pytest.mark.parametrize("mode", ["l2", "l3", "l3s"])
def test_ipvlan(mode: str) -> None:
    kind = Kind("ipvlan", mode)
    message = make(kind, mac="")
    data = decode(message).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_IPVLAN_MODE") == ["l2", "l3", "l3s"].index(mode)
    assert read_kind(rt.parse_link(message.body)) == kind


def test_vlan() -> None:
    kind = Kind("vlan", vlan=4094)
    message = make(kind)
    data = decode(message).get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_DATA")
    assert data.get_attr("IFLA_VLAN_ID") == 4094
    assert read_kind(rt.parse_link(message.body)) == kind


def test_moving_and_renaming() -> None:
    link = decode(move_link(5, "eth0", 9, "netplug/a/b/c:ens5"))
    assert (link["index"], link["change"], link["flags"]) == (5, 1, 0)
    assert (link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_NET_NS_FD")) == ("eth0", 9)
    assert link.get_attr("IFLA_IFALIAS") == "netplug/a/b/c:ens5"
    link = decode(rt.rename_link(5, "ens5", ""))
    assert (link["change"], link.get_attr("IFLA_IFNAME")) == (1, "ens5")
    assert link.get_attr("IFLA_IFALIAS") == ""
