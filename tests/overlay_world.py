"""Several simulated nodes for tests: namespaces on one switch, each with an agent of its own.

A `Node` is a host with an underlay address, its own state folder, socket and agent.toml.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agents import Station, wait_for
from attaching import Site

from netplug import host as hosts
from netplug.agent.joining import ask_agent
from netplug.config import parse_network
from netplug.dns import protocol as dns_protocol
from netplug.dns.client import NameService
from netplug.dns.protocol import NAME
from netplug.engine import Engine
from netplug.model import Attachment, Network, Result
from netplug.plugins.overlay import OverlayOptions
from netplug.state import State

if TYPE_CHECKING:
    from conftest import Host

RANGE4, RANGE6 = "10.200.0.0/16", "fd00:200::/48"


def make_overlay(name: str = "web", *ranges: str, **keys: Any) -> Network:
    """An overlay network as CNI JSON would give it."""
    config = {
        "cniVersion": "1.0.0",
        "name": name,
        "type": "netplug",
        "driver": "overlay",
        "ipam": {
            "type": "netplug",
            "ranges": [[{"subnet": one}] for one in ranges or (RANGE4,)],
        },
        **keys,
    }
    network, warnings = parse_network(config, OverlayOptions, strict_unknown=True)
    assert not warnings
    return network


class Node(Site):
    """A host of the cluster; `settings` are lines of its agent.toml."""

    def __init__(self, host: Host, folder: Path, name: str, address: str, settings: str) -> None:
        folder.mkdir(mode=0o700)
        super().__init__(host, folder / "state")
        self.name, self.address = name, address
        self.config = folder / "agent.toml"
        self.config.touch(mode=0o600)
        self.config.write_text(f'node = "{name}"\n{settings}\n')
        self.log = folder / "agent.log"
        self.station = Station(folder / "agent.sock", self.folder, self.log)

    def start(self) -> None:
        """Starts the agent in this host's namespace."""

        def launch() -> subprocess.Popen[bytes]:
            with open(self.log, "ab") as output:
                return subprocess.Popen(
                    [
                        *(sys.executable, "-I", "-m", "netplug.agent"),
                        *map(str, (self.station.socket, self.folder, self.config)),
                    ],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,
                )

        process = self.host.call(launch)
        process.returncode = 0  # the station waits for it
        self.station.adopt(process.pid)

    def ask(self, command: str, **more: Any) -> dict[str, Any]:
        return ask_agent(self.station.socket, f"overlay-{command}", **more)

    def join(self, network: Network) -> None:
        self.ask("join", config=network.raw)

    def status(self, network: str = "web") -> dict[str, Any]:
        answer = self.ask("status", peers=True)
        found = next(one for one in answer["networks"] if one["network"] == network)
        return {**found, "connected": answer["connected"]}

    def peers(self, network: str = "web") -> dict[str, str]:
        """The state of each peer by its node's name."""
        return {peer["node"]: peer["state"] for peer in self.status(network)["peer_list"]}

    def wait_peers(self, network: str = "web", **wanted: str) -> None:
        wait_for(lambda: self.peers(network) == wanted, f"peers {wanted} of {self.name}")
        wait_for(lambda: self.whole(network), f"{self.name}'s entries")

    def name_server(self) -> int:
        """The process id of this host's name server."""
        path = self.station.socket.parent / NAME
        return int(dns_protocol.ask(path, {"command": "status"})["pid"])

    def wait_entries(self, count: int, network: str = "web") -> None:
        wait_for(lambda: self.status(network)["entries"]["desired"] == count, f"{count} entries")
        wait_for(lambda: self.whole(network), f"{self.name}'s entries")

    def sent(self, link: str) -> int:
        """How many packets have left by that link."""
        [found] = json.loads(self.host.run(f"ip -s -j link show {link}"))
        return int(found["stats64"]["tx"]["packets"])

    def whole(self, network: str = "web") -> bool:
        entries = self.status(network)["entries"]
        return bool(entries["desired"] == entries["actual"] and not entries["missing"])

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        state = State(self.folder)
        try:
            with hosts.Host(self.host.fd) as own:
                names = NameService(self.station.socket.parent, self.lines.append)
                yield Engine(state, own, self.lines.append, names=names, join=self.join)
        finally:
            state.close()

    def run(self, network: Network, name: str, **wishes: Any) -> Container:
        """A container on this node, attached to the network."""
        place = self.host.container(name)
        attachment, result = self.add(network, place, name=name, **wishes)
        return Container(self, place, attachment, result)


class Container:
    def __init__(self, node: Node, place: Host, attachment: Attachment, result: Result) -> None:
        self.node, self.place, self.attachment, self.result = node, place, attachment, result

    @property
    def addresses(self) -> list[str]:
        return [str(ip.address.ip) for ip in self.result.ips]

    def reaches(self, other: Container, *, seconds: int = 2) -> bool:
        """Does each address of the other answer a ping?"""
        return all(self.pings(address, seconds=seconds) for address in other.addresses)

    def pings(self, address: str, *, seconds: int = 2, more: str = "") -> bool:
        done = self.place.run(f"ping -c 1 -W {seconds} {more} {address} >/dev/null; echo $?")
        return done.strip() == "0"


class World:
    """Nodes on one switch. `stores` gives the [store] table of a node's agent.toml."""

    def __init__(self, make_host: Callable[[str], Host], folder: Path, store: str) -> None:
        self._make_host, self.folder, self.store = make_host, folder, store
        self.switch = make_host("sw")
        self.switch.run("ip link add br0 type bridge && ip link set br0 up")
        self.nodes: list[Node] = []

    def plug(self, host: Host, name: str, address: str, *, mtu: int = 1500) -> None:
        """A cable from the host to the switch."""
        subprocess.run(
            f"ip -n {self.switch.name} link add {name} mtu {mtu} type veth"
            f" peer name eth0 netns {host.name} mtu {mtu}".split(),
            check=True,
        )
        self.switch.run(f"ip link set {name} master br0 up")
        extra = " nodad" if ip_interface(address).version == 6 else ""
        host.run(f"ip address add {address}{extra} dev eth0 && ip link set eth0 up")

    def stranger(self, address: str) -> Host:
        """A host on the switch that takes no part in anything."""
        host = self._make_host("stranger")
        self.plug(host, "stranger", address)
        return host

    def unplug(self, node: Node, *, up: bool = False) -> None:
        self.switch.run(f"ip link set {node.name} {'up' if up else 'down'}")

    def node(
        self, address: str = "", *, name: str = "", settings: str = "", start: bool = True
    ) -> Node:
        """A node with its agent; its address is 192.0.2.N."""
        number = len(self.nodes) + 1
        name = name or f"n{number}"
        interface = address or f"192.0.2.{number}/24"
        host = self._make_host(name)
        self.plug(host, name, interface)
        ip = interface.partition("/")[0]
        text = f'{self.store}\n[overlay]\naddress = "{ip}"\nttl = 1\n{settings}'
        node = Node(host, self.folder / name, name, ip, text)
        self.nodes.append(node)
        if start:
            node.start()
        return node

    def close(self) -> None:
        for node in self.nodes:
            node.station.end()

    def logs(self) -> str:
        return "\n".join(f"--- {n.name}\n{n.log.read_text()[-3000:]}" for n in self.nodes)


W = TypeVar("W", bound=World)


@contextmanager
def running(world: W) -> Iterator[W]:
    """Ends it; shows what its agents have logged where a test failed."""
    try:
        yield world
    except BaseException:
        print(world.logs())
        raise
    finally:
        world.close()
