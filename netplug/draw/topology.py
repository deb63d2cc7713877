"""A topology of netplug.fixtures -> Scene: as its file says, or as the kernel has it now. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netplug.draw.scene import Box, Link, Plug, Scene, describe_addresses
from netplug.model import IPInterface

if TYPE_CHECKING:  # the fixtures bring pydantic and YAML, which a picture does not need
    from netplug.fixtures.topology import End, Node, Topology

USUAL_MTU = 1500


@dataclass(frozen=True, slots=True)
class Seen:
    """One interface as the kernel has it now."""

    up: bool
    mtu: int
    addresses: tuple[IPInterface, ...] = ()


Facts = Mapping[tuple[str, str], Seen]  # (node or switch, interface)


def scene_of(topology: Topology, seen: Facts | None = None) -> Scene:
    """The picture of a topology; with `seen`, of what became of it.

    An interface that `seen` lacks is gone: its cable is drawn down.
    """
    plugged = Counter(end.at for link in topology.links for end in link.ends)
    switches = {switch.name for switch in topology.switches}

    def fact(end: End, mtu: int, up: bool) -> Seen:
        if seen is None:
            return Seen(up, mtu, end.addresses)
        return seen.get((end.at, end.interface), Seen(False, mtu))

    ends: dict[str, list[tuple[str, Seen]]] = {}
    links = []
    for link in topology.links:
        found = [fact(end, link.mtu, link.up) for end in link.ends]
        plugs = []
        for end, one in zip(link.ends, found, strict=True):
            ends.setdefault(end.at, []).append((end.interface, one))
            named = end.at in switches or plugged[end.at] > 1
            nat = end.at not in switches and topology.node(end.at).nat == end.interface
            plugs.append(Plug(end.at, end.interface if named else "", nat))
        up = all(one.up for one in found)
        note = _note(sorted({one.mtu for one in found}), link.loss)
        links.append(Link(plugs[0], plugs[1], note=note, up=up))
    boxes = [
        Box(switch.name, "bridge", switch.name, _bridge_words(switch.name, switch.bridge))
        for switch in topology.switches
    ]
    boxes += [_node(node, ends.get(node.name, [])) for node in topology.nodes]
    return Scene(tuple(boxes), tuple(links))


def _bridge_words(name: str, bridge: str) -> tuple[str, ...]:
    return () if name == bridge else (bridge,)


def _note(mtus: list[int], loss: float) -> str:
    words = [] if mtus == [USUAL_MTU] else [f"mtu {'/'.join(map(str, mtus))}"]
    if loss:
        words.append(f"{loss:g}% lost")
    return " ".join(words)


def _node(node: Node, ends: list[tuple[str, Seen]]) -> Box:
    lines = [line for name, one in ends for line in describe_addresses(name, one.addresses)]
    brief = tuple(str(address.ip) for _, one in ends for address in one.addresses)
    return Box(
        node.name,
        "router" if node.kind == "router" else "namespace",
        node.name,
        tuple(lines),
        brief,
    )
