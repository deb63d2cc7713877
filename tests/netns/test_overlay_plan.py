"""A node's plan like any other: printed, applied, compared, undone, stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from attaching import Site, differing, dump, settle
from overlay_world import RANGE4, RANGE6, make_overlay

from netplug import plan as plans
from netplug.firewall.render import render
from netplug.host import Host as OwnHost
from netplug.kernel import tunnelguard
from netplug.kernel.tunnelguard import Allowed
from netplug.kernel.tunnels import (
    Bridged,
    DirectRoute,
    Forward,
    Item,
    Neighbour,
    TunnelRoute,
)
from netplug.overlay.keys import NetworkRecord
from netplug.overlay.membership import Membership, localize
from netplug.overlay.plan import plan_node
from netplug.plan import Plan, from_json, to_json, to_shell
from netplug.resources import Shell
from netplug.resources.tunnelguard import TunnelGuard

if TYPE_CHECKING:
    from conftest import Host

MAC = "02:00:00:00:00:09"
PEER = ip_address("192.0.2.2")
RECORD = NetworkRecord((ip_network(RANGE4), ip_network(RANGE6)), 24, 4242)
HERE = Membership(
    "web", "n1", "i", RECORD, 7, 1, ip_address("192.0.2.1"), "eth0", 1450, config={"direct": True}
)
ROUTED: tuple[Item, ...] = (
    Neighbour(ip_address("10.200.9.0"), MAC),
    Neighbour(ip_address("fd00:200:0:9::"), MAC),
    Forward(MAC, PEER),
    TunnelRoute(ip_network("10.200.9.0/24"), ip_address("10.200.9.0")),
    TunnelRoute(ip_network("fd00:200:0:9::/64"), ip_address("fd00:200:0:9::")),
    DirectRoute(ip_network("10.200.11.0/24"), ip_address("192.0.2.3")),
)
BRIDGED: tuple[Item, ...] = (
    Neighbour(ip_address("10.200.9.5"), MAC),
    Bridged(MAC),
    Forward(MAC, PEER),
)
ALLOWED = (
    Allowed(PEER, ip_network("10.200.9.0/24")),
    Allowed(PEER, ip_network("fd00:200:0:9::/64")),
)
UNDER6 = replace(HERE, address=ip_address("2001:db8::1"), mtu=1430)
ALLOWED6 = (Allowed(ip_address("2001:db8::2"), ip_network("10.200.9.0/24")),)
PLANS = {
    "routed": plan_node(HERE, "np-web", ROUTED, ALLOWED),
    "bridged": plan_node(
        replace(HERE, record=replace(RECORD, mode="bridged")), "np-web", BRIDGED, ALLOWED
    ),
    "IPv6 underlay": plan_node(
        UNDER6, "np-web", (*ROUTED[:2], Forward(MAC, ip_address("2001:db8::2"))), ALLOWED6
    ),
}


def prepare(host: Host) -> None:
    host.run(
        "ip link add eth0 address 02:00:00:00:00:01 type veth peer name wire0"
        " address 02:00:00:00:00:02"
    )
    host.run("ip link set eth0 addrgenmode none up; ip link set wire0 addrgenmode none up")
    host.run("ip addr add 192.0.2.1/24 dev eth0")
    host.run("ip -6 addr add 2001:db8::1/64 dev eth0 nodad")
    host.run("sysctl -qw net.ipv6.conf.all.forwarding=1")  # is never undone, and adds routes
    settle(host)


def without_guard(host: Host) -> dict[str, Any]:
    found = dump(host)
    found["nft"] = [item for item in found["nft"] if "netplug-vx-web" not in str(item)]
    return found


def entries(host: Host) -> list[str]:
    """Neighbours and forwarding entries, as text."""
    neighbours = host.run("ip neigh show nud permanent; ip -6 neigh show nud permanent")
    forwards = host.run("bridge fdb show dev vx-web")
    kept = [line for line in forwards.splitlines() if MAC in line]
    return sorted([*neighbours.splitlines(), *kept])


@pytest.mark.parametrize("name", PLANS)
def test_typed_applied_compared_undone(make_host: Callable[[str], Host], name: str) -> None:
    plan = PLANS[name]
    typed, added = make_host("typed"), make_host("added")
    for each in (typed, added):
        prepare(each)
    before = dump(added)
    typed.run("set -e\n" + "\n".join(to_shell(plan, Shell("none", render))))
    with OwnHost(added.fd) as own, own.kernel() as kernel:
        plans.add(kernel, plan)
        assert not differing(without_guard(typed), without_guard(added))
        for step in plan:
            if isinstance(step, TunnelGuard):  # nft shows a set of its own making otherwise
                held = [tunnelguard.read(host.fd, step.frame) for host in (typed, added)]
                assert held == [(True, set(step.allowed))] * 2
        assert entries(typed) == entries(added) != []
        assert not plans.check(kernel, plan)
        plans.add(kernel, plan)  # again: nothing doubles
        assert not plans.check(kernel, plan)
        peers = plan.steps[-1]
        peers.undo(kernel)
        [difference] = plans.check(kernel, plan)
        assert difference.resource == peers
        peers.apply(kernel)
        assert not plans.remove(kernel, plan)
    assert not differing(before, dump(added))


@pytest.mark.parametrize("name", PLANS)
def test_a_fault_at_every_step_leaves_nothing(host: Host, name: str) -> None:
    prepare(host)
    before = dump(host)

    class Fault:
        key = None

        def apply(self, kernel: object) -> bool:
            raise RuntimeError("fault")

        def undo(self, kernel: object) -> None:
            return None

    with OwnHost(host.fd) as own, own.kernel() as kernel:
        for index in range(len(PLANS[name]) + 1):
            faulty = Plan((*PLANS[name].steps[:index], Fault()))  # type: ignore[arg-type]
            with pytest.raises(RuntimeError, match="fault"):
                plans.add(kernel, faulty)
            assert not differing(before, dump(host)), index


@pytest.mark.parametrize("name", PLANS)
def test_a_stored_plan_is_the_same(name: str) -> None:
    assert from_json(json.loads(to_json(PLANS[name]))) == PLANS[name]


def test_a_containers_plan_typed_by_hand(make_host: Callable[[str], Host]) -> None:
    """The driver's own part: a bridge network whose border lies around the whole range."""
    network = localize(make_overlay("web", RANGE4, RANGE6, isolate=True), HERE)
    typed, added = make_host("typed"), make_host("added")
    insides = [typed.container("c"), added.container("c")]
    site = _sited(typed)
    preview = site.preview(network, site.attachment(network, insides[0], "c"))
    typed.run("set -e\n" + "\n".join(to_shell(preview.plan, Shell(insides[0].name, render))))
    other = _sited(added)
    attachment, _ = other.add(network, insides[1], "c")
    for one, two in ((typed, added), (insides[0], insides[1])):
        assert not differing(dump(one), dump(two))
    assert "iifname . oifname @same" in added.run("nft list table ip netplug")
    assert '"vx-web" . "np-web"' in added.run("nft list set ip netplug same")
    assert "10.200.7.0/24 . 10.200.0.0/16" in added.run("nft list set ip netplug local")
    other.check(attachment)
    other.delete(attachment)


def _sited(host: Host) -> Site:
    """A host that has joined already."""
    from netplug.overlay import membership

    site = Site(host)
    with site.engine() as engine:
        membership.write(engine.state, engine.host.id, HERE)
    return site
