"""Overlay networks: what the tunnel costs, how soon nodes meet, and a thousand of them.

The nodes are namespaces on one switch, each with its agent; the store is an etcd.
"""

from __future__ import annotations

import itertools
import re
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ipaddress import ip_address

from agents import wait_for
from conftest import Host
from etcd_cluster import Cluster
from overlay_world import Container, Node, World, make_overlay

from bench.case import Case, Contender, Setup, Target
from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.rtnl import Rtnl
from netplug.overlay.keys import Advert, Claim, Keys, pack
from netplug.overlay.plan import vtep_mac
from netplug.store.etcd import EtcdStore

PEERS = 1000
RANGE = "10.128.0.0/9"
MEGABYTES = 512
NETPLUG, BY_HAND = "netplug", "VXLAN by hand"
ROUTES = 0x40  # RTMGRP_IPV4_ROUTE


class Places:
    """Hosts of this case, with names of their own."""

    def __init__(self, stack: ExitStack, prefix: str) -> None:
        self._stack, self._prefix, self._numbers = stack, prefix, itertools.count(1)

    def __call__(self, name: str) -> Host:
        host = Host(f"{self._prefix}{name}{next(self._numbers)}")
        self._stack.callback(host.close)
        return host


def make_world(setup: Setup, stack: ExitStack, name: str, *, store: str = "") -> World:
    folder = setup.folder / name
    folder.mkdir()
    text = store or f'[store]\npath = "{folder}/cluster.db"'
    world = World(Places(stack, name), folder, text)
    stack.callback(world.close)
    return world


# --- throughput


class Pipe:
    """Sends over TCP from one namespace to the other."""

    def __init__(self, name: str, source: Host, target: Host, address: str) -> None:
        self.name = name
        self._source, self._target, self._address = source, target, address

    def measure(self) -> Mapping[str, float]:
        listener = self._target.call(lambda: socket.create_server((self._address, 0)))
        port = listener.getsockname()[1]
        code = (
            "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])));"
            f" b = bytes(1 << 20); [s.sendall(b) for _ in range({MEGABYTES})]"
        )
        command = ["python3", "-c", code, self._address, str(port)]
        with listener:
            sender = self._source.call(lambda: subprocess.Popen(command))
            connection, _ = listener.accept()
            buffer = bytearray(1 << 20)
            began = time.perf_counter()
            with connection:
                while connection.recv_into(buffer):
                    pass
            taken = time.perf_counter() - began
            sender.wait()
        return {f"{MEGABYTES} MiB over TCP": 1000 * taken}


