"""Overlay networks over simulated nodes, with one SQLite file as their store."""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import ask as call_agent
from agents import wait_for
from attaching import dump
from dns_client import ask, data
from overlay_world import RANGE4, RANGE6, Container, Node, World, make_overlay, running

from netplug.errors import Conflict, Unavailable, UnsupportedError
from netplug.kernel import wireguard
from netplug.model import Network
from netplug.store.sqlite import SqliteStore

if TYPE_CHECKING:
    from conftest import Host


@pytest.fixture
def world(make_host: Callable[[str], Host], tmp_path: Path) -> Iterator[World]:
    with running(World(make_host, tmp_path, f'[store]\npath = "{tmp_path}/cluster.db"')) as made:
        yield made


def test_containers_of_two_nodes_reach_each_other(world: World) -> None:
    """In both families; with their own addresses, for masquerade ends at the range."""
    network = make_overlay("web", RANGE4, RANGE6)
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    heard = b.place.start("timeout 5 tcpdump -lnc 1 -i eth0 icmp 2>/dev/null")
    assert wait_until(lambda: a.reaches(b))
    assert heard.stdout is not None
    if line := heard.stdout.read():  # where tcpdump is installed
        assert f"{a.addresses[0]} > {b.addresses[0]}" in line
    assert "1 received" in one.host.run(f"ping -c 1 -W 2 {b.addresses[0]}")
    assert b.reaches(a)
    one.check(a.attachment)
    one.delete(a.attachment)
    two.delete(b.attachment)


def wait_until(done: Callable[[], object]) -> bool:
    wait_for(done)
    return True


def test_a_device_made_anew_and_a_lost_entry_come_back(world: World) -> None:
    network = make_overlay()
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    before = one.host.run("ip -br link show vx-web").split()[2]
    one.host.run("ip link del vx-web")
    wait_for(lambda: one.host.run("ip -br link show vx-web", check=False), "the device")
    assert one.host.run("ip -br link show vx-web").split()[2] == before
    wait_for(lambda: one.whole(), "its entries")
    assert a.reaches(b)
    subnet = two.status()["subnets"][0]
    for command in (
        f"ip route del {subnet}",
        f"ip neigh del {subnet.partition('/')[0]} dev vx-web",
        f"bridge fdb del {one.status()['peer_list'][0]['mac']} dev vx-web dst 192.0.2.2 self",
    ):
        one.host.run(command)
        wait_for(lambda: one.whole(), command)
    one.host.run("ip route add 10.200.99.0/24 via 10.200.99.0 dev vx-web onlink proto 110")
    one.host.run(f"ip route del {subnet}")  # what is lost is noticed at once, a stray with it
    wait_for(lambda: "10.200.99.0" not in one.host.run("ip route"), "removal of a stray route")
    assert a.reaches(b)
    check_mtu(one, network, a, b)


def check_mtu(one: Node, network: Network, a: Container, b: Container) -> None:
    """It is the underlay's less what wraps a frame, and follows the underlay's changes."""
    whole = 1450 - 28
    assert a.pings(b.addresses[0], more=f"-M do -s {whole}")
    assert not a.pings(b.addresses[0], more=f"-M do -s {whole + 1}", seconds=1)
    one.host.run("ip link set eth0 mtu 1400")
    wait_for(lambda: "mtu 1350 " in one.host.run("ip link show vx-web"), "the new MTU")
    later = one.run(network, "later")
    assert "mtu 1350 " in later.place.run("ip link show eth0")
    assert later.reaches(b)


def test_an_underlay_of_ipv6(world: World) -> None:
    network = make_overlay("web", RANGE6)
    one, two = world.node("2001:db8::1/64"), world.node("2001:db8::2/64")
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    assert a.reaches(b) and b.reaches(a)
    assert "mtu 1430 " in one.host.run("ip link show vx-web")


def test_direct_routes_on_one_link(world: World) -> None:
    network = make_overlay(direct=True)
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    subnet = two.status()["subnets"][0]
    assert f"{subnet} via 192.0.2.2 dev eth0 proto 110" in one.host.run("ip route")
    assert not one.host.run("bridge fdb show dev vx-web dst 192.0.2.2")
    assert a.reaches(b)
    one.host.run(f"ip route del {subnet}")
    wait_for(lambda: subnet in one.host.run("ip route"), "the direct route")


def test_bridged_mode_is_one_subnet_without_flooding(world: World) -> None:
    network = make_overlay("flat", "10.77.0.0/16", mode="bridged")
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    assert str(a.result.ips[0].address.network) == "10.77.0.0/16"
    for node in (one, two):
        node.wait_entries(3, "flat")
    before = one.sent("vx-flat")
    assert not a.pings("10.77.250.250", seconds=1)  # nobody has it: no question leaves the node
    assert one.sent("vx-flat") == before
    assert a.reaches(b) and b.reaches(a)
    assert "ttl=64" in a.place.run(f"ping -c 1 {b.addresses[0]}")  # no router in between
    two.delete(b.attachment)
    wait_for(lambda: one.status("flat")["entries"]["actual"] == 0, "removal of the entries")


