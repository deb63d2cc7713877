"""Each option of the bridge driver, as the kernel then has it, and as it leaves again."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from attaching import V4, V6, Site, differing, dump, gateway_network, make_network

from netplug.errors import ConfigError, Conflict, NetplugError, UnsupportedError
from netplug.kernel import probe_vlan_filtering
from netplug.model import Bandwidth, Network, Port, derived_mac

if TYPE_CHECKING:
    from conftest import Host

MakeHost = Callable[[str], "Host"]


@pytest.fixture
def site(host: Host) -> Iterator[Site]:
    """A site that is empty at the end, whatever the test attached."""
    site = Site(host)
    yield site
    with site.engine() as engine:
        for record in engine.records():
            engine.delete(record.attachment)
    assert not any(site.rows().values())


def read(host: Host, key: str) -> str:
    return host.run(f"cat /proc/sys/net/{key}").strip()


# the bridge


def test_an_admins_bridge_is_used_and_stays(host: Host, site: Site) -> None:
    host.run("ip link add br0 address 02:00:00:00:00:42 type bridge && ip link set br0 up")
    host.run("ip addr add 192.0.2.1/24 dev br0")
    before = dump(host)
    attachment, result = site.add(gateway_network(), host.container("web"), "web")
    assert result.interfaces[0].mac == "02:00:00:00:00:42"
    assert "ifalias" not in dump(host)["links"]["br0"]
    site.delete(attachment)
    site.demand_nothing_left(before)


def test_an_admins_gateway_address_is_adopted(host: Host, site: Site) -> None:
    host.run("ip link add br0 address 02:00:00:00:00:42 type bridge && ip link set br0 up")
    host.run("ip addr add 10.1.0.1/24 brd + dev br0")
    before = dump(host)
    attachment, _ = site.add(gateway_network(), host.container("web"), "web")
    site.delete(attachment)
    site.demand_nothing_left(before)


def test_the_bridges_mac_is_pinned(host: Host, site: Site) -> None:
    """Without, it would be its lowest port's, and change with each port."""
    macs = set()
    for number in range(4):
        site.add(gateway_network(), host.container(f"c{number}"), f"c{number}")
        macs.add(dump(host)["links"]["br0"]["address"])
    assert macs == {derived_mac("bridge", "br0")}


def test_a_link_of_another_kind_is_refused(host: Host, site: Site) -> None:
    host.run("ip link add br0 type veth peer name br0-peer")
    before = dump(host)
    with pytest.raises(Conflict, match="is no bridge"):
        site.add(make_network(), host.container("web"), "web")
    site.demand_nothing_left(before)


def test_two_networks_share_a_bridge(host: Host, site: Site) -> None:
    before = dump(host)
    one = gateway_network("one", {"subnet": "10.1.0.0/24"})
    two = gateway_network("two", {"subnet": "10.2.0.0/24"})
    first, _ = site.add(one, host.container("first"), "first")
    second, _ = site.add(two, host.container("second"), "second")
    site.check(first)
    site.check(second)
    site.delete(first)
    site.check(second)
    held = [a["local"] for a in dump(host)["addresses"]["br0"]]
    assert held == ["10.2.0.1"]
    site.delete(second)
    site.demand_nothing_left(before)


def test_one_subnet_of_two_networks_on_one_bridge(host: Host, site: Site) -> None:
    """They share gateway and addresses: no address is given twice."""
    one, two = gateway_network("one"), gateway_network("two")
    first, a = site.add(one, host.container("first"), "first")
    second, b = site.add(two, host.container("second"), "second")
    assert a.ips[0].address != b.ips[0].address
    site.delete(first)
    site.check(second)


