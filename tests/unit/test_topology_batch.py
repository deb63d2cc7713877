"""Packed requests, read back by pyroute2's decoder."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any

import pytest
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from netplug.kernel import batch
from netplug.kernel.netlink import NLM_F_ACK, NLM_F_REQUEST, NLMSGERR_ATTR_MSG, Refusal


def decoded(kind: Any, request: batch.Request) -> Any:
    message = kind(request.data)
    message.decode()
    assert message["header"]["length"] == len(request.data)
    assert message["header"]["flags"] & (NLM_F_REQUEST | NLM_F_ACK)
    return message


def test_veth() -> None:
    near = batch.VethEnd("web-eth0", 22, 1400, mac="02:00:00:00:00:01", master=21)
    far = batch.VethEnd("eth0", 23, 1400, mac="02:00:00:00:00:02", namespace=9)
    message = decoded(ifinfmsg, batch.new_veth(near, far, up=True))
    assert (message["index"], message["flags"], message["change"]) == (22, 1, 1)
    assert message.get_attr("IFLA_IFNAME") == "web-eth0"
    assert message.get_attr("IFLA_MASTER") == 21
    assert message.get_attr("IFLA_MTU") == 1400
    info = message.get_attr("IFLA_LINKINFO")
    assert info.get_attr("IFLA_INFO_KIND") == "veth"
    peer = info.get_attr("IFLA_INFO_DATA").get_attr("VETH_INFO_PEER")
    assert (peer["index"], peer["flags"]) == (23, 0), "a peer that is up fails the request"
    assert peer.get_attr("IFLA_IFNAME") == "eth0"
    assert peer.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:02"
    assert peer.get_attr("IFLA_NET_NS_FD") == 9
    message = decoded(ifinfmsg, batch.new_veth(near, far, up=False))
    assert (message["flags"], message["change"]) == (0, 0)


def test_addresses_and_routes() -> None:
    message = decoded(ifaddrmsg, batch.new_address(23, ip_interface("10.0.0.2/24")))
    assert (message["family"], message["prefixlen"], message["index"]) == (2, 24, 23)
    assert message.get_attr("IFA_BROADCAST") == "10.0.0.255"
    message = decoded(ifaddrmsg, batch.new_address(23, ip_interface("10.0.0.2/31")))
    assert message.get_attr("IFA_BROADCAST") is None
    message = decoded(ifaddrmsg, batch.new_address(23, ip_interface("fd00::2/64")))
    assert (message["family"], message["flags"]) == (10, batch.IFA_F_NODAD)
    route = batch.new_route(ip_network("10.9.0.0/16"), ip_address("10.0.0.1"))
    message = decoded(rtmsg, route)
    assert (message["dst_len"], message.get_attr("RTA_DST")) == (16, "10.9.0.0")
    message = decoded(rtmsg, batch.new_route(ip_network("::/0"), ip_address("fd00::1")))
    assert (message["family"], message["dst_len"]) == (10, 0)
    assert message.get_attr("RTA_GATEWAY") == "fd00::1"


def test_loss() -> None:
    message = decoded(tcmsg, batch.new_loss(23, name="eth0", percent=2.0))
    assert message.get_attr("TCA_KIND") == "netem"
    assert message["parent"] == batch.TC_H_ROOT
    options = next(value for name, value in message["attrs"] if name == "TCA_OPTIONS")
    assert options["loss"] == pytest.approx(0.02 * 2**32, rel=1e-6)


def test_an_answer_is_read_with_its_explanation() -> None:
    text = b"Device does not exist\0"
    attribute = struct.pack("=HH", 4 + len(text), NLMSGERR_ATTR_MSG) + text
    body = struct.pack("=i", -19) + bytes(16) + attribute
    header = struct.pack("=IHHII", 16 + len(body), 2, 0x300, 7, 0)
    padding = bytes(-len(body) & 3)
    success = struct.pack("=IHHII", 36, 2, 0x100, 8, 0) + bytes(20)
    answers = dict(batch._parse_answers(header + body + padding + success))
    assert answers == {7: Refusal(-1, 19, "Device does not exist"), 8: None}
