"""The commands of a dry run, typed by hand in a fresh namespace, make what an ADD makes.

For every option of every driver, alone and together, and for both firewall backends.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

import driver_cases
import pytest
from attaching import (
    V4,
    V6,
    Site,
    differing,
    dump,
    gateway_network,
    make_network,
    settle,
    state_rows_of,
)
from bridge_cases import CASES

from netplug.firewall.render import render
from netplug.kernel import probe_kind, probe_vlan_filtering
from netplug.model import Network, Port
from netplug.plan import Plan, to_shell
from netplug.resources import Shell
from netplug.resources.addresses import Sysctl

if TYPE_CHECKING:
    from conftest import Host

MakeHost = Callable[[str], "Host"]
BOTH = (V4, V6)


def prepare(host: Host) -> None:
    """A route out, for the MTU that is taken from it."""
    host.run("ip link add up0 address 02:00:00:00:00:99 mtu 1420 type bridge && ip link set up0 up")
    host.run("ip addr add 192.0.2.1/24 dev up0 && ip route add default via 192.0.2.254")


def read_sysctls(host: Host, container: Host, plan: Plan) -> dict[str, str]:
    places = {"host": host, "sandbox": container}
    return {
        f"{step.place} {key}": places[step.place].run(f"cat /proc/sys/{key}")
        for step in plan
        if isinstance(step, Sysctl)
        for key, _ in step.values
    }


def type_commands(host: Host, lines: list[str]) -> None:
    host.run("set -e\n" + "\n".join(lines))


@pytest.mark.parametrize("name", CASES)
def test_typed_commands_make_what_add_makes(make_host: MakeHost, name: str) -> None:
    if "vlan" in name.lower() and not probe_vlan_filtering():
        pytest.skip("this kernel has no bridge VLAN filtering")
    compare(make_host, prepare, *CASES[name])


@pytest.mark.parametrize("name", driver_cases.CASES)
def test_so_they_do_for_every_driver(make_host: MakeHost, name: str) -> None:
    network, wishes = driver_cases.CASES[name]
    if network.driver in ("macvlan", "ipvlan", "vlan", "dummy") and not probe_kind(network.driver):
        pytest.skip(f"this kernel has no {network.driver} links")
    compare(make_host, driver_cases.prepare, network, wishes)


def compare(
    make_host: MakeHost, ready: Callable[[Host], None], network: Network, wishes: dict[str, Any]
) -> None:
    typed, added = make_host("typed"), make_host("added")
    insides = [typed.container("web"), added.container("web")]
    for each in (typed, added):
        ready(each)

    site = Site(typed)
    before = state_rows_of(site)
    preview = site.preview(network, site.attachment(network, insides[0], "web", **wishes))
    assert state_rows_of(site) == before
    lines = to_shell(preview.plan, Shell(insides[0].name, render))
    type_commands(typed, lines)

    other = Site(added)
    attachment, result = other.add(network, insides[1], "web", **wishes)
    record = other.record(attachment)
    assert record is not None and record.plan == preview.plan
    for inside in insides:
        settle(inside)
    pairs = ((typed, added), (insides[0], insides[1]))
    differences = [differing(dump(one), dump(two)) for one, two in pairs]
    sysctls = [read_sysctls(*places, record.plan) for places in zip(*pairs, strict=True)]
    other.delete(attachment)
    assert differences == [{}, {}]
    assert sysctls[0] == sysctls[1]
    assert result.ips == preview.result.ips


def test_a_preview_takes_nothing(host: Host) -> None:
    network = gateway_network("lan", *BOTH)
    site, container = Site(host), host.container("web")
    before, inside, rows = dump(host), dump(container), state_rows_of(site)
    attachment = site.attachment(network, container, "web", ports=(Port(8080, 80),))
    first = site.preview(network, attachment)
    assert first == site.preview(network, attachment)
    assert not (first.present[0] or first.present[2])  # the bridge, the veth
    assert (dump(host), dump(container), state_rows_of(site)) == (before, inside, rows)
    assert [ip.address for ip in first.result.ips] == [
        ip_interface("10.1.0.2/24"),
        ip_interface("fd00:1::2/64"),
    ]


def test_a_preview_marks_what_is_there(host: Host) -> None:
    """The second container of a network finds bridge, gateway, forwarding and frame made."""
    network = gateway_network()
    site = Site(host)
    first, _ = site.add(network, host.container("first"), "first")
    second = site.attachment(network, host.container("second"), "second")
    preview = site.preview(network, second)
    marked = dict(zip((type(s).__name__ for s in preview.plan), preview.present, strict=False))
    there = {
        step.describe()
        for step, present in zip(preview.plan, preview.present, strict=True)
        if present
    }
    assert "bridge br0" in there
    assert "10.1.0.1/24 on br0" in there
    assert "masquerade of 10.1.0.0/24" in there
    assert not marked["Veth"] and not marked["Routes"]
    site.delete(first)


def test_a_path_outside_run_netns_is_reached_too(host: Host) -> None:
    network = make_network(sysctl={"net.core.somaxconn": "99"})
    site, container = Site(host), host.container("web")
    preview = site.preview(network, site.attachment(network, container, "web"))
    lines = to_shell(preview.plan, Shell(container.path, render))
    assert any(line.startswith(f"nsenter --net={container.path} sysctl") for line in lines)