def test_gateway_and_masquerade_go_with_the_last_user(host: Host, site: Site) -> None:
    before = dump(host)
    attachments = [
        site.add(gateway_network("lan", V4, V6), host.container(name), name)[0]
        for name in ("one", "two", "three")
    ]
    for attachment in attachments[:2]:
        site.delete(attachment)
        site.check(attachments[2])
        assert "masquerade" in host.run("nft list ruleset")
        assert "10.1.0.1/24" in host.run("ip addr show br0")
    site.delete(attachments[2])
    site.demand_nothing_left(before)


def test_different_values_under_one_key_name_the_other_network(host: Host, site: Site) -> None:
    site.add(gateway_network("lan"), host.container("one"), "one")
    before, rows = dump(host), site.rows()
    for other in (gateway_network("dmz", isolate=True), gateway_network("dmz", ipMasq=False)):
        with pytest.raises(Conflict, match="network lan uses it too"):
            site.add(other, host.container(f"two{id(other)}"), "two")
    assert not differing(before, dump(host))
    assert site.rows() == rows


def test_a_config_changed_under_a_living_attachment(host: Host, site: Site) -> None:
    before = dump(host)
    first, _ = site.add(gateway_network("lan"), host.container("one"), "one")
    changed = gateway_network("lan", isolate=True)
    with pytest.raises(Conflict, match="changed while containers are attached"):
        site.add(changed, host.container("two"), "two")
    site.delete(first)  # by its record: DEL needs no config at all
    site.demand_nothing_left(before)
    site.add(changed, host.container("three"), "three")


@pytest.mark.parametrize("subnet", ["10.1.0.0/16", "10.1.0.128/25"])
def test_overlapping_subnets_name_both_networks(host: Host, site: Site, subnet: str) -> None:
    site.add(gateway_network("lan"), host.container("one"), "one")
    before = dump(host)
    other = gateway_network("dmz", {"subnet": subnet}, bridge="br1")
    with pytest.raises(Conflict) as caught:
        site.add(other, host.container("two"), "two")
    text = f"{caught.value} {caught.value.hint}"
    for word in ("lan", "dmz", "10.1.0.0/24", subnet):
        assert word in text
    assert not differing(before, dump(host))


def test_the_same_subnet_on_another_bridge_is_refused(host: Host, site: Site) -> None:
    site.add(gateway_network("lan"), host.container("one"), "one")
    with pytest.raises(Conflict, match="lan"):
        site.add(gateway_network("dmz", bridge="br1"), host.container("two"), "two")


def test_force_address_replaces_what_is_in_the_way(host: Host, site: Site) -> None:
    host.run("ip link add br0 type bridge && ip link set br0 up")
    host.run("ip addr add 10.1.0.200/24 dev br0; ip addr add 192.0.2.1/24 dev br0")
    with pytest.raises(Conflict, match=r"10\.1\.0\.200/24"):
        site.add(gateway_network(), host.container("one"), "one")
    site.add(gateway_network(forceAddress=True), host.container("two"), "two")
    held = [a["local"] for a in dump(host)["addresses"]["br0"]]
    assert "10.1.0.1" in held and "10.1.0.200" not in held


# the container's interface


def test_mtu_of_the_route_out(host: Host, site: Site) -> None:
    host.run("ip link add up0 mtu 1380 type bridge && ip link set up0 up")
    host.run("ip addr add 192.0.2.1/24 dev up0 && ip route add default via 192.0.2.254")
    container = host.container("web")
    _, result = site.add(gateway_network(mtu="auto"), container, "web")
    assert [i.mtu for i in result.interfaces] == [1380] * 3
    links = dump(host)["links"]
    assert links["br0"]["mtu"] == 1380
    assert dump(container)["links"]["eth0"]["mtu"] == 1380


def test_mtu_in_the_result_without_one_asked_for(host: Host, site: Site) -> None:
    _, result = site.add(make_network(), host.container("web"), "web")
    assert [i.mtu for i in result.interfaces] == [1500] * 3


