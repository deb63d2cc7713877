"""What every firewall backend must do, seen by packets: the same tests for nft and iptables."""

from __future__ import annotations

import importlib
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from firewall_world import (
    ANY,
    HOST,
    ONE,
    OTHER,
    OUT,
    OWNER,
    THREE,
    TWO,
    World,
    apply,
    ask,
    build_world,
    dial,
    echo,
    network,
    publish,
    sctp_init,
    udp_socket,
)

from netplug.errors import Conflict
from netplug.firewall import Firewall
from netplug.firewall.intent import Mapping, Publish
from netplug.model import Family

FAMILIES: tuple[Family, ...] = (4, 6)
both_families = pytest.mark.parametrize("family", FAMILIES)
# What an administrator types to lose everything, and to open the guard of 127.0.0.0/8.
FLUSH = {
    "nft": "nft flush ruleset",
    "iptables": "; ".join(
        f"{command} -t {table} -F; {command} -t {table} -X"
        for command in ("iptables-legacy", "ip6tables-legacy")
        for table in ("raw", "nat", "filter")
    ),
}
UNGUARD = {
    "nft": "nft flush chain ip netplug guard",
    "iptables": "iptables-legacy -t raw -F PREROUTING",
}


@pytest.fixture
def world(host: Any) -> World:
    return build_world(host)


@pytest.fixture(params=["nft", "iptables"])
def firewall(request: pytest.FixtureRequest, world: World, tmp_path: Path) -> Iterator[Firewall]:
    if request.param == "nft":
        from netplug.firewall.nft import NftFirewall

        nft = NftFirewall(world.host.fd)
        yield nft
        nft.close()
        return
    try:
        module = importlib.import_module("netplug.firewall.iptables")
    except ImportError:
        pytest.skip("no iptables backend")
    lock = str(tmp_path / "xtables.lock")
    yield module.IptablesFirewall(world.host.fd, lockfile=lock)


# -- masquerade ----------------------------------------------------------------------------


@both_families
def test_containers_leave_with_the_hosts_address(
    world: World, firewall: Firewall, family: Family
) -> None:
    apply(firewall, *network())
    assert dial(world.one, (OUT[family], 80), world.out, 80) == HOST[family]
    assert ask(world.one, (OUT[family], 53), world.out, 53) == HOST[family]


@both_families
def test_without_masquerade_they_keep_their_own(
    world: World, firewall: Firewall, family: Family
) -> None:
    apply(firewall, *network(masquerade=False))
    assert dial(world.one, (OUT[family], 80), world.out, 80) == ONE[family]


@both_families
def test_the_own_subnet_is_not_masqueraded(
    world: World, firewall: Firewall, family: Family
) -> None:
    # Through the host's IP layer even so: a host route by way of the gateway.
    gateway = {4: "10.1.0.1", 6: "fd00:1::1"}[family]
    world.one.run(f"ip route add {TWO[family]} via {gateway}")
    apply(firewall, *network())
    assert dial(world.one, (TWO[family], 80), world.two, 80) == ONE[family]


# -- published ports -----------------------------------------------------------------------


@both_families
def test_a_published_port_is_reachable_from_everywhere(
    world: World, firewall: Firewall, family: Family
) -> None:
    apply(firewall, *network(), *network("br1"), publish(8080, ONE[family], 80))
    gateway = {4: "10.1.0.1", 6: "fd00:1::1"}[family]
    for client in (world.out, world.host, world.two, world.one, world.three):
        assert dial(client, (HOST[family], 8080), world.one, 80), client.name
    assert dial(world.two, (gateway, 8080), world.one, 80)
    assert dial(world.out, (HOST[family], 8080), world.one, 80) == OUT[family]  # not masqueraded
    assert dial(world.out, (HOST[family], 8081), world.one, 80) is None


@both_families
def test_a_published_udp_port_answers(world: World, firewall: Firewall, family: Family) -> None:
    apply(firewall, *network(), publish(5353, ONE[family], 53, "udp"))
    for client in (world.out, world.two):
        assert ask(client, (HOST[family], 5353), world.one, 53), client.name
    assert dial(world.out, (HOST[family], 5353), world.one, 53) is None  # tcp is another port


def test_the_host_reaches_a_port_by_localhost(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(8080, ONE[4], 80))
    assert dial(world.host, ("127.0.0.1", 8080), world.one, 80) == "10.1.0.1"
    apply(firewall, publish(53, ONE[4], 53, "udp", host_ip="127.0.0.1", owner=OTHER))
    assert ask(world.host, ("127.0.0.1", 53), world.one, 53) == "10.1.0.1"


def test_a_port_of_one_address_is_on_that_address_alone(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(8080, ONE[4], 80, host_ip="192.0.2.10"))
    assert dial(world.out, ("192.0.2.10", 8080), world.one, 80)
    assert dial(world.out, ("192.0.2.1", 8080), world.one, 80) is None


