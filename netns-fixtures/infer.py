"""TopologyFile -> Topology: decides all that the file leaves out. Pure.

Cables: a switch has one to each member, a router one to each segment that it names, and
`links` adds the rest. They are counted in that order, so `eth0` of a host is its place in
the first switch that lists it. A host with one link puts all its addresses there.

Gateways: a host's default route goes to the first router of its segment that shares a
subnet with it and does not masquerade towards it. Routers know the way to every subnet,
by the fewest hops, except to what lies behind another router's NAT.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_network

from netplug.errors import ConfigError
from netplug.fixtures.schema import NAT, LinkEntry, TopologyFile, did_you_mean
from netplug.fixtures.topology import (
    DEFAULT_MTU,
    WIRE,
    End,
    Link,
    Node,
    StaticRoute,
    Switch,
    Topology,
)
from netplug.model import IPInterface, IPNetwork, derived_mac, digest

Pair = tuple[str, str]
Addresses = tuple[IPInterface, ...]
IFNAME_LIMIT = 15  # IFNAMSIZ with its final zero is 16
IPV6_MINIMUM_MTU = 1280  # RFC 8200, section 5; the kernel drops IPv6 from a link below it
TAKEN = frozenset({"lo", "all", "default"})  # no link can be called so


def infer(file: TopologyFile, *, name: str) -> Topology:
    """The whole topology. Raises ConfigError where the file contradicts itself."""
    _check_names(file, name)
    cables = _compute_cables(file, name)
    addresses = _assign_addresses(file, cables, name)
    switches, links = _name_interfaces(file, cables, addresses)
    _check_links(file, links, name)
    topology = Topology(name=name, about=file.about, switches=switches, links=links)
    segments = compute_segments(topology)
    nodes = [Node(host, "host") for host in file.hosts]
    for router, wanted in file.routers.items():
        nodes.append(Node(router, "router", nat=_nat_interface(router, wanted.get(NAT), links)))
    topology = replace(topology, nodes=tuple(nodes))
    _check_routes(file, topology)
    routing = _Routing(topology, segments)
    routed = tuple(
        replace(node, routes=_merge_routes(routing.routes(node), file, node.name)) for node in nodes
    )
    return replace(topology, nodes=routed)


def _problem(source: str, path: str, why: str, hint: str = "") -> ConfigError:
    return ConfigError(f"{source}: {path}", why, hint)


def _check_names(file: TopologyFile, source: str) -> None:
    kinds: dict[str, Mapping[str, object]] = {
        "hosts": file.hosts,
        "switches": file.switches,
        "routers": file.routers,
    }
    seen: dict[str, str] = {WIRE: "the namespace of the switches"}
    for kind, names in kinds.items():
        for name in names:
            if name in seen:
                raise _problem(
                    source, f"{kind}.{name}", f"this name is taken by {seen[name]}", "rename one"
                )
            seen[name] = kind
    known = [name for name in seen if name != WIRE]
    for owner in file.routes:
        if owner not in file.hosts and owner not in file.routers:
            raise _problem(
                source, f"routes.{owner}", "no such host or router", did_you_mean(owner, known)
            )
    for switch, members in file.switches.items():
        for member in members:
            path = f"switches.{switch}"
            if member not in known:
                hint = did_you_mean(member, known)
                raise _problem(source, path, f"{member!r} is no host or switch", hint)
            if member in file.routers:
                hint = f"routers: {{{member}: {{{switch}: ADDRESS/PREFIX}}}}"
                raise _problem(source, path, f"router {member} names its switches itself", hint)
            if members.count(member) > 1 or member == switch:
                raise _problem(source, path, f"{member} is listed twice or in itself")


def _compute_cables(file: TopologyFile, source: str) -> dict[Pair, LinkEntry]:
    """Every cable in its order, (node, switch) or (node, node), with its properties."""
    known = (*file.hosts, *file.switches, *file.routers)
    cables: dict[Pair, LinkEntry] = {}

    def find(a: str, b: str) -> Pair | None:
        return next((pair for pair in ((a, b), (b, a)) if pair in cables), None)

    for switch, members in file.switches.items():
        for member in members:
            if find(member, switch):
                raise _problem(source, f"switches.{switch}", f"{member} lists {switch} already")
            cables[member, switch] = LinkEntry(a=member, b=switch)
    for router, segments in file.routers.items():
        for segment in segments:
            if segment == NAT:
                continue
            if segment not in known or segment == router:
                why = "no such switch, host or other router"
                hint = did_you_mean(segment, [name for name in known if name != router])
                raise _problem(source, f"routers.{router}.{segment}", why, hint)
            if not find(router, segment):
                cables[router, segment] = LinkEntry(a=router, b=segment)
    described: set[Pair] = set()
    for number, entry in enumerate(file.links):
        for key, end in (("a", entry.a), ("b", entry.b)):
            if end not in known:
                hint = did_you_mean(end, known)
                raise _problem(source, f"links.{number}.{key}", f"no such node: {end!r}", hint)
        if entry.a == entry.b:
            raise _problem(source, f"links.{number}", "a link joins two different ends")
        pair = find(entry.a, entry.b)
        if pair is None:
            pair = (entry.b, entry.a) if entry.a in file.switches else (entry.a, entry.b)
        if pair in described:
            raise _problem(source, f"links.{number}", f"{pair[0]} - {pair[1]} is written twice")
        described.add(pair)
        cables[pair] = entry
    return cables


def _assign_addresses(
    file: TopologyFile, cables: dict[Pair, LinkEntry], source: str
) -> dict[tuple[str, Pair], Addresses]:
    """The addresses of every end that has some."""
    found: dict[tuple[str, Pair], Addresses] = {}
    for host, groups in file.hosts.items():
        mine = [pair for pair in cables if host in pair]
        if len(mine) == 1:
            found[host, mine[0]] = tuple(address for group in groups for address in group)
        elif groups and len(groups) != len(mine):
            where = ", ".join(pair[1] if pair[0] == host else pair[0] for pair in mine)
            why = f"{len(groups)} addresses for {len(mine)} links"
            hint = (
                f"one item for each link, in this order: {where}; a list where a link has several"
                if mine
                else f"name {host} in a switch or in links"
            )
            raise _problem(source, f"hosts.{host}", why, hint)
        else:
            found.update(zip(((host, pair) for pair in mine), groups, strict=False))
    for router, segments in file.routers.items():
        for segment, addresses in segments.items():
            if isinstance(addresses, str):
                if addresses not in segments or addresses == NAT:
                    named = [s for s in segments if s != NAT]
                    why = f"{addresses!r} is no segment of {router}"
                    hint = did_you_mean(addresses, named)
                    raise _problem(source, f"routers.{router}.{NAT}", why, hint)
                continue
            pair = next(pair for pair in cables if set(pair) == {router, segment})
            found[router, pair] = addresses
    return found


def interface_name(wanted: str, taken: set[str] | frozenset[str] = TAKEN) -> str:
    """`wanted` where it fits into 15 characters and is free, else a short form with a hash."""
    if len(wanted) <= IFNAME_LIMIT and wanted not in taken:
        return wanted
    return f"{wanted[:6]}-{digest('ifname', wanted)[:8]}"


def _mac(at: str, interface: str, addresses: Addresses) -> str:
    """Readable where it can be: 02:00 and the four bytes of the IPv4 address."""
    first = addresses[0] if addresses else None
    if first is None:
        return derived_mac("topology", at, interface)
    if first.version == 6:
        return derived_mac("topology", str(first.ip))
    return ":".join(f"{byte:02x}" for byte in (0x02, 0x00, *first.ip.packed))


def _name_interfaces(
    file: TopologyFile,
    cables: dict[Pair, LinkEntry],
    addresses: dict[tuple[str, Pair], Addresses],
) -> tuple[tuple[Switch, ...], tuple[Link, ...]]:
    taken = set(TAKEN)
    switches: list[Switch] = []
    for switch in file.switches:
        switches.append(Switch(switch, interface_name(switch, taken)))
        taken.add(switches[-1].bridge)
    count: dict[str, int] = {}

    def plug(at: str, pair: Pair) -> End:
        """The next interface of a node."""
        number = count.get(at, 0)
        count[at] = number + 1
        mine = addresses.get((at, pair), ())
        return End(at, f"eth{number}", _mac(at, f"eth{number}", mine), mine)

    def port(switch: str, far: str) -> End:
        name = interface_name(far, taken)
        taken.add(name)
        return End(switch, name, derived_mac("topology", "port", name))

    links: list[Link] = []
    for (left, right), entry in cables.items():
        if left in file.switches:  # both are: a trunk
            ends = port(left, f"{left}-{right}"), port(right, f"{right}-{left}")
        elif right in file.switches:
            node = plug(left, (left, right))
            ends = node, port(right, f"{left}-{node.interface}")
        else:
            ends = plug(left, (left, right)), plug(right, (left, right))
        mtu = DEFAULT_MTU if entry.mtu is None else entry.mtu
        links.append(Link(*ends, mtu=mtu, loss=entry.loss, up=entry.up))
    return tuple(switches), tuple(links)


def _check_links(file: TopologyFile, links: tuple[Link, ...], source: str) -> None:
    owners: dict[IPInterface, str] = {}
    for link in links:
        for end in link.ends:
            for address in end.addresses:
                other = owners.setdefault(address, end.at)
                if other != end.at:
                    why = f"{address} belongs to {other} already"
                    raise _problem(source, end.at, why, "give each node an address of its own")
                if address.version == 6 and link.mtu < IPV6_MINIMUM_MTU:
                    why = f"mtu {link.mtu} on a link with {address}"
                    hint = f"IPv6 needs at least {IPV6_MINIMUM_MTU}"
                    raise _problem(source, f"links ({link.a.at} - {link.b.at})", why, hint)


def _check_routes(file: TopologyFile, topology: Topology) -> None:
    for owner, routes in file.routes.items():
        ends = topology.ends(owner)
        connected = [str(address.network) for end in ends for address in end.addresses]
        for destination, gateway in routes.items():
            if not any(gateway in ip_network(network) for network in connected):
                raise _problem(
                    topology.name,
                    f"routes.{owner}",
                    f"{gateway}, the gateway to {destination}, is in no subnet of {owner}",
                    f"its subnets: {', '.join(connected)}" if connected else "",
                )


def _nat_interface(router: str, segment: object, links: tuple[Link, ...]) -> str | None:
    for link in links:
        for near, far in ((link.a, link.b), (link.b, link.a)):
            if near.at == router and far.at == segment:
                return near.interface
    return None


def compute_segments(topology: Topology) -> dict[tuple[str, str], int]:
    """(node, interface) -> number of its layer 2 segment: switches and their trunks, or a cable."""
    number = {switch.name: i for i, switch in enumerate(topology.switches)}
    for link in topology.links:
        if link.a.at in number and link.b.at in number:
            old, new = number[link.b.at], number[link.a.at]
            number = {name: new if value == old else value for name, value in number.items()}
    found: dict[tuple[str, str], int] = {}
    for place, link in enumerate(topology.links, start=len(number)):
        segment = number.get(link.b.at, place)
        for end in link.ends:
            if end.at not in number:
                found[end.at, end.interface] = segment
    return found


@dataclass(frozen=True, slots=True)
class _Hop:
    """A router seen on a segment, with the end it has there."""

    router: Node
    end: End


class _Routing:
    def __init__(self, topology: Topology, segments: dict[tuple[str, str], int]) -> None:
        self.segments = segments
        self.ends: dict[str, list[End]] = {}
        for link in topology.links:
            for end in link.ends:
                self.ends.setdefault(end.at, []).append(end)
        self.hops: dict[int, list[_Hop]] = {}  # routers on each segment that lead somewhere
        for node in topology.nodes:
            for end in self.ends.get(node.name, ()) if node.kind == "router" else ():
                if node.nat != end.interface:
                    segment = segments[node.name, end.interface]
                    self.hops.setdefault(segment, []).append(_Hop(node, end))

    def routes(self, node: Node) -> tuple[StaticRoute, ...]:
        if node.kind == "host":
            return tuple(self._defaults(node))
        return tuple(self._ways(node, 4)) + tuple(self._ways(node, 6))

    def _defaults(self, host: Node) -> Iterator[StaticRoute]:
        done: set[int] = set()
        for end in self.ends.get(host.name, ()):
            for hop in self.hops.get(self.segments[host.name, end.interface], ()):
                for route in _shared(end, hop.end):
                    if route.destination.version not in done:
                        done.add(route.destination.version)
                        yield route

    def _ways(self, router: Node, version: int) -> Iterator[StaticRoute]:
        """Breadth first from the router's own segments: (segment, near end or first gateway)."""
        own = self.ends.get(router.name, [])
        known = {a.network for end in own for a in end.addresses}
        queue: deque[tuple[int, End | StaticRoute]] = deque(
            (self.segments[router.name, end.interface], end) for end in own
        )
        visited = {segment for segment, _ in queue}
        while queue:
            segment, near = queue.popleft()
            for hop in self.hops.get(segment, ()):
                first = near
                if isinstance(near, End):
                    shared = [r for r in _shared(near, hop.end) if r.gateway.version == version]
                    if hop.router == router or not shared:
                        continue
                    first = shared[0]
                assert isinstance(first, StaticRoute)
                for end in self.ends[hop.router.name]:
                    for network in _networks(end, version):
                        if network not in known:
                            known.add(network)
                            yield StaticRoute(network, first.gateway)
                    beyond = self.segments[hop.router.name, end.interface]
                    if beyond not in visited:
                        visited.add(beyond)
                        queue.append((beyond, first))


def _networks(end: End, version: int) -> Iterator[IPNetwork]:
    return (a.network for a in end.addresses if a.version == version)


def _shared(near: End, far: End) -> Iterator[StaticRoute]:
    """Default routes of `near` through addresses of `far` in a common subnet."""
    for mine in near.addresses:
        for theirs in far.addresses:
            if mine.version == theirs.version and theirs.ip in mine.network:
                everything = mine.network.supernet(new_prefix=0)
                yield StaticRoute(everything, theirs.ip)


def _merge_routes(
    inferred: tuple[StaticRoute, ...], file: TopologyFile, name: str
) -> tuple[StaticRoute, ...]:
    """The file's own routes win over inferred ones to the same destination."""
    routes = {route.destination: route for route in inferred}
    for destination, gateway in file.routes.get(name, {}).items():
        routes[destination] = StaticRoute(destination, gateway)
    return tuple(routes.values())
