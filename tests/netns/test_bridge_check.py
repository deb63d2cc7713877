"""CHECK sees each single change of the kernel, repair takes it back; what others add is fine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any, Literal

import pytest
from attaching import V4, V6, Site, differing, dump, gateway_network, settle

from netplug.errors import CheckFailed
from netplug.model import Attachment, Bandwidth, Interface, Port, Result, ResultAddress, Route

if TYPE_CHECKING:
    from conftest import Host

NETWORK = gateway_network("lan", V4, V6, hairpinMode=True, macspoofchk=True)
LIMITS = Bandwidth(8_000_000, 800_000, 4_000_000, 400_000)


@dataclass(frozen=True)
class Harm:
    """A command that changes one thing (VETH is the host end), and a word of CHECK about it."""

    command: str
    word: str
    where: Literal["host", "inside"] = "host"


HARMS = {
    "bridge-down": Harm("ip link set br0 down", "bridge br0"),
    "port-detached": Harm("ip link set VETH nomaster", "bridge is"),
    "port-down": Harm("ip link set VETH down", "state is down"),
    "hairpin-off": Harm("bridge link set dev VETH hairpin off", "hairpin mode"),
    "gateway-gone": Harm("ip addr del 10.1.0.1/24 dev br0", "10.1.0.1/24 on br0"),
    "gateway-6-gone": Harm("ip addr del fd00:1::1/64 dev br0", "fd00:1::1/64 on br0"),
    "forwarding-off": Harm("echo 0 >/proc/sys/net/ipv4/ip_forward", "ip_forward"),
    "forwarding-6-off": Harm("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding", "forwarding"),
    "ruleset-flushed": Harm("nft flush ruleset", "firewall frame"),
    "table-flushed": Harm("nft flush table ip netplug", "firewall frame"),
    "port-unpublished": Harm("nft flush map ip netplug publish_any", "published 8080/tcp"),
    "masquerade-lost": Harm("nft flush set ip netplug masq", "masquerade of 10.1.0.0/24"),
    "guard-lost": Harm("nft delete table bridge netplug", "VETH sends as"),
    "tbf-gone": Harm("tc qdisc del dev VETH root", "ingress rate"),
    "tbf-altered": Harm(
        "tc qdisc replace dev VETH root tbf rate 1mbit burst 10k limit 20k", "ingress rate"
    ),
    "redirect-gone": Harm("tc qdisc del dev VETH ingress", "redirection"),
    "ifb-gone": Harm("ip link del IFB", "egress rate"),
    "localnet-off": Harm("echo 0 >/proc/sys/net/ipv4/conf/br0/route_localnet", "route_localnet"),
    "inside-down": Harm("ip link set eth0 down", "down", "inside"),
    "inside-mac": Harm("ip link set eth0 address 02:00:00:00:00:99", "MAC", "inside"),
    "inside-mtu": Harm("ip link set eth0 mtu 1300", "MTU", "inside"),
    "address-gone": Harm("ip addr del 10.1.0.2/24 dev eth0", "10.1.0.2/24", "inside"),
    "address-6-gone": Harm("ip addr del fd00:1::2/64 dev eth0", "fd00:1::2/64", "inside"),
    "default-gone": Harm("ip route del default", "route to 0.0.0.0/0", "inside"),
    "default-6-gone": Harm("ip -6 route del default", "route to ::/0", "inside"),
    "addresses-flushed": Harm("ip addr flush dev eth0", "10.1.0.2/24", "inside"),
    "loopback-down": Harm("ip link set lo down", "lo is down", "inside"),
}


def attach(host: Host) -> tuple[Site, Host, Attachment, Result]:
    site, container = Site(host), host.container("web")
    attachment, result = site.add(
        NETWORK, container, "web", ports=(Port(8080, 80),), bandwidth=LIMITS
    )
    return site, container, attachment, result


def settled_dumps(*hosts: Host) -> list[dict[str, Any]]:
    settle(*hosts)
    return [dump(host) for host in hosts]


@pytest.mark.parametrize("name", HARMS)
def test_a_change_is_seen_and_repaired(host: Host, name: str) -> None:
    harm = HARMS[name]
    site, container, attachment, result = attach(host)
    try:
        words = {"VETH": attachment.host_name, "IFB": result.interfaces[3].name}
        command, word = harm.command, harm.word
        for placeholder, text in words.items():
            command, word = command.replace(placeholder, text), word.replace(placeholder, text)
        before = settled_dumps(host, container)
        assert not site.differences(attachment)

        (host if harm.where == "host" else container).run(command)
        with pytest.raises(CheckFailed, match=r"is not as it was made") as caught:
            site.check(attachment)
        assert word in caught.value.why
        assert caught.value.hint == "run: netplug repair"

        repair = site.repair(attachment)
        assert repair.found and not repair.failed
        site.check(attachment)
        after = settled_dumps(host, container)
        assert [differing(*pair) for pair in zip(before, after, strict=True)] == [{}, {}]
    finally:
        site.delete(attachment)


TOLERATED = {
    "promisc": "ip link set br0 promisc on; ip link set VETH promisc on",
    "more-addresses": "ip addr add 10.1.0.250/24 dev br0; ip addr add 192.0.2.7/32 dev br0",
    "more-routes": "ip route add 192.0.2.0/24 dev br0",
    "more-rules": "nft add table ip mine; nft 'add chain ip mine c { type filter hook forward "
    "priority 5; }'",
    "more-ports": "ip link add other0 type veth peer name other1; ip link set other0 master br0",
    "alias": "ip link set VETH alias mine; ip link set VETH alias ''",
}
TOLERATED_INSIDE = {
    "promisc": "ip link set eth0 promisc on",
    "more-addresses": "ip addr add 10.1.0.251/24 dev eth0; ip addr add fd00:1::251/64 dev eth0",
    "more-routes": "ip route add 192.0.2.0/24 via 10.1.0.1; ip route add default via 10.1.0.1"
    " metric 500",
    "moved-route": "ip route del default; ip route add default via 10.1.0.1 table 77",
    "qdisc": "tc qdisc add dev eth0 root tbf rate 5mbit burst 10k limit 20k",
}


@pytest.mark.parametrize("name", TOLERATED)
def test_what_others_add_is_no_difference(host: Host, name: str) -> None:
    site, _, attachment, result = attach(host)
    host.run(TOLERATED[name].replace("VETH", attachment.host_name))
    try:
        site.check(attachment)
        site.check(attachment, result)
    finally:
        site.delete(attachment)


@pytest.mark.parametrize("name", TOLERATED_INSIDE)
def test_what_others_add_inside_is_no_difference(host: Host, name: str) -> None:
    site, container, attachment, result = attach(host)
    container.run(TOLERATED_INSIDE[name])
    try:
        site.check(attachment)
        site.check(attachment, result)
    finally:
        site.delete(attachment)


def test_foreign_qdiscs_are_no_difference(host: Host) -> None:
    """Without limits of ours, the queues of the host end are somebody else's."""
    site, container = Site(host), host.container("web")
    attachment, _ = site.add(NETWORK, container, "web")
    host.run(f"tc qdisc add dev {attachment.host_name} root tbf rate 5mbit burst 10k limit 20k")
    host.run(f"tc qdisc add dev {attachment.host_name} ingress")
    site.check(attachment)
    site.delete(attachment)


