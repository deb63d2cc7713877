"""Tunnels between nodes: a VXLAN device, and all that leads through it to the other nodes."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass

from netplug.errors import Conflict, KernelRefused, NotFound
from netplug.kernel import Kernel, tunnels
from netplug.kernel import rtmessages as rt
from netplug.kernel.rtnl import GONE
from netplug.kernel.tunnels import (
    Bridged,
    DirectRoute,
    Forward,
    Item,
    Neighbour,
    TunnelRoute,
)
from netplug.model import IPAddress, IPNetwork
from netplug.resources import Shell
from netplug.resources.links import differences

SUPPRESSION = "neigh_suppress on learning off flood off mcast_flood off bcast_flood off"
# Neighbours first, so that the kernel never asks (ARP) for what a route leads to.
ORDER = (Neighbour, Bridged, Forward, TunnelRoute, DirectRoute)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device that learns nothing: where a frame goes is said by `PeerSet` alone.

    Its MAC derives from network and node, so that the peers know it without asking, and
    a device that is made anew keeps it. With `bridge` it is a port of that bridge, which
    answers neighbour requests itself (RFC 9161, as `bridge link ... neigh_suppress on`).
    """

    name: str
    vni: int
    port: int
    local: IPAddress
    mac: str
    mtu: int
    alias: str
    bridge: str = ""

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"VXLAN {self.name} (VNI {self.vni})"

    def present(self, kernel: Kernel) -> str | None:
        link = kernel.host.link(self.name)
        if link is None:
            return None
        held = tunnels.read_vxlan(kernel.host, self.name)
        if held is None:
            return f"{self.name} is of kind {link.kind or 'device'}"
        bridge = kernel.host.link(self.bridge) if self.bridge else None
        return differences(
            ("VNI", self.vni, held.vni),
            ("port", self.port, held.port),
            ("local address", self.local, held.local),
            ("learning", False, held.learning),
            ("MAC", self.mac, link.mac),
            ("MTU", self.mtu, link.mtu),
            ("state", "up", "up" if link.up else "down"),
            *([("bridge", bridge.index, link.master)] if bridge else []),
            *([("neighbour suppression", True, held.suppressed)] if bridge else []),
        )

    def apply(self, kernel: Kernel) -> bool:
        link = kernel.host.link(self.name)
        if link is not None:
            self._demand_ours(link)
            held = tunnels.read_vxlan(kernel.host, self.name)
            if held is None or (held.vni, held.port, held.local, held.learning) != (
                *(self.vni, self.port, self.local),
                False,
            ):
                kernel.host.delete_link(link.index)
                link = None
        if link is None:
            self._make(kernel)
        elif (link.mac, link.mtu, link.up) != (self.mac, self.mtu, True):
            kernel.host.change(
                rt.change_link(link.index, mtu=self.mtu, mac=self.mac), rt.set_up(link.index)
            )
        if self.bridge:
            self._become_port(kernel)
        return link is None

    def _make(self, kernel: Kernel) -> None:
        making = tunnels.new_vxlan(
            self.name, vni=self.vni, local=self.local, port=self.port, mac=self.mac, mtu=self.mtu
        )
        try:
            kernel.host.change(making, rt.set_alias(self.name, self.alias))
        except KernelRefused as error:
            if error.errno != errno.EEXIST:
                raise
            other = tunnels.find_vxlan(kernel.host, self.vni, self.port)
            raise Conflict(
                f"VNI {self.vni} on port {self.port} is taken",
                f"the link {other or 'of another namespace'} has it already",
                "remove that link, or give the network another 'port'",
            ) from error

    def _become_port(self, kernel: Kernel) -> None:
        bridge, link = kernel.host.link(self.bridge), kernel.host.link(self.name)
        if bridge is None or link is None:
            raise NotFound(f"bridge {self.bridge} is gone", "it was removed meanwhile", "retry")
        if link.master != bridge.index:
            kernel.host.change(rt.change_link(link.index, master=bridge.index))
        kernel.host.change(tunnels.set_suppression(self.name))

    def _demand_ours(self, link: rt.Link) -> None:
        if link.alias in ("", self.alias) and link.kind == "vxlan":
            return
        raise Conflict(
            f"link {self.name} is not ours",
            f"it is of kind {link.kind or 'device'} and has the alias {link.alias!r}",
            "remove or rename it",
        )

    def undo(self, kernel: Kernel) -> None:
        link = kernel.host.link(self.name)
        if link is not None and link.kind == "vxlan" and link.alias in ("", self.alias):
            kernel.host.delete_link(link.index)

    def shell(self, shell: Shell) -> list[str]:
        master = f" master {self.bridge}" if self.bridge else ""
        lines = [
            f"ip link add {self.name} address {self.mac} mtu {self.mtu} type vxlan id {self.vni}"
            f" local {self.local} dstport {self.port} nolearning",
            f"ip link set {self.name} alias {self.alias}{master} up",
        ]
        if self.bridge:
            lines.append(f"bridge link set dev {self.name} {SUPPRESSION}")
        return lines