def test_macs(host: Host, site: Site) -> None:
    """Asked for, or derived: from a static address, so that it moves with it, else by name."""
    asked, static, plain = (host.container(name) for name in ("asked", "static", "plain"))
    network = gateway_network()
    site.add(network, asked, "asked", mac="02:00:00:00:00:07")
    site.add(network, static, "static", addresses=(ip_address("10.1.0.77"),))
    site.add(network, plain, "plain")
    macs = [dump(one)["links"]["eth0"]["address"] for one in (asked, static, plain)]
    assert macs[0] == "02:00:00:00:00:07"
    assert macs[1] == derived_mac("address", "lan", "10.1.0.77")
    assert macs[2] == derived_mac("attachment", "lan/plain/eth0")


def test_route_attributes_are_in_the_kernel(host: Host, site: Site) -> None:
    routes = [
        {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1300, "priority": 7},
        {"dst": "198.51.100.0/24", "gw": "10.1.0.9", "table": 100},
        {"dst": "203.0.113.0/24", "scope": 253},
        {"dst": "2001:db8::/32", "mtu": 1280, "priority": 2048},
    ]
    container = host.container("web")
    ipam = {"type": "netplug", "ranges": [[V4], [V6]], "routes": routes}
    attachment, _ = site.add(gateway_network(ipam=ipam), container, "web")
    held = {r["dst"]: r for r in dump(container)["routes"] if r.get("protocol") == "110"}
    assert held["192.0.2.0/24"]["metric"] == 7
    assert held["192.0.2.0/24"]["metrics"] == [{"mtu": 1400, "advmss": 1300}]
    assert held["192.0.2.0/24"]["gateway"] == "10.1.0.1"
    assert held["198.51.100.0/24"]["table"] == "100"
    assert held["198.51.100.0/24"]["gateway"] == "10.1.0.9"
    assert held["203.0.113.0/24"]["scope"] == "link" and "gateway" not in held["203.0.113.0/24"]
    assert held["2001:db8::/32"]["metric"] == 2048
    site.check(attachment)
    container.run("ip route change 192.0.2.0/24 via 10.1.0.1 metric 7 proto 110 mtu 1200")
    assert site.differences(attachment)


def test_identical_routes_are_one(host: Host, site: Site) -> None:
    """isDefaultGateway beside a default route of IPAM: the reference plugin fails here."""
    default = {"dst": "0.0.0.0/0"}
    ipam = {"type": "netplug", "ranges": [[V4]], "routes": [default, default]}
    container = host.container("web")
    attachment, result = site.add(gateway_network(ipam=ipam), container, "web")
    assert len(result.routes) == 1
    assert container.run("ip route show default").count("default") == 1
    site.check(attachment)


def test_a_second_interface_keeps_the_first_default_route(host: Host, site: Site) -> None:
    container = host.container("web")
    one, _ = site.add(gateway_network("one", V4, V6), container, "web")
    other = gateway_network("two", {"subnet": "10.2.0.0/24"}, {"subnet": "fd00:2::/64"}, bridge="b")
    two, _ = site.add(other, container, "web", ifname="eth1")
    assert "dev eth0" in container.run("ip route get 192.0.2.1")
    site.check(one)
    site.check(two)
    site.delete(one)
    site.check(two)
    assert "dev eth1" in container.run("ip route get 192.0.2.1")


def test_ipv6_only(host: Host, site: Site) -> None:
    container = host.container("web")
    attachment, result = site.add(gateway_network("lan", V6), container, "web")
    assert [str(ip.address) for ip in result.ips] == ["fd00:1::2/64"]
    assert host.run("nft list tables") == "table ip6 netplug\n"
    assert "tentative" not in container.run("ip -6 addr show dev eth0 scope global")
    container.run("ping -6 -c1 -W2 fd00:1::1")
    site.check(attachment)


def test_several_addresses(host: Host, site: Site) -> None:
    container = host.container("web")
    ranges = (V4, {"subnet": "10.2.0.0/24"}, V6, {"subnet": "fd00:2::/64"})
    attachment, result = site.add(gateway_network("lan", *ranges), container, "web")
    assert len(result.ips) == 4
    for gateway in ("10.1.0.1", "10.2.0.1", "fd00:1::1", "fd00:2::1"):
        container.run(f"ping -c1 -W2 {gateway}")
    site.check(attachment)


