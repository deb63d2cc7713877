"""The state of every node, as values for text and JSON."""

from __future__ import annotations

from dataclasses import dataclass

from netplug.kernel import inspect
from netplug.kernel.inspect import RT_TABLE_MAIN, LinkState
from netplug.labs.checks.addresses import render_route
from netplug.labs.format import Lab
from netplug.labs.world import World


@dataclass(frozen=True, slots=True)
class NodeState:
    name: str
    links: tuple[LinkState, ...]
    addresses: dict[str, list[str]]
    routes: tuple[str, ...]


def read_nodes(lab: Lab) -> list[NodeState]:
    """Every namespace of the lab, in the topology's order, those made by hand behind."""
    order = [node.name for node in lab.topology.nodes]
    with World() as world:
        names = world.names()
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
        return [_read_node(world, name) for name in names]


def _read_node(world: World, name: str) -> NodeState:
    fd = world.fd(name)
    addresses = {
        link: [a for a in held if not a.startswith("fe80:")]
        for link, held in inspect.read_addresses(fd).items()
    }
    routes = tuple(
        render_route(route)
        for route in inspect.read_routes(fd)
        if route.table == RT_TABLE_MAIN and ":" not in route.destination
    )
    return NodeState(name, tuple(inspect.read_links(fd).values()), addresses, routes)
