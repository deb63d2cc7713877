"""What became of a lab's topology -> Scene. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_interface

from netplug.draw import Scene
from netplug.draw.topology import Seen, scene_of
from netplug.fixtures.topology import WIRE, Topology
from netplug.labs.showing import NodeState


def compute_lab_scene(topology: Topology, nodes: Sequence[NodeState]) -> Scene:
    """The topology as the kernel has it now; what was built by hand is in the list of nodes."""
    states = {node.name: node for node in nodes}
    switches = {switch.name for switch in topology.switches}
    seen: dict[tuple[str, str], Seen] = {}
    for link in topology.links:
        for end in link.ends:
            state = states.get(WIRE if end.at in switches else end.at)
            found = [] if state is None else [x for x in state.links if x.name == end.interface]
            for one in found:
                addresses = state.addresses.get(one.name, []) if state else []
                own = tuple(ip_interface(address) for address in addresses)
                seen[end.at, end.interface] = Seen(one.up and one.carrier, one.mtu, own)
    return scene_of(topology, seen)