@pytest.mark.parametrize("subnet", ["10.9.0.0/31", "fd00:9::/127"])
def test_point_to_point_subnets(host: Host, site: Site, subnet: str) -> None:
    container = host.container("web")
    attachment, result = site.add(gateway_network("lan", {"subnet": subnet}), container, "web")
    gateway = ip_network(subnet)[0]
    assert result.ips[0].gateway == gateway
    container.run(f"ping -c1 -W2 {gateway}")
    site.check(attachment)


def test_enabledad_settles(host: Host, site: Site) -> None:
    container = host.container("web")
    site.add(gateway_network("lan", V6, enabledad=True), container, "web")
    held = container.run("ip -6 addr show dev eth0 scope global")
    assert "fd00:1::2/64" in held
    assert "tentative" not in held and "nodad" not in held
    assert read(container, "ipv6/conf/eth0/accept_dad") == "1"


def test_enabledad_finds_a_duplicate(host: Host, site: Site) -> None:
    network = gateway_network("lan", V6, enabledad=True)
    other = host.container("other")
    site.add(make_network("l2", ipam={}), other, "other")
    other.run("ip -6 addr add fd00:1::2/64 dev eth0 nodad")
    other.run("ip link set eth0 up")
    before = dump(host)
    with pytest.raises(Conflict, match="in use on the link"):
        site.add(network, host.container("web"), "web")
    assert not differing(before, dump(host))


def test_disable_container_interface(host: Host, site: Site) -> None:
    container = host.container("web")
    attachment, _ = site.add(
        make_network(ipam={}, disableContainerInterface=True), container, "web"
    )
    assert dump(container)["links"]["eth0"].get("flags", []) == []
    site.check(attachment)
    with pytest.raises(ConfigError, match="exclude each other"):
        site.add(make_network(disableContainerInterface=True), container, "web", ifname="eth1")


def test_an_interface_name_that_is_taken(host: Host, site: Site) -> None:
    """Another's interface is left as it is, addresses and routes included."""
    container = host.container("web")
    container.run("ip link add eth0 type bridge && ip link set eth0 up")
    container.run("ip addr add 10.1.0.2/24 brd + dev eth0")
    container.run("ip route add default via 10.1.0.1 proto 110")
    before = dump(host), dump(container)
    with pytest.raises(Conflict, match="eth0 already exists"):
        site.add(gateway_network(), container, "web")
    after = dump(host), dump(container)
    assert [differing(*pair) for pair in zip(before, after, strict=True)] == [{}, {}]


def test_sysctls_inside(host: Host, site: Site) -> None:
    container = host.container("web")
    network = make_network(
        sysctl={"net.ipv4.conf.IFNAME.rp_filter": "2", "net.core.somaxconn": "7"}
    )
    attachment, _ = site.add(network, container, "web")
    assert read(container, "ipv4/conf/eth0/rp_filter") == "2"
    assert read(container, "core/somaxconn") == "7"
    assert read(host, "core/somaxconn") != "7"
    container.run("echo 9 >/proc/sys/net/core/somaxconn")
    assert "somaxconn is 9, not 7" in str(site.differences(attachment)[0])


# the port


def ping_works(source: Host, target: str) -> bool:
    """Does one of three come back? The very first may be lost while a port comes up."""
    return "bytes from" in source.run(f"ping -c3 -i0.3 -W1 {target}", check=False)


def test_port_isolation(host: Host, site: Site) -> None:
    network = gateway_network(portIsolation=True)
    one, two = host.container("one"), host.container("two")
    site.add(network, one, "one")
    _, result = site.add(network, two, "two")
    assert not ping_works(one, str(result.ips[0].address.ip))
    assert ping_works(one, "10.1.0.1")


