"""Overlay networks on an etcd of three members: what fails, and what goes on meanwhile.

The members live on hosts of their own, so that a node can be cut off from them alone.
"""

from __future__ import annotations

import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import wait_for
from etcd_cluster import Cluster
from overlay_world import Container, Node, World, make_overlay, running

from netplug.errors import Exhausted, Impaired
from netplug.model import Network
from netplug.overlay import claims
from netplug.overlay.keys import Keys, NetworkRecord
from netplug.overlay.membership import ranges_of
from netplug.store import Store
from netplug.store.etcd import EtcdStore

if TYPE_CHECKING:
    from conftest import Host

MEMBERS = ("192.0.2.201", "192.0.2.202", "192.0.2.203")


class EtcdWorld(World):
    def __init__(self, make_host: Callable[[str], Host], folder: Path) -> None:
        hosts = [make_host(f"etcd{number}") for number in range(3)]
        self.cluster = Cluster(folder, MEMBERS, places=[host.call for host in hosts])
        ends = ", ".join(f'"{end}"' for end in self.cluster.endpoints)
        super().__init__(make_host, folder, f"[store]\nendpoints = [{ends}]")
        for number, host in enumerate(hosts):
            self.plug(host, f"e{number}", f"{MEMBERS[number]}/24")
        self.admin = make_host("admin")
        self.plug(self.admin, "admin", "192.0.2.250/24")
        self.cluster.start()

    def close(self) -> None:
        super().close()
        self.cluster.close()


@pytest.fixture
def world(make_host: Callable[[str], Host], tmp_path: Path) -> Iterator[EtcdWorld]:
    with running(EtcdWorld(make_host, tmp_path)) as made:
        yield made


@pytest.fixture
def network() -> Network:
    return make_overlay()


class Traffic:
    """A ping a hundred times a second from one container to another."""

    def __init__(self, one: Container, other: Container) -> None:
        wait_for(lambda: one.reaches(other), "the first packet")
        self._process = one.place.call(
            lambda: subprocess.Popen(
                ["ping", "-i", "0.01", "-q", other.addresses[0]],
                stdout=subprocess.PIPE,
                text=True,
            )
        )

    def lost(self) -> int:
        """Packets without an answer, of those sent until now."""
        self._process.send_signal(signal.SIGINT)
        said = self._process.communicate()[0]
        found = re.search(r"(\d+) packets transmitted, (\d+) received", said)
        assert found is not None and int(found[2]) > 10, said
        return int(found[1]) - int(found[2])


def two_nodes(world: EtcdWorld, network: Network) -> tuple[Node, Node, Container, Container]:
    one, two = world.node(), world.node()
    a, b = one.run(network, "a"), two.run(network, "b")
    one.wait_peers(n2="present")
    two.wait_peers(n1="present")
    return one, two, a, b


def cut_off_store(node: Node, *, cut: bool) -> None:
    """The members do not answer this node, which can reach all else."""
    if cut:
        node.host.run(
            "nft 'table inet cut { chain o { type filter hook output priority 0;"
            f" ip daddr {{ {', '.join(MEMBERS)} }} drop; }}; }}'"
        )
    else:
        node.host.run("nft delete table inet cut")


def test_agents_and_nodes_that_die(world: EtcdWorld, network: Network) -> None:
    """A killed agent costs no packet; a dead node is quiet, and present again when it returns."""
    one, two, a, b = two_nodes(world, network)
    traffic = Traffic(a, b)
    two.station.kill()
    one.wait_peers(n2="quiet")
    one.station.kill()
    one.start()
    one.wait_peers(n2="quiet")  # remembered: nobody advertises it now
    two.start()
    one.wait_peers(n2="present")
    assert traffic.lost() == 0
    three = world.node()
    c = three.run(network, "c")
    one.wait_peers(n2="present", n3="present")
    assert c.reaches(a)
    three.delete(c.attachment)
    three.ask("leave", network="web")
    one.wait_peers(n2="present")


