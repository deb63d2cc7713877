"""DHCP messages: what we send, and what may be made of anything that comes."""

from __future__ import annotations

import struct
from contextlib import suppress
from ipaddress import IPv4Address, ip_interface, ip_network
from typing import Any

import pytest
from dhcp_servers import Asked
from hypothesis import given
from hypothesis import strategies as st

from netplug.dhcp import packet
from netplug.dhcp.packet import Malformed, Message, parse_answer, parse_terms
from netplug.errors import ConfigError
from netplug.ipam import parse_ipam, unknown_keys
from netplug.kernel.dhcpsocket import parse_packet, render_packet
from netplug.model import Dns, Route

MAC = "02:00:00:00:00:01"
MESSAGE = Message(packet.DISCOVER, 7, MAC, options=((packet.CLIENT_ID, b"\0web/lan/eth0"),))


def terms(more: dict[int, bytes | None] | None = None, address: str = "192.0.2.50") -> Any:
    answer = Asked(MESSAGE.pack()).answer(packet.ACK, address, more)
    return parse_terms(parse_answer(answer))


def test_what_we_send() -> None:
    """RFC 2131, figure 1; at least as long as relays want it."""
    data = Message(
        packet.REQUEST,
        0x01020304,
        MAC,
        address=IPv4Address("192.0.2.9"),
        seconds=70_000,
        broadcast=True,
        options=((packet.CLIENT_ID, b"x" * 300),),
    ).pack()
    assert len(data) >= 300 and data[:4] == bytes((1, 1, 6, 0))
    assert data[4:12] == b"\1\2\3\4\xff\xff\x80\0"
    assert data[12:16] == bytes((192, 0, 2, 9)) and data[28:34].hex(":") == MAC
    options = parse_answer(b"\2" + data[1:]).options
    assert options[packet.KIND] == b"\3" and options[packet.CLIENT_ID] == b"x" * 300


def test_a_frame_carries_the_message() -> None:
    frame = render_packet(b"message")
    assert frame[9] == 17 and frame[12:20] == bytes(4) + b"\xff" * 4
    words = struct.unpack("!10H", frame[:20])
    assert sum(words) % 0xFFFF == 0, "the header's checksum"
    assert parse_packet(frame) is None, "it goes to the server's port"
    back = bytearray(frame)
    back[20:24] = struct.pack("!HH", 67, 68)
    assert parse_packet(bytes(back)) == b"message"


def test_what_a_lease_says() -> None:
    found = terms(
        {
            packet.DNS_SERVERS: bytes((192, 0, 2, 53, 0, 0, 0, 0)),
            packet.DOMAIN: b"lab.example\0",
            packet.SEARCH: b"\3lab\7example\0\3www\xc0\4",
            packet.MTU: (1400).to_bytes(2, "big"),
            packet.T1: (100).to_bytes(4, "big"),
        }
    )
    assert found.address == ip_interface("192.0.2.50/24")
    assert (found.t1, found.t2, found.seconds) == (100, 3150, 3600)
    gateway = IPv4Address("192.0.2.1")
    assert found.lease.routes == (Route(ip_network("0.0.0.0/0"), gateway, mtu=1400),)
    search = ("lab.example", "www.example")
    assert found.lease.dns == Dns(("192.0.2.53",), "lab.example", search)


@pytest.mark.parametrize(
    ("t1", "t2", "kept"),
    [(0, 0, (1800, 3150)), (3500, 100, (57, 100)), (2000, 9999, (2000, 3150)), (9, 20, (9, 20))],
)
def test_times_out_of_order_are_put_right(t1: int, t2: int, kept: tuple[int, int]) -> None:
    found = terms({packet.T1: t1.to_bytes(4, "big"), packet.T2: t2.to_bytes(4, "big")})
    assert found.t1 < found.t2 < 3600
    assert (found.t1, found.t2) == kept


def test_a_lease_for_ever() -> None:
    assert terms({packet.LEASE_TIME: b"\xff" * 4}).seconds is None