@dataclass(frozen=True, slots=True)
class PeerSet:
    """What leads to the other nodes, as one set: made, compared and changed as a whole.

    Routed, a peer is one route, one permanent neighbour and one forwarding entry for each
    family. Bridged, each container elsewhere is a neighbour of the bridge and a forwarding
    entry on both devices. `within` bounds the routes through `underlay` that are ours.
    """

    device: str
    items: tuple[Item, ...] = ()
    bridge: str = ""
    underlay: str = ""
    within: tuple[IPNetwork, ...] = ()

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"{len(self.items)} entries for peers on {self.device}"

    def read(self, kernel: Kernel) -> set[Item] | None:
        """What the kernel holds; None where the device is gone."""
        rtnl = kernel.host
        link = rtnl.link(self.device)
        bridge = rtnl.link(self.bridge) if self.bridge else None
        if link is None or (self.bridge and bridge is None):
            return None
        families = sorted({network.version for network in self.within}) or [4, 6]
        found = tunnels.read_items(rtnl, link.index, families, bridge=bridge.index if bridge else 0)
        underlay = rtnl.link(self.underlay) if self.underlay else None
        if underlay is not None:
            found |= {
                item
                for item in tunnels.read_routes(rtnl, underlay.index, families)
                if isinstance(item, DirectRoute) and self._covers(item.subnet)
            }
        return found

    def _covers(self, subnet: IPNetwork) -> bool:
        return any(
            subnet.version == whole.version and subnet.subnet_of(whole)  # type: ignore[arg-type]
            for whole in self.within
        )

    def present(self, kernel: Kernel) -> str | None:
        found = self.read(kernel)
        if found is None or (self.items and not found):
            return None
        wanted = set(self.items)
        words = [f"{item_words(item)} is missing" for item in _ordered(wanted - found)]
        words += [f"{item_words(item)} is not wanted" for item in _ordered(found - wanted)]
        return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")

    def apply(self, kernel: Kernel) -> bool:
        found = self.read(kernel)
        if found is None:
            raise NotFound(f"link {self.device} is gone", "it was removed meanwhile", "retry")
        return self.change(kernel, found)

    def change(self, kernel: Kernel, found: Iterable[Item]) -> bool:
        """From `found`, which is taken for what the kernel holds, to what is wanted.

        New entries are added before old ones go, so that a subnet that moves is never
        unreachable in between. What is there already, or gone already, is as wanted.
        """
        held, wanted = set(found), set(self.items)
        extra, lacking = held - wanted, wanted - held
        keys = {key for item in wanted if (key := _replaces(item)) is not None}
        removals = [item for item in _ordered(extra)[::-1] if _replaces(item) not in keys]
        index = self._indexes(kernel)
        tunnels.send(
            kernel.host,
            [tunnels.add(index(item), item) for item in _ordered(lacking)],
            tolerate=(errno.EEXIST,),
        )
        tunnels.send(
            kernel.host, [tunnels.remove(index(item), item) for item in removals], tolerate=GONE
        )
        return bool(lacking)

    def _indexes(self, kernel: Kernel):  # type: ignore[no-untyped-def]
        numbers = {
            name: link.index
            for name in (self.device, self.bridge, self.underlay)
            if name and (link := kernel.host.link(name)) is not None
        }

        def index(item: Item) -> int:
            name = self.device
            if isinstance(item, DirectRoute):
                name = self.underlay
            elif isinstance(item, Neighbour) and self.bridge:
                name = self.bridge
            if name not in numbers:
                raise NotFound(f"link {name} is gone", "it was removed meanwhile", "retry")
            return numbers[name]

        return index

    def undo(self, kernel: Kernel) -> None:
        found = self.read(kernel)
        if found:
            PeerSet(self.device, (), self.bridge, self.underlay, self.within).change(kernel, found)

    def shell(self, shell: Shell) -> list[str]:
        return [self._command(item) for item in _ordered(self.items)]

    def _command(self, item: Item) -> str:
        match item:
            case Neighbour(address, mac):
                device = self.bridge or self.device
                return f"ip neigh replace {address} lladdr {mac} dev {device} nud permanent"
            case Forward(mac, via):
                return f"bridge fdb append {mac} dev {self.device} dst {via} self permanent"
            case Bridged(mac):
                return f"bridge fdb replace {mac} dev {self.device} master static"
            case TunnelRoute(subnet, gateway):
                return (
                    f"ip{_six(subnet)} route replace {subnet} via {gateway} dev {self.device}"
                    " onlink proto 110"
                )
            case DirectRoute(subnet, via):
                return (
                    f"ip{_six(subnet)} route replace {subnet} via {via} dev {self.underlay}"
                    " proto 110"
                )


def _six(subnet: IPNetwork) -> str:
    return " -6" if subnet.version == 6 else ""


def _ordered(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: ORDER.index(type(item)))


def _replaces(item: Item) -> object:
    """The key under which a new item takes the old one's place; None where both may live."""
    match item:
        case Neighbour(address, _):
            return address
        case TunnelRoute(subnet, _) | DirectRoute(subnet, _) if subnet.version == 4:
            return subnet
    return None


def item_words(item: Item) -> str:
    match item:
        case Neighbour(address, mac):
            return f"neighbour {address} at {mac}"
        case Forward(mac, via):
            return f"forwarding of {mac} to {via}"
        case Bridged(mac):
            return f"bridge entry of {mac}"
        case TunnelRoute(subnet, gateway):
            return f"route to {subnet} via {gateway}"
        case DirectRoute(subnet, via):
            return f"direct route to {subnet} via {via}"