def store_outage(world: EtcdWorld, network: Network, seconds: float) -> None:
    """The leader dies, then a second member: traffic and local ADD go on, no entry moves."""
    one, two, a, b = two_nodes(world, network)
    traffic = Traffic(a, b)
    world.cluster.kill(world.cluster.leader())
    wait_for(lambda: one.status()["connected"], "the new leader")
    three = world.node()
    three.join(network)
    one.wait_peers(n2="present", n3="present")
    world.cluster.kill(min(world.cluster._processes))
    wait_for(lambda: not one.status()["connected"], "the loss of the quorum")
    ended = time.monotonic() + seconds
    later = one.run(network, "later")
    assert later.reaches(b)
    two.station.kill()
    two.start()  # an agent that begins while the store is away keeps its peers
    assert two.whole() and two.peers() == {"n1": "quiet", "n3": "quiet"}
    while time.monotonic() < ended:
        time.sleep(0.5)
        assert one.peers() == {"n2": "present", "n3": "present"}
    assert later.reaches(b)
    world.cluster.start(*({0, 1, 2} - set(world.cluster._processes)))
    one.wait_peers(n2="present", n3="present")
    two.wait_peers(n1="present", n3="present")
    assert traffic.lost() == 0


def test_a_leader_and_the_quorum_lost(world: EtcdWorld, network: Network) -> None:
    store_outage(world, network, 3.0)


@pytest.mark.long
def test_the_quorum_lost_for_a_minute(world: EtcdWorld, network: Network) -> None:
    store_outage(world, network, 60.0)


def test_a_node_cut_off_from_the_store(world: EtcdWorld, network: Network) -> None:
    """For the others it is quiet; it keeps its peers; meanwhile history is compacted."""
    one, two, a, b = two_nodes(world, network)
    traffic = Traffic(a, b)
    cut_off_store(one, cut=True)
    wait_for(lambda: not one.status()["connected"], "the cut")
    two.wait_peers(n1="quiet")
    assert one.peers() == {"n2": "present"}
    three = world.node()
    three.join(network)
    two.wait_peers(n1="quiet", n3="present")
    world.cluster.compact()
    cut_off_store(one, cut=False)
    one.wait_peers(n2="present", n3="present")
    two.wait_peers(n1="present", n3="present")
    assert traffic.lost() == 0
    world.unplug(one)  # and off from everybody
    two.wait_peers(n1="quiet", n3="present")
    world.unplug(one, up=True)
    two.wait_peers(n1="present", n3="present")
    wait_for(lambda: b.reaches(a), "the path")


def test_a_returning_node_whose_subnet_was_taken(world: EtcdWorld) -> None:
    """It is fenced: it keeps its containers, gets no new ones, says why, and moves no route."""
    network = make_overlay("web", "10.200.0.0/23")  # two nodes fit
    one, two, _, b = two_nodes(world, network)
    subnet = two.status()["subnets"]
    two.station.kill()
    one.wait_peers(n2="quiet")
    three = world.node()
    with pytest.raises(Exhausted):
        three.join(network)
    one.ask("leave", network="web", node="n2")
    c = three.run(network, "c")
    assert three.status()["subnets"] == subnet
    one.wait_peers(n3="present")
    two.start()
    wait_for(lambda: two.status()["lost"], "the loss")
    assert "node n3 has it" in two.status()["lost"]
    with pytest.raises(Impaired, match="node n3 has it"):
        two.run(network, "more")
    with two.engine() as engine, pytest.raises(Impaired, match="node n3 has it"):
        engine.status(network)
    assert one.peers() == {"n3": "present"}
    with pytest.raises(Exhausted):
        two.ask("adopt", network="web")
    two.delete(b.attachment)  # what was there can still go
    three.delete(c.attachment)
    three.ask("leave", network="web")
    assert two.ask("adopt", network="web")["moved"] is False
    again = two.run(network, "again")
    one.wait_peers(n2="present")
    assert again.pings(one.status()["subnets"][0].replace(".0/24", ".1"))


def test_two_nodes_race_for_200_subnets(world: EtcdWorld) -> None:
    keys, record = Keys(), NetworkRecord(ranges_of(make_overlay()), 24, 0)
    held: list[list[int]] = [[], []]
    stores: list[Store] = [
        world.admin.call(lambda: EtcdStore(world.cluster.endpoints)) for _ in held
    ]

    def race(number: int) -> None:
        for turn in range(100):
            me = claims.Identity(f"same{turn % 7}-{number}-{turn}", str(number))
            held[number].append(
                claims.claim(stores[number], keys, "race", record, me, hint=None).slot
            )

    threads = [threading.Thread(target=race, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    slots = held[0] + held[1]
    assert len(slots) == 200 == len(set(slots))
    for store in stores:
        store.close()
