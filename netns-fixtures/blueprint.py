"""Topology -> kernel requests. Pure: descriptors and indexes are numbers given or chosen.

Each node is a network namespace; all switches are bridges in one more, the wire. First the
cables: made from the switch's side (or from `a` of a direct link), the far end born in its
own namespace. Then the settings of each namespace: far ends raised, addresses, routes, loss.
Either is one batch for each namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from netplug.fixtures.topology import WIRE, Topology
from netplug.kernel import batch
from netplug.kernel.batch import FIRST_INDEX, LO_INDEX, Request, VethEnd
from netplug.model import IPNetwork

# A new namespace copies IPv4 settings of the machine's first one (devconf_inherit_init_net),
# so that a topology would differ on a machine which runs containers.
HOST_SYSCTLS = {
    "net/ipv4/ip_forward": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
ROUTER_SYSCTLS = {"net/ipv4/ip_forward": "1"}
# A router asks for neighbours from its link-local address, which duplicate address detection
# would hold back for a second.
IPV6_SYSCTLS = {"net/ipv6/conf/default/accept_dad": "0"}
IPV6_ROUTER_SYSCTLS = {"net/ipv6/conf/all/forwarding": "1"}
# Bridges and their ports need no address; without one they send nothing of their own.
WIRE_SYSCTLS = {"net/ipv6/conf/default/disable_ipv6": "1"}


@dataclass(slots=True)
class Blueprint:
    """Requests by place (a node's name, or the wire).

    `indexes` tells the interface index of each end by (node or switch, interface);
    `watched` the raised ends that the kernel makes operational with a delay: the first one
    of each cable, bridge ports, and what speaks IPv6 (without its multicast route, which
    waits for the link watcher, a node does not hear neighbour solicitations).
    """

    cables: dict[str, list[Request]] = field(default_factory=dict)
    settings: dict[str, list[Request]] = field(default_factory=dict)
    indexes: dict[tuple[str, str], int] = field(default_factory=dict)
    watched: dict[str, set[int]] = field(default_factory=dict)


def plan_requests(topology: Topology, descriptors: Mapping[str, int]) -> Blueprint:
    """All requests of a topology; `descriptors` are the open namespaces, by place."""
    plan = Blueprint()
    free = dict.fromkeys((WIRE, *(node.name for node in topology.nodes)), FIRST_INDEX)
    bridges: dict[str, int] = {}
    for switch in topology.switches:
        bridges[switch.name] = free[WIRE]
        free[WIRE] += 1
        request = batch.new_bridge(switch.bridge, index=bridges[switch.name])
        plan.cables.setdefault(WIRE, []).append(request)
    for node in topology.nodes:
        plan.settings[node.name] = [batch.set_link(LO_INDEX, name="lo", up=True)]

    for link in topology.links:
        # The switch's side makes the cable: one batch then makes all of the wire.
        near, far = (link.b, link.a) if link.b.at in bridges else (link.a, link.b)
        here, there = (WIRE if end.at in bridges else end.at for end in (near, far))
        ends: list[VethEnd] = []
        for end, place in ((near, here), (far, there)):
            plan.indexes[end.at, end.interface] = free[place]
            ends.append(
                VethEnd(
                    end.interface,
                    free[place],
                    link.mtu,
                    mac=end.mac,
                    master=bridges.get(end.at),
                    namespace=None if place == here else descriptors[place],
                )
            )
            free[place] += 1
            if link.loss:
                loss = batch.new_loss(ends[-1].index, name=end.interface, percent=link.loss)
                plan.settings.setdefault(place, []).append(loss)
        plan.cables.setdefault(here, []).append(batch.new_veth(*ends, up=link.up))
        if link.up or far.at in bridges:
            finish = batch.set_link(
                ends[1].index,
                name=far.interface,
                up=link.up or None,
                master=bridges.get(far.at),
            )
            plan.settings.setdefault(there, []).append(finish)
        if link.up:
            plan.watched.setdefault(here, set()).add(ends[0].index)
            if there == WIRE or any(address.version == 6 for address in far.addresses):
                plan.watched.setdefault(there, set()).add(ends[1].index)
    _add_addresses(plan, topology)
    return plan


def plan_sysctls(topology: Topology) -> dict[str, dict[str, str]]:
    """Values by place, for before any link exists.

    IPv6 keys only for nodes with IPv6 addresses: the kernel may lack it.
    """
    ends = (end for link in topology.links for end in link.ends)
    ipv6 = {end.at for end in ends for address in end.addresses if address.version == 6}
    found = {WIRE: WIRE_SYSCTLS}
    for node in topology.nodes:
        router = node.kind == "router"
        values = HOST_SYSCTLS | (ROUTER_SYSCTLS if router else {})
        if node.name in ipv6:
            values |= IPV6_SYSCTLS | (IPV6_ROUTER_SYSCTLS if router else {})
        found[node.name] = values
    return found


def _add_addresses(plan: Blueprint, topology: Topology) -> None:
    # The kernel takes no route through a link that is down.
    raised: dict[str, list[IPNetwork]] = {}
    for link in topology.links:
        for end in link.ends:
            index = plan.indexes[end.at, end.interface]
            for address in end.addresses:
                plan.settings[end.at].append(batch.new_address(index, address))
                if link.up:
                    raised.setdefault(end.at, []).append(address.network)
    for node in topology.nodes:
        for route in node.routes:
            if any(route.gateway in network for network in raised.get(node.name, ())):
                plan.settings[node.name].append(batch.new_route(route.destination, route.gateway))