def test_hairpin_mode(host: Host, site: Site) -> None:
    """Frames may leave by the port by which they came: a second address of one container."""
    container = host.container("web")
    attachment, _ = site.add(gateway_network(hairpinMode=True), container, "web")
    assert "hairpin on" in host.run(f"bridge -d link show dev {attachment.host_name}")
    site.delete(attachment)
    attachment, _ = site.add(gateway_network(), container, "web")
    assert "hairpin off" in host.run(f"bridge -d link show dev {attachment.host_name}")


def test_promiscuous_bridge(host: Host, site: Site) -> None:
    site.add(make_network(promiscMode=True), host.container("web"), "web")
    assert "PROMISC" in dump(host)["links"]["br0"]["flags"]


def test_a_forged_mac_does_not_pass(host: Host, site: Site) -> None:
    network = gateway_network(macspoofchk=True)
    container = host.container("web")
    site.add(network, container, "web")
    assert ping_works(container, "10.1.0.1")
    container.run("ip link set eth0 address 02:00:00:00:00:99")
    assert not ping_works(container, "10.1.0.1")


def test_bandwidth_comes_and_goes(host: Host, site: Site) -> None:
    before = dump(host)
    limits = Bandwidth(8_000_000, 800_000, 4_000_000, 400_000)
    attachment, result = site.add(gateway_network(), host.container("web"), "web", bandwidth=limits)
    ifb = result.interfaces[3].name
    assert "rate 8Mbit burst 100" in host.run(f"tc qdisc show dev {attachment.host_name} root")
    assert "rate 4Mbit burst 50" in host.run(f"tc qdisc show dev {ifb} root")
    redirect = host.run(f"tc filter show dev {attachment.host_name} parent ffff:")
    assert f"Egress Redirect to device {ifb}" in redirect
    site.delete(attachment)
    site.demand_nothing_left(before)


@pytest.mark.parametrize("key", ["vlan", "vlanTrunk"])
def test_vlans_where_the_kernel_has_none(host: Host, site: Site, key: str) -> None:
    if probe_vlan_filtering():
        pytest.skip("this kernel filters VLANs")
    before = dump(host)
    value: Any = 10 if key == "vlan" else [{"id": 10}]
    with pytest.raises(UnsupportedError, match=f"'{key}' cannot be served"):
        site.add(make_network(**{key: value}), host.container("web"), "web")
    site.demand_nothing_left(before)


# the border, by real packets


def neighbour_of(host: Host, make_host: MakeHost) -> Host:
    """Another host, 192.0.2.2, beside ours, 192.0.2.1, which it takes for a router."""
    other = make_host("neighbour")
    host.run(
        f"ip link add up0 type veth peer name up0 netns {other.name}"
        " && ip addr add 192.0.2.1/24 dev up0 && ip link set up0 up"
    )
    other.run("ip addr add 192.0.2.2/24 dev up0 && ip link set up0 up")
    other.run("ip route add 10.0.0.0/8 via 192.0.2.1")
    return other


@pytest.mark.parametrize(
    ("keys", "outward", "inward"),
    [({}, True, False), ({"routed": True}, True, True), ({"internal": True}, False, False)],
    ids=["plain", "routed", "internal"],
)
def test_what_crosses_the_border(
    host: Host, site: Site, make_host: MakeHost, keys: dict[str, Any], outward: bool, inward: bool
) -> None:
    other = neighbour_of(host, make_host)
    container = host.container("web")
    site.add(gateway_network(**keys), container, "web")
    assert ping_works(container, "10.1.0.1")
    assert ping_works(container, "192.0.2.2") == outward
    assert ping_works(other, "10.1.0.2") == inward


@pytest.mark.parametrize("isolate", [False, True])
def test_isolation_between_networks(host: Host, site: Site, isolate: bool) -> None:
    one, two = host.container("one"), host.container("two")
    site.add(gateway_network("one", isolate=isolate), one, "one")
    site.add(gateway_network("two", {"subnet": "10.2.0.0/24"}, bridge="br1"), two, "two")
    assert ping_works(one, "10.2.0.2") == (not isolate)
    assert ping_works(two, "10.1.0.2") == (not isolate)