def test_one_address_wins_over_any_address(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(8080, ONE[4], 80))
    apply(firewall, publish(8080, TWO[4], 80, host_ip="192.0.2.10", owner=OTHER))
    assert dial(world.out, ("192.0.2.1", 8080), world.one, 80)
    assert dial(world.out, ("192.0.2.10", 8080), world.two, 80)


def test_a_range_and_its_removal(world: World, firewall: Firewall) -> None:
    mappings = tuple(
        Mapping("tcp", port, ip_address(ONE[4]), port - 7000) for port in range(9000, 9040)
    )
    ports = Publish(OWNER, 4, mappings)
    apply(firewall, *network(), ports)
    for port in (9000, 9020, 9039):
        assert dial(world.out, (HOST[4], port), world.one, port - 7000)
    assert dial(world.out, (HOST[4], 9040), world.one, 2040) is None
    assert firewall.owners() == {OWNER}
    firewall.undo(ports)
    assert firewall.present(ports) is None
    assert firewall.owners() == set()
    assert dial(world.out, (HOST[4], 9020), world.one, 2020) is None
    firewall.undo(ports)  # silent the second time


def test_all_of_an_owner_can_be_removed_by_its_mark(world: World, firewall: Firewall) -> None:
    first = [publish(8080, ONE[4], 80), publish(8080, ONE[6], 80)]
    second = publish(8081, TWO[4], 80, owner=OTHER)
    apply(firewall, *network(), *first, second)
    assert firewall.owners() == {OWNER, OTHER}
    assert firewall.remove_owned(OWNER) == 2
    assert firewall.owners() == {OTHER}
    assert [firewall.present(step) for step in (*first, second)] == [None, None, ""]
    assert firewall.remove_owned(OWNER) == 0


def test_a_conflict_in_the_middle_changes_nothing(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(8005, TWO[4], 80, owner=OTHER))
    mappings = tuple(Mapping("tcp", p, ip_address(ONE[4]), 80) for p in range(8000, 8010))
    with pytest.raises(Conflict, match="8005"):
        firewall.apply(Publish(OWNER, 4, mappings))
    assert firewall.owners() == {OTHER}
    assert dial(world.out, (HOST[4], 8000), world.one, 80) is None
    assert dial(world.out, (HOST[4], 8005), world.two, 80)


def test_sctp_arrives_behind_the_published_port(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(3868, ONE[4], 5868, "sctp"))

    def raw() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_SCTP)

    with world.one.call(raw) as receiver, world.out.call(raw) as sender:
        sender.sendto(sctp_init(40000, 3868), (HOST[4], 0))
        assert select.select([receiver], [], [], 2)[0], "no INIT arrived"
        packet, peer = receiver.recvfrom(1000)
    assert peer[0] == OUT[4]
    assert packet[20:24] == sctp_init(40000, 5868)[:4]


# -- 127.0.0.0/8 ---------------------------------------------------------------------------


def _send_loopback_to(place: Any, gateway: str) -> None:
    """The neighbour's trick: 127.0.0.1 is an address behind the gateway."""
    place.run(
        "set -e; sysctl -qw net.ipv4.conf.all.route_localnet=1 net.ipv4.conf.eth0.rp_filter=0;"
        "ip address flush dev lo; ip route flush table local dev lo;"
        f"ip route add 127.0.0.1 via {gateway}"
    )


def test_ports_on_localhost_are_closed_to_the_neighbour(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(), publish(8080, ONE[4], 80, host_ip="127.0.0.1"))
    _send_loopback_to(world.out, HOST[4])
    assert dial(world.out, ("127.0.0.1", 8080), world.one, 80) is None
    assert dial(world.host, ("127.0.0.1", 8080), world.one, 80)
    world.host.run(UNGUARD[firewall.name])  # the proof that the attack was one
    assert dial(world.out, ("127.0.0.1", 8080), world.one, 80)


def test_services_of_the_host_on_localhost_are_closed_to_containers(
    world: World, firewall: Firewall
) -> None:
    apply(firewall, *network(), publish(8080, TWO[4], 80, host_ip="127.0.0.1"))
    _send_loopback_to(world.one, "10.1.0.1")
    assert dial(world.one, ("127.0.0.1", 8080), world.two, 80) is None
    assert dial(world.one, ("127.0.0.1", 631), world.host, 631, bind="127.0.0.1") is None
    world.host.run(UNGUARD[firewall.name])
    assert dial(world.one, ("127.0.0.1", 631), world.host, 631, bind="127.0.0.1")


