"""The host as router of a bridge: its addresses there, forwarding, and routes towards it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_interface

from netplug.model import (
    Facts,
    Family,
    IPAddress,
    IPInterface,
    Lease,
    LeasedAddress,
    Route,
    derived_mac,
    digest,
)
from netplug.plugins.bridge_options import BridgeOptions
from netplug.plugins.inside import compute_routes
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Sysctl
from netplug.resources.links import Veth, Vlan


def quiet(bridge: str) -> Sysctl:
    """A gateway takes no advice from router advertisements, and its address needs no DAD."""
    keys = (f"net/ipv6/conf/{bridge}/{key}" for key in ("accept_ra", "accept_dad"))
    return Sysctl("host", tuple((key, "0") for key in keys), optional=True)


def plan_forwarding(lease: Lease, facts: Facts) -> Iterator[Resource]:
    """The host routes; a host that learned its own default route from router advertisements
    keeps listening to them (accept_ra 2), which forwarding would end otherwise."""
    if 4 in lease.families:
        yield Sysctl("host", (("net/ipv4/ip_forward", "1"),))
    if 6 in lease.families:
        listening = tuple((f"net/ipv6/conf/{name}/accept_ra", "2") for name in facts.ra_interfaces)
        yield Sysctl("host", (*listening, ("net/ipv6/conf/all/forwarding", "1")))


def plan_gateways(options: BridgeOptions, lease: Lease, facts: Facts) -> Iterator[Resource]:
    """The bridge's own addresses; in a VLAN they live on a leg of the host's own in it."""
    device = router_device(options)
    if options.vlan:
        yield vlan_leg(options, options.link_mtu(facts))
    for leased in lease.addresses:
        gateway = compute_gateway(options, leased)
        if gateway is not None:
            yield Addresses("host", device, (gateway,), shared=True, force=options.force_address)


def compute_gateway(options: BridgeOptions, leased: LeasedAddress) -> IPInterface | None:
    """IPAM's gateway, else as the bridge is one, the first address of the subnet."""
    network = leased.address.network
    ip = leased.gateway
    if ip is None and options.gateway:
        ip = network[0 if network.num_addresses <= 2 else 1]
    return None if ip is None else ip_interface(f"{ip}/{network.prefixlen}")


def compute_bridge_routes(options: BridgeOptions, lease: Lease) -> tuple[Route, ...]:
    gateways: dict[Family, IPAddress] = {}
    for leased in lease.addresses:
        gateway = compute_gateway(options, leased)
        if gateway is not None:
            gateways.setdefault(gateway.version, gateway.ip)
    outward = options.is_default_gateway and not options.internal
    routes = compute_routes(lease, gateways, default=outward)
    return tuple(r for r in routes if r.dst.prefixlen) if options.internal else routes


def router_device(options: BridgeOptions) -> str:
    """The link by which the host's IP stack meets the containers."""
    if not options.vlan:
        return options.bridge
    name = f"{options.bridge}.{options.vlan}"
    return name if len(name.encode()) <= 15 else "vlan" + digest("vlan", name)[:11]


def vlan_leg(options: BridgeOptions, mtu: int) -> Veth:
    """A veth pair of the host's own: one end a port in the VLAN, the other its address there."""
    name = router_device(options)
    return Veth(
        "veth" + digest("vlan port", name)[:11],
        host_mac=derived_mac("vlan port", name),
        bridge=options.bridge,
        ifname=name,
        mac=derived_mac("vlan", name),
        mtu=mtu,
        alias=f"netplug/vlan/{name}",
        vlans=(Vlan(options.vlan, untagged=True),),
        peer_place="host",
    )