# published ports


def test_a_port_of_another_container(host: Host, site: Site) -> None:
    network = gateway_network()
    first, _ = site.add(network, host.container("one"), "one", ports=(Port(8080, 80),))
    before, rows = dump(host), site.rows()
    with pytest.raises(Conflict, match=r"8080/tcp is taken.*lan/one/eth0"):
        site.add(network, host.container("two"), "two", ports=(Port(81, 81), Port(8080, 80)))
    assert not differing(before, dump(host)) and site.rows() == rows
    site.delete(first)
    site.add(network, host.container("three"), "three", ports=(Port(8080, 80),))


def test_a_port_of_a_process(host: Host, site: Site) -> None:
    before = dump(host)
    listener = host.call(lambda: socket.create_server(("0.0.0.0", 8080)))
    with listener, pytest.raises(Conflict) as caught:
        site.add(gateway_network(), host.container("web"), "web", ports=(Port(8080, 80),))
    assert str(os.getpid()) in f"{caught.value}"
    site.demand_nothing_left(before)


def test_route_localnet_only_for_ports_on_localhost(host: Host, site: Site) -> None:
    elsewhere = Port(8080, 80, host_ip=ip_address("192.0.2.1"))
    site.add(gateway_network(), host.container("one"), "one", ports=(elsewhere,))
    assert read(host, "ipv4/conf/br0/route_localnet") == "0"
    site.add(gateway_network(), host.container("two"), "two", ports=(Port(8081, 80),))
    assert read(host, "ipv4/conf/br0/route_localnet") == "1"
    assert read(host, "ipv4/conf/all/route_localnet") == "0"


def test_ports_that_no_address_can_serve(host: Host, site: Site) -> None:
    container = host.container("web")
    for port, network in (
        (Port(8080, 80, host_ip=ip_address("::1")), gateway_network("lan", V4, V6)),
        (Port(8080, 80, host_ip=ip_address("2001:db8::1")), gateway_network()),
        (Port(8080, 80), make_network(ipam={})),
        (Port(8080, 80), gateway_network(internal=True)),
    ):
        before = dump(host)
        with pytest.raises(ConfigError, match="cannot be published"):
            site.add(network, container, "web", ports=(port,))
        site.demand_nothing_left(before)


# DEL in odd circumstances


def test_del_with_the_namespace_gone(host: Host, site: Site) -> None:
    before = dump(host)
    container = host.container("web")
    attachment, _ = site.add(gateway_network("lan", V4, V6), container, "web")
    host.run(f"ip netns del {container.name}")
    os.close(container.fd)  # the last that held it
    container.fd = os.open("/dev/null", os.O_RDONLY)
    site.delete(attachment)
    site.delete(attachment)
    site.demand_nothing_left(before)


def test_del_with_the_path_reused(host: Host, site: Site) -> None:
    """The path leads to another container's namespace now: it is not touched."""
    before = dump(host)
    container = host.container("web")
    attachment, _ = site.add(gateway_network(), container, "web")
    other = host.container("other")
    other.run("ip link add eth0 type bridge && ip link set eth0 up")
    other.run("ip addr add 10.1.0.2/24 dev eth0")
    inside = dump(other)
    host.run(f"umount -l {container.path} && mount --bind {other.path} {container.path}")
    site.delete(attachment)
    assert not differing(inside, dump(other))
    site.demand_nothing_left(before)


def test_del_twice_and_of_what_never_was(host: Host, site: Site) -> None:
    before = dump(host)
    container = host.container("web")
    attachment, _ = site.add(gateway_network(), container, "web")
    site.delete(attachment)
    site.delete(attachment)
    site.delete(site.attachment(gateway_network(), None, "stranger"))
    site.demand_nothing_left(before)


