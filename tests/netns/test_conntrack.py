"""Forgetting flows, on a real kernel with real datagrams."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from firewall_world import ANY, HOST, ONE, OUT, World, apply, build_world, echo, network, udp_socket

from netplug.firewall.intent import Mapping
from netplug.firewall.nft import NftFirewall
from netplug.kernel.conntrack import flush_udp, read_flows
from netplug.kernel.nfnetlink import Nfnetlink
from netplug.model import Family


@pytest.fixture
def world(host: Any) -> Iterator[World]:
    """A masquerading host: what makes the kernel track flows at all."""
    made = build_world(host)
    firewall = NftFirewall(host.fd)
    apply(firewall, *network())
    yield made
    firewall.close()


def ports(world: World, family: Family) -> list[int]:
    with Nfnetlink(world.host.fd) as link:
        return sorted(flow.port for flow in read_flows(link, family, "udp"))


@pytest.mark.parametrize("family", [4, 6])
def test_only_stale_flows_to_the_port_are_forgotten(world: World, family: Family) -> None:
    any_, mapping = ANY[family], Mapping("udp", 5353, ip_address(ONE[family]), 53)
    with (
        udp_socket(world.out, any_) as client,
        udp_socket(world.host, any_, 5353) as stale,
        udp_socket(world.host, any_, 5354) as other,
        udp_socket(world.one, any_) as inside,
        udp_socket(world.out, any_, 5353) as far,
    ):
        assert echo(client, (HOST[family], 5353), stale)
        assert echo(client, (HOST[family], 5354), other)
        assert echo(inside, (OUT[family], 5353), far) == HOST[family]
        assert ports(world, family) == [5353, 5353, 5354]
        assert flush_udp(world.host.fd, family, [mapping], gone=True) == 0
        assert flush_udp(world.host.fd, family, [mapping], gone=False) == 1
        assert ports(world, family) == [5353, 5354]  # masqueraded to elsewhere: not ours to cut
        assert flush_udp(world.host.fd, family, [mapping], gone=False) == 0


def test_the_host_address_decides(world: World) -> None:
    elsewhere = Mapping("udp", 5353, ip_address(ONE[4]), 53, ip_address("192.0.2.10"))
    here = Mapping("udp", 5353, ip_address(ONE[4]), 53, ip_address(HOST[4]))
    with (
        udp_socket(world.out, ANY[4]) as client,
        udp_socket(world.host, ANY[4], 5353) as stale,
    ):
        assert echo(client, (HOST[4], 5353), stale)
        assert flush_udp(world.host.fd, 4, [elsewhere], gone=False) == 0
        assert flush_udp(world.host.fd, 4, [here], gone=False) == 1


def test_tcp_is_left_alone(world: World) -> None:
    assert flush_udp(world.host.fd, 4, [Mapping("tcp", 80, ip_address(ONE[4]), 80)], gone=True) == 0
