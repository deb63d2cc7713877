"""Single resources on a real kernel, where no network of this machine's kernel leads to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from attaching import differing, dump

from netplug import host as hosts
from netplug import plan
from netplug.firewall.render import render
from netplug.kernel import Kernel
from netplug.plan import Plan
from netplug.resources import Shell
from netplug.resources.links import Bridge, Veth

if TYPE_CHECKING:
    from conftest import Host

LEG = Veth(
    "veth0123456789a",
    host_mac="02:00:00:00:00:01",
    bridge="br0",
    ifname="br0.10",
    mac="02:00:00:00:00:02",
    mtu=1500,
    alias="netplug/vlan/br0.10",
    peer_place="host",
)
BOTH = Plan((Bridge("br0", "02:00:00:00:00:03"), LEG))


@pytest.fixture
def kernel(host: Host) -> Iterator[Kernel]:
    with hosts.Host(host.fd) as own, own.kernel() as kernel:
        yield kernel


def test_the_hosts_own_leg_of_a_vlan(host: Host, kernel: Kernel) -> None:
    """Both its ends are up; with VLANs its port would have one, which this test leaves out."""
    before = dump(host)
    assert len(plan.add(kernel, BOTH)) == 2
    made = dump(host)
    assert "UP" in made["links"]["br0.10"]["flags"]
    assert plan.check(kernel, BOTH) == []

    host.run("ip link set br0.10 down")
    (difference,) = plan.check(kernel, BOTH)
    assert "br0.10's state is down" in str(difference)
    plan.apply(kernel, difference.resource, plan.Unshared())
    assert not differing(made, dump(host))

    assert plan.remove(kernel, BOTH) == []
    assert plan.remove(kernel, BOTH) == []
    assert not differing(before, dump(host))
    host.run("\n".join(plan.to_shell(BOTH, Shell("none", render))))
    assert not differing(made, dump(host))


def test_a_renamed_port_is_found_by_its_alias(host: Host, kernel: Kernel) -> None:
    before = dump(host)
    plan.add(kernel, BOTH)
    host.run("ip link set veth0123456789a down && ip link set veth0123456789a name mine")
    assert plan.remove(kernel, BOTH) == []
    assert not differing(before, dump(host))


def test_a_link_of_our_name_without_our_mark_stays(host: Host, kernel: Kernel) -> None:
    host.run("ip link add veth0123456789a type veth peer name other")
    host.run("ip link set veth0123456789a alias theirs")
    before = dump(host)
    assert plan.remove(kernel, BOTH) == []
    assert not differing(before, dump(host))


def test_a_bridge_with_a_foreign_port_stays(host: Host, kernel: Kernel) -> None:
    """Somebody plugged a link of theirs into our bridge: it would lose its network."""
    plan.add(kernel, Plan(BOTH.steps[:1]))
    host.run("ip link add theirs type veth peer name other && ip link set theirs master br0")
    plan.remove(kernel, BOTH)
    assert "br0" in dump(host)["links"]
    host.run("ip link del theirs")
    plan.remove(kernel, BOTH)
    assert "br0" not in dump(host)["links"]
