"""What one node makes of a network that it has joined, as a plan like any other."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface

from netplug.kernel import wireguard
from netplug.kernel.tunnelguard import Allowed
from netplug.kernel.tunnels import OVERHEAD, Item
from netplug.kernel.wireguard import Peer
from netplug.model import MARK, IPAddress, derived_mac
from netplug.overlay.membership import Membership
from netplug.plan import Plan
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Sysctl
from netplug.resources.links import Bridge
from netplug.resources.tunnelguard import TunnelGuard
from netplug.resources.tunnels import PeerSet, Vxlan
from netplug.resources.wireguard import Wireguard, WireguardPeers


def compute_mtu(
    underlay: int, address: IPAddress, wanted: int | str = "auto", *, encrypted: bool = False
) -> int:
    """Bytes that a frame may carry inside the tunnel: the underlay's less what wraps it."""
    wrapping = wireguard.OVERHEAD if encrypted else OVERHEAD
    room = underlay - wrapping[address.version]
    return room if isinstance(wanted, str) else min(wanted, room)


def vtep_mac(network: str, node: str) -> str:
    """Peers compute it as well: a device that is made anew is known already."""
    return derived_mac("vtep", network, node)


def plan_node(
    membership: Membership,
    bridge: str,
    items: Iterable[Item | Peer] = (),
    allowed: Iterable[Allowed] | None = (),
) -> Plan:
    """The tunnel, its filter, its address, and the peers. Pure.

    `allowed` None: no filter, for the kernel has no nf_tables.

    The tunnel's own address is the first of this node's subnet, as a host route: with it
    the host itself speaks to containers elsewhere, and its packets are inside the range.
    """
    m = membership
    if m.record.encrypt:
        return Plan((_wireguard(m), *_routing(m), peers_of(m, bridge, items)))
    bridged = is_bridged(m)
    steps: list[Resource] = []
    if bridged:
        steps.append(Bridge(bridge, mac=derived_mac("bridge", bridge), mtu=m.mtu))
    if allowed is not None:  # before the device, so that it is never open
        steps.append(guard_of(m, allowed))
    steps.append(
        Vxlan(
            m.tunnel,
            vni=m.record.vni,
            port=m.record.port,
            local=m.address,
            mac=vtep_mac(m.network, m.node),
            mtu=m.mtu,
            alias=f"{MARK}{m.network}/tunnel",
            bridge=bridge if bridged else "",
        )
    )
    if not bridged:
        keys = (f"net/ipv6/conf/{m.tunnel}/{key}" for key in ("accept_ra", "accept_dad"))
        steps.append(Sysctl("host", tuple((key, "0") for key in keys), optional=True))
        steps += _routing(m)
    steps.append(peers_of(m, bridge, items))
    return Plan(tuple(steps))


def _routing(m: Membership) -> tuple[Resource, ...]:
    """The node routes, and has an address of its own in the range."""
    first = (f"{one.network_address}/{one.max_prefixlen}" for one in m.subnets)
    return (
        Sysctl("host", _forwarding(m)),
        Addresses("host", m.tunnel, tuple(ip_interface(text) for text in first)),
    )


def is_bridged(m: Membership) -> bool:
    return m.record.mode == "bridged"


def _wireguard(m: Membership) -> Wireguard:
    return Wireguard(m.tunnel, m.record.port, m.mtu, f"{MARK}{m.network}/tunnel", m.key_file)


def guard_of(m: Membership, allowed: Iterable[Allowed]) -> TunnelGuard:
    family = m.address.version
    return TunnelGuard(m.tunnel, m.record.port, m.record.vni, family, tuple(allowed))


def peers_of(m: Membership, bridge: str, items: Iterable[Item | Peer]) -> PeerSet | WireguardPeers:
    if m.record.encrypt:
        return WireguardPeers(m.tunnel, tuple(i for i in items if isinstance(i, Peer)))
    return _peer_set(m, bridge, (i for i in items if not isinstance(i, Peer)))


def _peer_set(m: Membership, bridge: str, items: Iterable[Item]) -> PeerSet:
    if is_bridged(m):
        return PeerSet(m.tunnel, tuple(items), bridge=bridge, within=m.record.ranges)
    return PeerSet(m.tunnel, tuple(items), underlay=m.underlay, within=m.record.ranges)


def _forwarding(m: Membership) -> tuple[tuple[str, str], ...]:
    keys = {4: "net/ipv4/ip_forward", 6: "net/ipv6/conf/all/forwarding"}
    return tuple((keys[version], "1") for version in sorted({s.version for s in m.subnets}))