def make_pipes(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    world = make_world(setup, stack, "pipe")
    network = make_overlay()
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    wait_for(lambda: a.reaches(b))
    return [by_hand(world, stack), Pipe(NETPLUG, a.place, b.place, b.addresses[0])]


def by_hand(world: World, stack: ExitStack) -> Pipe:
    """A bridge and a VXLAN port on each host, static entries, nothing else: no firewall."""
    places = Places(stack, "hand")
    hosts, insides = [], []
    for number in (1, 2):
        host = places("h")
        world.plug(host, f"hand{number}", f"192.0.2.{100 + number}/24")
        inside = host.container("c")
        other = 3 - number
        host.run(
            "ip link add br0 type bridge && ip link set br0 up &&"
            f" ip link add vx type vxlan id 9 dstport 4789 local 192.0.2.{100 + number}"
            " nolearning && ip link set vx mtu 1450 master br0 up &&"
            f" bridge fdb append 02:00:00:00:00:0{other} dev vx dst 192.0.2.{100 + other} self &&"
            f" ip link add v0 mtu 1450 master br0 type veth peer name eth0 mtu 1450"
            f" address 02:00:00:00:00:0{number} netns {inside.name} && ip link set v0 up"
        )
        inside.run(
            f"ip addr add 10.77.0.{number}/24 dev eth0 && ip link set eth0 up &&"
            f" ip neigh add 10.77.0.{other} lladdr 02:00:00:00:00:0{other} dev eth0"
        )
        hosts.append(host)
        insides.append(inside)
    return Pipe(BY_HAND, insides[0], insides[1], "10.77.0.2")


# --- meeting


class Meeting:
    """A node joins, a peer comes, the store goes: milliseconds, and packets lost."""

    name = NETPLUG

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        self._setup, self._stack = setup, stack
        self._rounds = itertools.count(1)

    def measure(self) -> Mapping[str, float]:
        with ExitStack() as stack:
            number = next(self._rounds)
            cluster = start_etcd(self._setup, stack, f"meet{number}")
            world, switch = etcd_world(self._setup, stack, f"m{number}", cluster)
            network = make_overlay()
            one, two = world.node(), world.node()
            a = one.run(network, "a")
            place = two.host.container("b")
            began = time.perf_counter()
            attachment, result = two.add(network, place, name="b")
            b = Container(two, place, attachment, result)
            while not b.pings(a.addresses[0], seconds=1):
                pass
            joined = time.perf_counter() - began
            wait_for(lambda: one.peers() == {"n2": "present"})
            lost = self._outage(cluster, a, b, one)
            del switch
            return {"join to first packet (ms)": 1000 * joined, "lost in an outage": lost}

    def _outage(self, cluster: Cluster, a: Container, b: Container, node: Node) -> float:
        wait_for(lambda: a.reaches(b))
        command = ["ping", "-i", "0.002", "-q", b.addresses[0]]
        ping = a.place.call(lambda: subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        cluster.kill(0)
        wait_for(lambda: not node.status()["connected"])
        cluster.start()
        wait_for(lambda: node.status()["connected"])
        ping.send_signal(signal.SIGINT)
        said = ping.communicate()[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found is not None, said
        return float(int(found[1]) - int(found[2]))


def start_etcd(setup: Setup, stack: ExitStack, name: str) -> Cluster:
    folder = setup.folder / name
    folder.mkdir()
    places = Places(stack, name)
    host = places("etcd")
    cluster = Cluster(folder, ("192.0.2.200",), places=[host.call])
    stack.callback(cluster.close)
    cluster.host = host  # type: ignore[attr-defined]
    return cluster


def etcd_world(setup: Setup, stack: ExitStack, name: str, cluster: Cluster) -> tuple[World, Host]:
    ends = ", ".join(f'"{end}"' for end in cluster.endpoints)
    world = make_world(setup, stack, name, store=f"[store]\nendpoints = [{ends}]")
    world.plug(cluster.host, "store", "192.0.2.200/24")  # type: ignore[attr-defined]
    cluster.start()
    return world, world.switch


# --- a thousand peers


class Thousand:
    """Peers that exist in the store alone; their entries in the kernel are real."""

    name = NETPLUG

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        cluster = start_etcd(setup, stack, "many")
        world, _ = etcd_world(setup, stack, "t", cluster)
        self._keys, self._network = Keys(), make_overlay("web", RANGE)
        self._node = world.node()
        self._node.join(self._network)
        admin = Places(stack, "many")("admin")
        world.plug(admin, "admin", "192.0.2.250/24")
        self._store = admin.call(lambda: EtcdStore(cluster.endpoints))
        stack.callback(self._store.close)
        own = int(str(self._node.status()["subnets"][0]).split(".")[1])
        setup.say(f"{PEERS} peers")
        self._slots = iter(slot for slot in itertools.count(1) if slot // 256 + 128 != own)
        for _ in range(PEERS):
            self._add()
        wait_for(lambda: self._routes() == PEERS, "the peers")
        wait_for(lambda: self._node.whole(), "their entries")

    def _add(self) -> str:
        """One more peer; its subnet."""
        slot = next(self._slots)
        node = f"peer{slot}"
        epoch = self._store.create(self._keys.claim("web", slot), pack(Claim(node, node)))
        address = ip_address(int(ip_address("10.99.0.0")) + slot)
        advert = Advert(node, node, address, slot, epoch or 0, vtep_mac("web", node))
        self._store.create(self._keys.advert("web", node), pack(advert))
        return node

    def _routes(self) -> int:
        rtnl = Rtnl(self._node.host.fd)
        try:
            index = rtnl.index("vx-web")
            return 0 if index is None else sum(1 for r in rtnl.routes(index) if r.gw)
        finally:
            rtnl.close()

    def measure(self) -> Mapping[str, float]:
        events = netlink_socket(self._node.host.fd, socket.NETLINK_ROUTE)
        with events:
            events.bind((0, ROUTES))
            began = time.perf_counter()
            self._add()
            events.recv(1 << 16)
            change = time.perf_counter() - began
        count = self._routes()
        began = time.perf_counter()
        self._node.host.run("ip link del vx-web")
        wait_for(lambda: self._routes() == count, "the routes")
        whole = time.perf_counter() - began
        wait_for(lambda: self._node.whole(), "the entries")
        return {
            "a new peer (ms)": 1000 * change,
            f"all of {PEERS} anew (ms)": 1000 * whole,
            "agent (MiB)": self._node.station.resident() / 1024,
        }


def make_meeting(setup: Setup, stack: ExitStack) -> list[Contender]:
    return [Meeting(setup, stack)]


def make_thousand(setup: Setup, stack: ExitStack) -> list[Contender]:
    return [Thousand(setup, stack)]


def _absolute(limit: float) -> Target:
    return Target(limit, relative=False)


CASES = (
    Case(
        "overlay-pipe",
        "TCP between containers of two nodes, beside a VXLAN without firewall made by hand",
        make_pipes,
        {(f"{MEGABYTES} MiB over TCP", NETPLUG): Target(1 / 0.97)},
    ),
    Case(
        "overlay-meet",
        "a node joins an overlay network; its store is away for a while",
        make_meeting,
        {
            ("join to first packet (ms)", NETPLUG): _absolute(1000),
            ("lost in an outage", NETPLUG): _absolute(0),
        },
        unit="",
        once=True,
    ),
    Case(
        "overlay-many",
        f"a node of an overlay network with {PEERS} others",
        make_thousand,
        {
            ("a new peer (ms)", NETPLUG): _absolute(20),
            (f"all of {PEERS} anew (ms)", NETPLUG): _absolute(1500),
            ("agent (MiB)", NETPLUG): _absolute(120),
        },
        unit="",
        once=True,
    ),
)