# -- borders -------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True], ids=["open", "isolated"])
@pytest.mark.parametrize("second", [False, True], ids=["open", "isolated"])
def test_isolation(world: World, firewall: Firewall, first: bool, second: bool) -> None:
    apply(firewall, *network(isolated=first), *network("br1", isolated=second))
    apply(firewall, *(publish(8080, THREE[family], 80) for family in FAMILIES))
    for family in FAMILIES:
        direct = dial(world.one, (THREE[family], 80), world.three, 80)
        assert (direct is None) == (first or second)
        back = dial(world.three, (ONE[family], 80), world.one, 80)
        assert (back is None) == (first or second)
        # By the host's address it is what the owner published for everybody.
        assert dial(world.one, (HOST[family], 8080), world.three, 80)
        assert dial(world.one, (OUT[family], 80), world.out, 80)
        assert dial(world.one, (TWO[family], 80), world.two, 80)


@both_families
def test_internal_networks_have_no_way_in_or_out(
    world: World, firewall: Firewall, family: Family
) -> None:
    apply(firewall, *network(internal=True, masquerade=False), *network("br1"))
    apply(firewall, publish(8080, ONE[family], 80), publish(8081, THREE[family], 80, owner=OTHER))
    gateway = {4: "10.1.0.1", 6: "fd00:1::1"}[family]
    assert dial(world.one, (OUT[family], 80), world.out, 80) is None
    assert dial(world.one, (THREE[family], 80), world.three, 80) is None
    assert dial(world.one, (HOST[family], 8081), world.three, 80) is None
    assert dial(world.three, (ONE[family], 80), world.one, 80) is None
    assert dial(world.out, (HOST[family], 8080), world.one, 80) is None
    assert dial(world.out, (ONE[family], 80), world.one, 80) is None
    assert dial(world.one, (TWO[family], 80), world.two, 80)
    assert dial(world.one, (gateway, 53), world.host, 53) == ONE[family]


@pytest.mark.parametrize("routed", [False, True])
def test_container_addresses_from_outside(world: World, firewall: Firewall, routed: bool) -> None:
    apply(firewall, *network(routed=routed), *network("br1"))
    for family in FAMILIES:
        assert (dial(world.out, (ONE[family], 80), world.one, 80) is not None) == routed
        assert dial(world.three, (ONE[family], 80), world.one, 80)  # another bridge of ours
        assert dial(world.host, (ONE[family], 80), world.one, 80)


def test_a_changed_policy_replaces_the_old_one(world: World, firewall: Firewall) -> None:
    apply(firewall, *network(isolated=True), *network("br1"))
    assert dial(world.one, (THREE[4], 80), world.three, 80) is None
    assert any(firewall.present(step) for step in network())
    apply(firewall, *network())
    assert [firewall.present(step) for step in network()] == [""] * 8
    assert dial(world.one, (THREE[4], 80), world.three, 80)


# -- life ----------------------------------------------------------------------------------


def test_apply_is_idempotent_and_undo_leaves_nothing(world: World, firewall: Firewall) -> None:
    steps = [*network(), publish(8080, ONE[4], 80), publish(53, ONE[6], 53, "udp")]
    applied = [firewall.apply(step) for step in steps]
    assert applied.count(False) <= 2  # nobody drops here, so Accept has nothing to do
    assert [firewall.apply(step) for step in steps] == [False] * len(steps)
    assert [firewall.present(step) for step in steps] == [""] * len(steps)
    for _ in range(2):
        for step in reversed(steps):
            firewall.undo(step)
    assert all(not firewall.present(step) for step in steps)
    assert world.host.run("nft list ruleset").count("netplug") == 0
    assert dial(world.one, (OUT[4], 80), world.out, 80) == ONE[4]


def test_repair_after_a_flush(world: World, firewall: Firewall) -> None:
    steps = [*network(), publish(8080, ONE[4], 80), publish(8080, ONE[6], 80)]
    apply(firewall, *steps)
    world.host.run(FLUSH[firewall.name])
    assert dial(world.out, (HOST[4], 8080), world.one, 80) is None
    assert firewall.present(steps[0]) is None
    assert firewall.present(steps[-1]) is None
    apply(firewall, *steps)
    assert [firewall.present(step) for step in steps] == [""] * len(steps)
    for family in FAMILIES:
        assert dial(world.out, (HOST[family], 8080), world.one, 80)


@both_families
def test_a_flow_that_began_before_reaches_the_container(
    world: World, firewall: Firewall, family: Family
) -> None:
    port = publish(5353, ONE[family], 53, "udp")
    to = (HOST[family], 5353)
    apply(firewall, *network())
    any_ = ANY[family]
    with (
        udp_socket(world.out, any_) as client,
        udp_socket(world.one, any_, 53) as first,
        udp_socket(world.two, any_, 53) as second,
    ):
        assert echo(client, to, first) is None  # the host's own entry is tracked now
        firewall.apply(port)
        assert echo(client, to, first) == OUT[family]
        firewall.apply(port)  # again: a living flow is not cut
        assert echo(client, to, first) == OUT[family]
        firewall.undo(port)
        assert echo(client, to, first) is None
        firewall.apply(publish(5353, TWO[family], 53, "udp"))
        assert echo(client, to, second) == OUT[family]