def test_names_are_visible_elsewhere_within_a_second(world: World) -> None:
    network = make_overlay()
    one, two = world.node(), world.node()
    one.join(network)
    began = time.monotonic()
    b = two.run(network, "db-container", aliases=("db",))
    added = time.monotonic()
    wait_for(lambda: one.ask("names", network="web")["names"], "the name")
    assert time.monotonic() - added < 1, time.monotonic() - began
    [record] = one.ask("names", network="web")["names"]
    assert "db" in record["names"] and record["node"] == "n2"
    assert [a.partition("/")[0] for a in record["addresses"]] == b.addresses
    two.delete(b.attachment)
    wait_for(lambda: not one.ask("names", network="web")["names"], "its removal")


def test_containers_resolve_each_other_across_nodes(world: World) -> None:
    """By name, alias and address; also after the name server was started anew."""
    network = make_overlay("web", RANGE4, RANGE6, names=True)
    one, two = world.node(), world.node()
    try:
        a = one.run(network, "front")
        [server, *_] = a.result.dns.nameservers
        b = two.run(network, "database", aliases=("db",))
        added = time.monotonic()
        wait_for(lambda: data(ask(a.place, server, "db")) == b.addresses[:1], "the alias")
        assert time.monotonic() - added < 1
        assert data(ask(a.place, server, "database.web.internal", "AAAA")) == b.addresses[1:]
        reverse = ip_address(b.addresses[0]).reverse_pointer
        assert data(ask(a.place, server, reverse, "PTR")) == ["db.web.internal."]
        other = b.result.dns.nameservers[0]
        wait_for(lambda: resolves(b, other, "front") == a.addresses[:1], "the other way")
        os.kill(one.name_server(), signal.SIGKILL)
        wait_for(lambda: resolves(a, server, "db") == b.addresses[:1], "the new name server")
        two.delete(b.attachment)
        wait_for(lambda: not resolves(a, server, "db"), "the removal of the name")
        one.delete(a.attachment)
    finally:
        for node in (one, two):
            node.station.stop()  # and its name server


def resolves(container: Container, server: str, name: str) -> list[str]:
    try:
        return data(ask(container.place, server, name))
    except (OSError, AssertionError):  # nobody answers just now
        return []


def test_a_node_that_leaves_is_forgotten(world: World) -> None:
    network = make_overlay()
    one, two = world.node(), world.node()
    one.join(network)
    before = dump(two.host)
    b = two.run(network, "b")
    one.wait_peers(n2="present")
    with pytest.raises(Conflict, match="in use"):
        two.ask("leave", network="web")
    two.delete(b.attachment)
    two.ask("leave", network="web")
    one.wait_peers()
    assert one.status()["entries"]["actual"] == 0
    assert not two.host.run("ip -br link show type vxlan")
    assert "vx-web" not in str(before)
    one.ask("leave", network="web")
    store = SqliteStore(world.folder / "cluster.db")
    assert [entry.key for entry in store.list("/netplug/")[0]] == []
    store.close()


def test_what_the_cluster_knows_otherwise_is_refused(world: World) -> None:
    one, two = world.node(), world.node()
    one.join(make_overlay())
    with pytest.raises(Conflict, match="another 'ranges'"):
        two.join(make_overlay("web", "10.201.0.0/16"))
    with pytest.raises(Conflict, match="another 'port'"):
        two.join(make_overlay(port=8472))
    assert not two.host.run("ip -br link show type vxlan")


def test_a_foreign_device_with_our_vni_is_named(world: World) -> None:
    node = world.node()
    node.host.run("ip link add other type vxlan id 77 dstport 4789 local 192.0.2.1")
    with pytest.raises(Unavailable, match="the link other has it"):
        node.join(make_overlay(vni=77))
    assert node.ask("status")["networks"] == []  # nothing half made: not here
    store = SqliteStore(world.folder / "cluster.db")
    assert not store.list("/netplug/")[0]  # and not in the cluster
    store.close()
    node.host.run("ip link del other")
    node.join(make_overlay(vni=77))


def test_two_machines_of_one_name(world: World) -> None:
    network = make_overlay()
    one = world.node(name="same")
    one.join(network)
    two = world.node(name="twin", settings="")
    two.station.stop()
    two.config.write_text(two.config.read_text().replace('"twin"', '"same"'))
    two.start()
    with pytest.raises(Conflict, match="another machine is called same"):
        two.join(network)


