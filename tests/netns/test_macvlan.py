"""macvlan: traffic, every key, the host's way to its containers, and what happens to the parent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from attaching import Site, driver_network, dump

from netplug.model import Network

if TYPE_CHECKING:
    from conftest import Host

LAN = {"subnet": "192.0.2.0/24", "rangeStart": "192.0.2.100", "rangeEnd": "192.0.2.150"}
LAN6 = {"subnet": "2001:db8:1::/64", "rangeStart": "2001:db8:1::100"}


@pytest.fixture
def router(host: Host) -> Host:
    """The LAN beyond the host's uplink eth1: a neighbour with an address in it."""
    lan = host.container("router")
    host.run(
        f"ip link add eth1 address 02:00:00:00:00:0a type veth"
        f" peer name lan0 netns {lan.name} && ip link set eth1 up"
    )
    host.run("ip addr add 192.0.2.10/24 dev eth1 && ip addr add 2001:db8:1::10/64 dev eth1 nodad")
    lan.run("ip link set lan0 up && ip addr add 192.0.2.1/24 dev lan0")
    lan.run("ip addr add 2001:db8:1::1/64 dev lan0 nodad")
    host.run("ip route add default via 192.0.2.1")
    return lan


def network_of(*ranges: dict[str, Any], **keys: Any) -> Network:
    return driver_network("macvlan", ipam=list(ranges or (LAN,)), **keys)


def reaches(one: Host, address: str) -> bool:
    return "1 received" in one.run(f"ping -c 1 -W 2 {address} || ping -c 1 -W 2 {address}", False)


def test_containers_are_on_the_lan(host: Host, router: Host) -> None:
    site, network = Site(host), network_of(LAN, LAN6, master="eth1")
    before = dump(host)
    web, db = host.container("web"), host.container("db")
    attachments = [site.add(network, each, "", ifname="eth1")[0] for each in (web, db)]
    for address in ("192.0.2.1", "2001:db8:1::1", "192.0.2.101", "2001:db8:1::101"):
        assert reaches(web, address), address
    assert not reaches(host, "192.0.2.100")  # by the kernel's design
    for attachment in attachments:
        site.check(attachment)
    site.delete(*attachments)
    assert "macvlan" not in web.run("ip -d link")
    site.demand_nothing_left(before)