def test_del_without_a_record_goes_by_the_marks(host: Host, site: Site) -> None:
    """The state file was lost: links and rules of the attachment are found by name and owner."""
    limits = Bandwidth(egress_rate=4_000_000)
    network = gateway_network("lan", V4, macspoofchk=True)
    attachment, _ = site.add(
        network, host.container("web"), "web", ports=(Port(8080, 80),), bandwidth=limits
    )
    with site.engine() as engine, engine.state.transaction() as db:
        engine.state.drop(db, engine.host.id, attachment.owner)
    site.delete(attachment)
    left = dump(host)
    assert {*left["links"]} == {"lo", "br0"}
    assert attachment.tag not in str(left["nft"])
    host.run("ip link del br0; nft flush ruleset")


def test_a_second_add_of_a_living_attachment_changes_nothing(host: Host, site: Site) -> None:
    container = host.container("web")
    site.add(gateway_network(), container, "web")
    before, rows = dump(host), site.rows()
    with pytest.raises(Conflict, match="attached to network lan"):
        site.add(gateway_network(), container, "web")
    assert not differing(before, dump(host)) and site.rows() == rows


def test_an_add_over_a_dead_attachment(host: Host, site: Site) -> None:
    """The engine lost the container without a DEL, and reuses its id."""
    old = host.container("old")
    site.add(gateway_network(), old, "web")
    host.run(f"ip netns del {old.name}")
    os.close(old.fd)
    old.fd = os.open("/dev/null", os.O_RDONLY)
    while "veth" in host.run("ip -br link"):  # the kernel ends namespaces in the background
        time.sleep(0.02)
    attachment, result = site.add(gateway_network(), host.container("new"), "web")
    site.check(attachment, result)


def test_errors_say_why_and_what_next(host: Host, site: Site) -> None:
    network: Network = gateway_network()
    attachment = site.attachment(network, None, "web")
    with site.engine() as engine, pytest.raises(NetplugError) as caught:
        engine.add(network, attachment)
    assert caught.value.why and caught.value.hint


# the host's own default route, learned from router advertisements


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def router_advertisement(source: str) -> bytes:
    """An ICMPv6 message (RFC 4861, 4.2): a router for 1800 s, and no prefix."""
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
    ends = socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, "ff02::1")
    pseudo = ends + struct.pack("!II", len(body), socket.IPPROTO_ICMPV6)
    return body[:2] + struct.pack("!H", checksum(pseudo + body)) + body[4:]


def advertise(router: Host) -> None:
    def send() -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as raw:
            raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            index = socket.if_nametoindex("up0")
            raw.bind(("fe80::1", 0, 0, index))
            raw.sendto(router_advertisement("fe80::1"), ("ff02::1", 0, 0, index))

    router.call(send)


def test_a_default_route_from_router_advertisements_survives(
    host: Host, site: Site, make_host: MakeHost
) -> None:
    """Forwarding would make the kernel drop it; accept_ra=2 on that link alone keeps it."""
    router = neighbour_of(host, make_host)
    router.run("ip -6 addr add fe80::1/64 dev up0 nodad")
    while not host.run("ip -6 route show default"):
        advertise(router)
        time.sleep(0.05)
    site.add(gateway_network("lan", V4, V6), host.container("web"), "web")
    assert read(host, "ipv6/conf/all/forwarding") == "1"
    assert read(host, "ipv6/conf/up0/accept_ra") == "2"
    assert read(host, "ipv6/conf/br0/accept_ra") == "0"
    assert "proto ra" in host.run("ip -6 route show default")
    host.run("ip -6 route del default dev up0")
    while not host.run("ip -6 route show default"):  # it still listens
        advertise(router)
        time.sleep(0.05)
    assert ip_interface("fd00:1::1/64").ip  # the gateway is there beside it
    assert "fd00:1::1/64" in host.run("ip -6 addr show br0")