@pytest.mark.parametrize(
    ("option", "routes"),
    [
        (b"\x18\xc6\x33\x64\xc0\x00\x02\x09", {"198.51.100.0/24": "192.0.2.9"}),
        (b"\0\xc0\0\2\7", {"0.0.0.0/0": "192.0.2.7"}),
        (b"\x18\xcb\0\x71\0\0\0\0", {"203.0.113.0/24": None}),
        # a router outside the subnet is reached on the link first
        (b"\0\x0a\0\0\1", {"10.0.0.1/32": None, "0.0.0.0/0": "10.0.0.1"}),
        (b"\x21\0\0\0\0\0\0\0\0\0", {"0.0.0.0/0": "192.0.2.1"}),  # malformed: option 3 serves
        (b"\x18\xc6", {"0.0.0.0/0": "192.0.2.1"}),
    ],
)
def test_classless_routes(option: bytes, routes: dict[str, str | None]) -> None:
    found = terms({packet.CLASSLESS_ROUTES: option}).lease.routes
    assert {str(r.dst): str(r.gw) if r.gw else None for r in found} == routes


@pytest.mark.parametrize(
    ("option", "names"),
    [
        (b"\xc0\0", ()),  # points at itself
        (b"\3lab", ()),
        (b"\3a b\0", ()),  # would be two words in resolv.conf
        (b"\3a\nb\2ok\0\2ok\0", ("ok",)),
        (b"\0\0\0", ()),
    ],
)
def test_odd_search_lists(option: bytes, names: tuple[str, ...]) -> None:
    assert terms({packet.SEARCH: option}).lease.dns.search == names


def test_options_may_lie_in_the_fields_of_names() -> None:
    """Option 52: `sname` and `file` hold options too (RFC 2132, 9.3)."""
    data = bytearray(Asked(MESSAGE.pack()).answer(packet.ACK, "192.0.2.50", {52: b"\3", 6: None}))
    data[44:51] = bytes((6, 4, 192, 0, 2, 1, 255))  # sname
    data[108:115] = bytes((6, 4, 192, 0, 2, 2, 255))  # file, which is read first
    found = parse_terms(parse_answer(bytes(data)))
    assert found.lease.dns.nameservers == ("192.0.2.2", "192.0.2.1")


@given(st.binary(max_size=600), st.booleans())
def test_anything_may_come(data: bytes, framed: bool) -> None:
    """Whatever comes is a lease that one can live with, or Malformed."""
    if framed:
        head = bytearray(MESSAGE.pack()[:236])
        head[0] = 2
        head[16:20] = bytes((192, 0, 2, 50))
        data = bytes(head) + packet.COOKIE + data
    parse_packet(data)
    with suppress(Malformed):
        found = parse_terms(parse_answer(data))
        assert not found.address.ip.is_multicast
        assert 0 < found.t1 < found.t2


def test_the_keys_of_the_client() -> None:
    section = {
        "type": "netplug-dhcp",
        "provide": [
            {"option": "user-class", "value": "lab"},
            {"option": "60", "fromArg": "K8S_POD_NAME"},
        ],
        "request": [{"option": 42}, {"skipDefault": True}],
        "priority": 5,
        "timeout": 3,
    }
    found = parse_ipam(section)
    assert not unknown_keys(section) and not found.foreign
    dhcp = found.dhcp
    assert dhcp is not None and dhcp.skip_defaults and dhcp.request == (42,)
    assert [(p.option, p.value) for p in dhcp.provide] == [(77, "lab"), (60, "")]
    assert (dhcp.priority, dhcp.seconds) == (5, 3.0)
    slip = unknown_keys({"type": "netplug-dhcp", "provied": []})
    assert [key.suggestion for key in slip] == ["provide"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"provide": "x"},
        {"provide": [{"option": "53", "value": "x"}]},
        {"provide": [{"option": "user-class"}]},
        {"provide": [{"option": "user-class", "fromArg": "SECRET"}]},
        {"request": [{"option": "no-such-option"}]},
        {"request": [{"option": 256}]},
        {"timeout": 61},
        {"timeout": "9"},
        {"broadcast": "yes"},
        {"hostname": 9},
    ],
)
def test_wrong_keys_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"ipam.{next(iter(wrong))}"):
        parse_ipam({"type": "netplug-dhcp", **wrong})