def test_repair_says_what_was_missing_and_mends_all_at_once(host: Host) -> None:
    site, container, attachment, _ = attach(host)
    before = settled_dumps(host, container)
    host.run("nft flush ruleset; ip link set br0 down; ip addr flush dev br0 scope global")
    container.run("ip addr flush dev eth0")
    repair = site.repair(attachment)
    found = " ".join(map(str, repair.found))
    for word in ("bridge br0", "10.1.0.1/24", "firewall frame", "routes to", "8080"):
        assert word in found
    after = settled_dumps(host, container)
    assert [differing(*pair) for pair in zip(before, after, strict=True)] == [{}, {}]
    assert site.repair(attachment).found == ()
    site.delete(attachment)


def test_repair_of_a_deleted_bridge_serves_all_its_users(host: Host) -> None:
    """The first repair makes bridge and gateway again, the others plug their port in."""
    site = Site(host)
    before = dump(host)
    two = [site.add(NETWORK, host.container(name), name)[0] for name in ("one", "two")]
    made = settled_dumps(host)
    host.run("ip link del br0")
    for attachment in two:
        assert site.repair(attachment).failed == ()
    assert not differing(made, settled_dumps(host))
    for attachment in two:
        site.check(attachment)
    site.delete(*two)
    site.demand_nothing_left(before)


def test_a_gone_veth_is_named_and_made_anew(host: Host) -> None:
    site, container, attachment, _ = attach(host)
    before = settled_dumps(host, container)
    container.run("ip link del eth0")
    with pytest.raises(CheckFailed, match="veth"):
        site.check(attachment)
    assert site.repair(attachment).failed == ()
    after = settled_dumps(host, container)
    assert [differing(*pair) for pair in zip(before, after, strict=True)] == [{}, {}]
    site.delete(attachment)


def test_check_takes_its_values_from_prev_result(host: Host) -> None:
    """A later plugin of the chain may have changed MAC, MTU, addresses and routes."""
    site, container, attachment, result = attach(host)
    mac = "02:00:00:00:00:99"
    container.run(f"ip link set eth0 address {mac} mtu 1400")
    container.run("ip addr del 10.1.0.2/24 dev eth0; ip addr add 10.1.0.99/24 dev eth0")
    container.run("ip route add default via 10.1.0.1; ip route add 192.0.2.0/24 via 10.1.0.1")
    inner = Interface("eth0", mac.upper(), 1400, container.path)
    changed = Result(
        (*result.interfaces[:2], inner),
        (
            ResultAddress(ip_interface("10.1.0.99/24"), interface=2),
            ResultAddress(ip_interface("fd00:1::2/64"), interface=2),
        ),
        (Route(ip_network("192.0.2.0/24"), result.routes[0].gw), *result.routes),
    )
    site.check(attachment, changed)
    for wrong in (
        replace(changed, ips=result.ips),
        replace(changed, interfaces=result.interfaces),
        replace(changed, routes=(Route(ip_network("198.51.100.0/24"), result.routes[0].gw),)),
    ):
        with pytest.raises(CheckFailed):
            site.check(attachment, wrong)
    with pytest.raises(CheckFailed):
        site.check(attachment)
    site.repair(attachment)  # uses the plan's own values
    site.check(attachment)
    site.delete(attachment)


def test_check_of_what_is_not_attached(host: Host) -> None:
    site = Site(host)
    attachment = site.attachment(NETWORK, host.container("web"), "web")
    with pytest.raises(CheckFailed, match="is not attached"):
        site.check(attachment)