def test_without_an_agent_add_says_what_to_do(world: World) -> None:
    network = make_overlay()
    node = world.node(start=False)
    with pytest.raises(Unavailable, match="agent does not answer") as caught:
        node.run(network, "a")
    assert "netplug agent start" in caught.value.hint


def test_a_clock_that_jumps(world: World, tmp_path: Path) -> None:
    """Nothing is decided by the time of day: an agent whose clock goes wrong stays present."""
    network = make_overlay()
    one, two = world.node(), world.node(start=False)
    one.join(network)
    offset = tmp_path / "offset"
    offset.write_text("1e8")
    real = time.time

    def sabotage() -> None:
        time.time = lambda: real() + float(offset.read_text())

    two.host.call(lambda: two.station.fork_configured(two.config, sabotage))
    two.join(network)
    one.wait_peers(n2="present")
    offset.write_text("-1e8")
    renewed = time.monotonic() + 2.5  # longer than a lease
    while time.monotonic() < renewed:
        time.sleep(0.2)
        assert one.peers() == {"n2": "present"} and two.peers() == {"n1": "present"}


def test_nobody_else_sends_into_the_tunnel(world: World) -> None:
    """A stranger on the underlay, and a node that speaks from a subnet not its own, are dropped."""
    network = make_overlay()
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    assert wait_until(lambda: a.reaches(b))
    vni, mac = one.status()["vni"], two.status()["peer_list"][0]["mac"]
    heard = a.place.start(f"{PYTHON} -c '{LISTEN}'")
    assert heard.stdout is not None
    assert heard.stdout.readline() == "ready\n"
    stranger = world.stranger("192.0.2.99/24")
    source = b.addresses[0]
    for sender, inner in ((stranger, source), (two.host, "10.200.250.9"), (two.host, source)):
        frame = render_frame(mac, inner, a.addresses[0], vni=vni, text=f"{sender.name} {inner}")
        sender.run(
            f'{PYTHON} -c "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);'
            f" s.sendto(bytes.fromhex('{frame.hex()}'), ('192.0.2.1', 4789))\""
        )
    assert heard.stdout.readline() == f"{two.host.name} {source}\n"  # the last, and no other


PYTHON = sys.executable
LISTEN = (
    "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
    ' s.bind(("", 9999)); print("ready", flush=True);'
    " print(s.recv(999).decode(), flush=True)"
)


def render_frame(mac: str, source: str, target: str, *, vni: int, text: str) -> bytes:
    """A VXLAN packet's payload (RFC 7348) with a UDP packet to port 9999 inside."""
    udp = struct.pack("!HHHH", 1, 9999, 8 + len(text), 0) + text.encode()
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0)
    ip += ip_address(source).packed + ip_address(target).packed
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    ethernet = bytes.fromhex(mac.replace(":", "")) + bytes.fromhex("020000000001") + b"\x08\x00"
    return struct.pack("!II", 0x08000000, vni << 8) + ethernet + ip + udp


def test_encryption_without_wireguard_is_refused(world: World) -> None:
    if wireguard.probe():
        pytest.skip("this kernel has WireGuard")
    node = world.node()
    with pytest.raises(UnsupportedError, match="this kernel has no WireGuard"):
        node.join(make_overlay(encrypt="wireguard"))
    assert node.ask("status")["networks"] == []


def test_encrypted_nodes_reach_each_other(world: World) -> None:
    if not wireguard.probe():
        pytest.skip("this kernel has no WireGuard (CONFIG_WIREGUARD): not verified here")
    network = make_overlay("web", RANGE4, RANGE6, encrypt="wireguard")
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    assert a.reaches(b) and b.reaches(a)


def test_an_engines_calls_through_the_agent(world: World) -> None:
    """The first ADD joins; STATUS, CHECK and DEL are served as on any network."""
    network = make_overlay()
    one, two = world.node(), world.node()
    b = two.run(network, "b")
    place = one.host.container("pod")
    environ = {
        "CNI_CONTAINERID": "pod",
        "CNI_NETNS": place.path,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere",
    }

    def call(verb: str, **more: object) -> Any:
        config = json.dumps({**network.raw, "cniVersion": "1.1.0", **more}).encode()
        variables = {**environ, "CNI_COMMAND": verb}
        status, said = call_agent(one.station.socket, one.host, variables, config)
        assert status == 0, said
        return json.loads(said) if said else None

    result = call("ADD")
    address = result["ips"][0]["address"].partition("/")[0]
    assert ip_address(address) in ip_network(one.status()["subnets"][0])
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    wait_for(lambda: b.pings(address), "the answer")
    call("STATUS")
    call("CHECK", prevResult=result)
    call("DEL")
    call("DEL")
    assert not b.pings(address, seconds=1)
