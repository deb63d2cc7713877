"""Topologies in the real kernel: who reaches whom, properties of links, errors, residue."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from netplug.draw import scene_of
from netplug.errors import Conflict, KernelRefused, NotFound, UnsupportedError
from netplug.fixtures import Topology, build, load, names, parse_topology
from netplug.fixtures.observe import read_seen
from netplug.fixtures.pytest_fixture import Lab, MakeLab
from netplug.fixtures.running import netem_supported
from netplug.kernel import batch
from netplug.kernel.namespaces import netlink_socket, new_namespace

PORT = 4711


def reaches(lab: Lab, sender: str, receiver: str, *, version: int = 4, port: int = PORT) -> bool:
    """Whether the first UDP packet from one node arrives at the first address of another."""
    address = str(lab.running.topology.address(receiver, 6 if version == 6 else 4))
    family = socket.AF_INET6 if version == 6 else socket.AF_INET

    def listen() -> socket.socket:
        server = socket.socket(family, socket.SOCK_DGRAM)
        server.bind((address, port))
        server.settimeout(2)
        return server

    def talk() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as client:
            client.sendto(b"hello", (address, port))

    with lab.running.in_node(receiver, listen) as server:
        try:
            lab.running.in_node(sender, talk)
        except OSError:
            return False
        try:
            return server.recv(100) == b"hello"
        except TimeoutError:
            return False


@pytest.mark.parametrize("name", names())
def test_every_host_of_a_shipped_topology_reaches_its_gateways(
    topology: MakeLab, name: str
) -> None:
    lab = topology(name)
    for node in lab.running.topology.nodes:
        for route in node.routes:
            gateway = next(
                other.name
                for other in lab.running.topology.nodes
                for end in lab.running.topology.ends(other.name)
                if route.gateway in [address.ip for address in end.addresses]
            )
            assert reaches(lab, node.name, gateway, version=route.gateway.version)


def test_two_hosts(topology: MakeLab) -> None:
    lab = topology("two-hosts")
    assert reaches(lab, "red", "blue")
    assert reaches(lab, "blue", "red")
    assert "02:00:0a:00:01:02" in lab.nodes["red"].run("ip link show eth0")
    assert "master br0" in lab.wire.run("ip link show red-eth0")
    assert "inet" not in lab.wire.run("ip addr show dev br0")


def test_dual_stack_through_a_router(topology: MakeLab) -> None:
    lab = topology("dual-stack")
    for version in (4, 6):
        assert reaches(lab, "web", "db", version=version)
        assert reaches(lab, "db", "web", version=version)
    assert "tentative" not in lab.nodes["web"].run("ip -6 addr show scope global")


def test_hosts_do_not_forward_routers_do(topology: MakeLab) -> None:
    lab = topology("neighbour")
    for name, expected in (("machine", "0"), ("neighbour", "0"), ("r", "1")):
        assert lab.nodes[name].run("cat /proc/sys/net/ipv4/ip_forward").strip() == expected
    assert reaches(lab, "outside", "machine")
    assert reaches(lab, "neighbour", "machine", version=6)


def test_smaller_mtu_of_a_link(topology: MakeLab) -> None:
    lab = topology("two-routers")
    assert "mtu 1400" in lab.nodes["r1"].run("ip link show eth1")
    assert "mtu 1400" in lab.nodes["r2"].run("ip link show eth0")
    assert "mtu 1500" in lab.nodes["r1"].run("ip link show eth0")
    assert reaches(lab, "left", "right")


def test_nat_hides_what_is_behind_it(topology: MakeLab) -> None:
    lab = topology("home")
    server = str(lab.running.topology.address("server"))

    def listen() -> socket.socket:
        listener = socket.create_server((server, PORT))
        listener.settimeout(2)
        return listener

    def connect() -> socket.socket:
        return socket.create_connection((server, PORT), timeout=2)

    with lab.running.in_node("server", listen) as listener:
        lab.running.in_node("laptop", connect).close()
        connection, (seen, _) = listener.accept()
        connection.close()
    assert seen == "203.0.113.1"
    assert not reaches(lab, "server", "laptop")


def test_a_tree_of_switches(topology: MakeLab) -> None:
    lab = topology("switch-tree")
    assert reaches(lab, "a", "b")
    assert reaches(lab, "a", "d")


def test_links_go_down_and_up(topology: MakeLab) -> None:
    lab = topology("two-hosts")
    lab.running.set_link("red", "br0", up=False)
    assert not reaches(lab, "blue", "red")
    lab.running.set_link("br0", "red", up=True, mtu=1300)
    assert reaches(lab, "blue", "red")
    assert "mtu 1300" in lab.nodes["red"].run("ip link show eth0")
    with pytest.raises(NotFound, match="no link red - blue"):
        lab.running.set_link("red", "blue", up=False)
    with pytest.raises(NotFound) as caught:
        lab.running.in_node("rde", os.getpid)
    assert caught.value.hint == "did you mean red?"


def test_a_link_that_starts_down(topology: MakeLab) -> None:
    keys = {
        "hosts": {"a": ["10.0.0.2/24"], "b": ["10.0.0.3/24"]},
        "links": [{"a": "a", "b": "b", "up": False}],
    }
    lab = topology(keys)
    assert "state DOWN" in lab.nodes["a"].run("ip link show eth0")
    lab.running.set_link("a", "b", up=True)
    assert reaches(lab, "a", "b")


def test_hosts_without_addresses_wait_to_be_configured(topology: MakeLab) -> None:
    lab = topology({"hosts": {"a": None, "b": []}, "links": [{"a": "a", "b": "b"}]})
    assert "inet 127.0.0.1" in lab.nodes["a"].run("ip addr")
    lab.nodes["a"].run("ip addr add 10.0.0.1/24 dev eth0")
    assert "10.0.0.0/24" in lab.nodes["a"].run("ip route")


def test_names_in_run_netns(topology: MakeLab) -> None:
    lab = topology("two-hosts", names="lab-")
    assert sorted(os.listdir("/run/netns")) == ["lab-blue", "lab-red", "lab-wire"]
    inside = lab.nodes["red"].run("readlink /proc/self/ns/net")
    assert lab.nodes["red"].path == "/run/netns/lab-red"
    assert f"net:[{os.stat('/run/netns/lab-red').st_ino}]" == inside.strip()
    with pytest.raises(Conflict, match="the name is taken"):
        build(load("two-hosts"), names="lab-")
    assert len(os.listdir("/run/netns")) == 3, "a failed build removes nothing of others"
    lab.running.close()
    assert os.listdir("/run/netns") == []


def test_nameless_namespaces_have_a_path_too(topology: MakeLab) -> None:
    lab = topology("two-hosts")
    assert "10.0.1.2" in lab.wire.run(f"nsenter --net={lab.nodes['red'].path} ip addr")


def test_a_refused_request_is_named_and_leaves_nothing() -> None:
    descriptors = set(os.listdir("/proc/self/fd"))
    wrong = {"hosts": {"a": ["10.0.0.2/24", "ff02::1/64"]}, "switches": {"s": ["a"]}}
    with pytest.raises(KernelRefused) as caught:
        build(parse_topology(wrong, name="t"))
    assert caught.value.what == "address ff02::1/64 cannot be added"
    assert caught.value.errno
    assert set(os.listdir("/proc/self/fd")) == descriptors


def test_errors_carry_the_kernels_explanation() -> None:
    fd = new_namespace()
    try:
        with netlink_socket(fd, socket.NETLINK_ROUTE) as carrier:
            good = batch.new_bridge("s", index=21)
            bad = batch.set_link(99, name="ghost", up=True)
            answers = batch.exchange(carrier, [good, bad, batch.set_link(21, name="s", mtu=1400)])
            assert [a and a.errno for a in answers] == [None, 19, None], "later ones are tried"
            with pytest.raises(KernelRefused, match="link ghost cannot be changed: No such device"):
                batch.send(carrier, [bad])
            unknown = batch.new_loss(1, name="lo", percent=1.0)
            answer = batch.exchange(carrier, [unknown])[0]
            assert answer is None or "qdisc" in answer.text
    finally:
        os.close(fd)


def test_more_requests_than_one_sendmsg_carries() -> None:
    fd = new_namespace()
    try:
        with netlink_socket(fd, socket.NETLINK_ROUTE) as carrier:
            count = 3 * batch.IN_FLIGHT + 1
            batch.send(carrier, [batch.new_bridge(f"s{i}", index=100 + i) for i in range(count)])
    finally:
        os.close(fd)


def lossy() -> Topology:
    keys = {
        "hosts": {"a": ["10.0.0.2/24"], "b": ["10.0.0.3/24"]},
        "links": [{"a": "a", "b": "b", "loss": "100%"}],
    }
    return parse_topology(keys, name="lossy")


@pytest.mark.skipif(netem_supported(), reason="this kernel has netem")
def test_loss_without_netem_is_refused() -> None:
    with pytest.raises(UnsupportedError) as caught:
        build(lossy())
    assert caught.value.what == "lossy: links (a - b).loss"
    assert "sch_netem" in caught.value.hint


@pytest.mark.skipif(not netem_supported(), reason="this kernel has no netem")
def test_loss_with_netem() -> None:
    with build(lossy()) as running:
        shells: Any = running.nodes
        assert not reaches(Lab(running, shells, shells["a"]), "a", "b")


def star(count: int) -> Topology:
    hosts = {f"h{i}": [f"10.0.{i // 250}.{i % 250 + 1}/16"] for i in range(count)}
    return parse_topology({"hosts": hosts, "switches": {"s": list(hosts)}}, name="star")


def test_fifty_nodes(topology: MakeLab, tmp_path: Path) -> None:
    with build(star(50)) as running:
        lab = Lab(running, {}, None)  # type: ignore[arg-type]
        assert reaches(lab, "h0", "h49")
        assert reaches(lab, "h49", "h25")


def test_what_became_of_a_topology_is_read_from_the_kernel(topology: MakeLab) -> None:
    running = topology("two-routers").running
    assert scene_of(running.topology, read_seen(running)) == scene_of(running.topology)
    running.set_link("r1", "r2", up=False)
    running.set_link("right", "r2", mtu=1300)
    scene = scene_of(running.topology, read_seen(running))
    assert {(link.a.box, link.b.box): (link.up, link.note) for link in scene.links} == {
        ("r1", "left"): (True, ""),
        ("r1", "r2"): (False, "mtu 1400"),
        ("r2", "right"): (True, "mtu 1300"),
    }


def test_ports_of_switches_are_read_too(topology: MakeLab) -> None:
    running = topology("switch-tree").running
    assert scene_of(running.topology, read_seen(running)) == scene_of(running.topology)
