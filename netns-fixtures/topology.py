"""A topology as values: every name, address, route and property decided.

`load` (load.py) makes one from YAML, `build` (running.py) makes it real;
pictures and labs read the same values.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from netplug.model import IPAddress, IPInterface, IPNetwork

WIRE = "wire"  # the namespace that holds all switches
DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class End:
    """Where one end of a link is plugged in: a node or a switch, and the interface's name there.

    On a switch the interface is a bridge port in the wire namespace, without addresses.
    """

    at: str
    interface: str
    mac: str = ""
    addresses: tuple[IPInterface, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """A cable with its properties; `loss` is the percentage of packets lost each way."""

    a: End
    b: End
    mtu: int = DEFAULT_MTU
    loss: float = 0.0
    up: bool = True

    @property
    def ends(self) -> tuple[End, End]:
        return self.a, self.b


@dataclass(frozen=True, slots=True)
class StaticRoute:
    destination: IPNetwork
    gateway: IPAddress


@dataclass(frozen=True, slots=True)
class Node:
    """A host or router: one network namespace. `nat` is the interface that masquerades."""

    name: str
    kind: Literal["host", "router"]
    routes: tuple[StaticRoute, ...] = ()
    nat: str | None = None


@dataclass(frozen=True, slots=True)
class Switch:
    """A bridge in the wire namespace; `bridge` is its name there (at most 15 characters)."""

    name: str
    bridge: str


@dataclass(frozen=True, slots=True)
class Topology:
    name: str
    about: str = ""
    nodes: tuple[Node, ...] = ()
    switches: tuple[Switch, ...] = ()
    links: tuple[Link, ...] = ()

    def node(self, name: str) -> Node:
        """Raises KeyError."""
        return {node.name: node for node in self.nodes}[name]

    def link(self, a: str, b: str) -> Link | None:
        """The cable between two nodes or switches, in either direction."""
        return next((link for link in self.links if {link.a.at, link.b.at} == {a, b}), None)

    def ends(self, name: str) -> tuple[End, ...]:
        """What is plugged into a node (eth0, eth1, ...) or switch, in order."""
        return tuple(end for link in self.links for end in link.ends if end.at == name)

    def address(self, name: str, version: Literal[4, 6] = 4) -> IPAddress:
        """The first address of a node in one family. Raises LookupError where it has none."""
        for end in self.ends(name):
            for address in end.addresses:
                if address.version == version:
                    return address.ip
        raise LookupError(f"{name} has no IPv{version} address")
