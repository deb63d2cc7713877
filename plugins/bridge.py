"""Bridge networks: containers on a virtual switch of the host.

    container            host
    +--------+           +---------------------------+
    |  eth0 -+-- veth ---+- vethXXXX                 |
    +--------+           |      |                    |
                         |    cni0  10.1.0.1/24  ----+-- NAT -- outside
    +--------+           |      |                    |
    |  eth0 -+-- veth ---+- vethYYYY                 |
    +--------+           +---------------------------+

The bridge is the containers' gateway (`isGateway`); what leaves is masqueraded
(`ipMasq`); published ports are mapped in. Every key of the reference `bridge`
plugin means the same here (`bridge_options`).
"""

from __future__ import annotations

from collections.abc import Iterator

from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Publish,
    SpoofGuard,
    Subnet,
)
from netplug.model import (
    Attachment,
    Facts,
    Interface,
    Lease,
    Network,
    Result,
    ResultAddress,
    Wanted,
    derived_mac,
)
from netplug.plan import Plan
from netplug.plugins.bridge_options import BridgeOptions, demand_possible
from netplug.plugins.gateway import (
    compute_bridge_routes,
    compute_gateway,
    plan_forwarding,
    plan_gateways,
    quiet,
    router_device,
    vlan_leg,
)
from netplug.plugins.inside import plan_inside
from netplug.plugins.publishing import compute_mappings, serves_localhost
from netplug.resources import Resource
from netplug.resources.addresses import Sysctl
from netplug.resources.links import Bridge, Veth
from netplug.resources.rules import Rules
from netplug.resources.shaping import compute_shaping


class BridgeDriver:
    name = "bridge"
    options = BridgeOptions

    def facts(self, network: Network) -> Wanted:
        options: BridgeOptions = network.options
        return Wanted(
            links=(options.bridge,),
            egress_mtu=options.mtu == "auto",
            accept_ra=options.gateway and 6 in network.families,
            vlan_filtering=bool(options.vlans),
        )

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        """The switch, the cable, and what guards and slows the cable."""
        options: BridgeOptions = network.options
        demand_possible(network, attachment, facts)
        mac, mtu = attachment.hardware_address, attachment.mtu or options.link_mtu(facts)
        steps: list[Resource] = [
            Bridge(
                options.bridge,
                mac=derived_mac("bridge", options.bridge),
                mtu=mtu if options.mtu else 0,
                promisc=options.promisc_mode,
                vlan_filtering=bool(options.vlans),
            ),
            quiet(options.bridge),
            Veth(
                attachment.host_name,
                host_mac=derived_mac("host", attachment.owner),
                bridge=options.bridge,
                ifname=attachment.ifname,
                mac=mac,
                mtu=mtu,
                alias=attachment.mark,
                hairpin=options.hairpin_for(attachment),
                isolated=options.port_isolation,
                vlans=options.vlans,
                keep_default_vlan=options.preserve_default_vlan,
            ),
        ]
        if options.macspoofchk:
            guard = SpoofGuard(attachment.tag, attachment.host_name, mac)
            steps += _rules(facts, Base("bridge"), guard)
        if attachment.bandwidth:
            steps.append(compute_shaping(attachment, mtu=mtu))
        return Plan(tuple(steps))

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        """The gateway, the border between bridge and outside, then the container's inside."""
        options: BridgeOptions = network.options
        steps: list[Resource] = []
        if options.gateway:
            steps += plan_forwarding(lease, facts)
            steps += plan_gateways(options, lease, facts)
        if options.gateway or options.ip_masq or attachment.ports:
            steps += _rules(facts, *_border(network, lease))
        steps += plan_inside(
            attachment,
            lease,
            compute_bridge_routes(options, lease),
            dad=options.enabledad,
            up=not options.disable_container_interface,
            sysctl=options.sysctl,
        )
        steps += _published(options, attachment, lease, facts)
        return Plan(tuple(steps))

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        """Interfaces as the reference orders them: bridge, host end, container, VLAN leg, ifb."""
        options: BridgeOptions = network.options
        mtu = attachment.mtu or options.link_mtu(facts)
        there = facts.link(options.bridge)
        bridge_mac = there.mac if there else derived_mac("bridge", options.bridge)
        host_mac = derived_mac("host", attachment.owner)
        interfaces = [
            Interface(options.bridge, bridge_mac, there.mtu if there else mtu),
            Interface(attachment.host_name, host_mac, mtu),
            Interface(attachment.ifname, attachment.hardware_address, mtu, attachment.sandbox),
        ]
        if options.vlan and options.gateway:
            leg = vlan_leg(options, mtu)
            interfaces.append(Interface(leg.ifname, leg.mac, mtu))
        if attachment.bandwidth.egress_rate:
            interfaces.append(Interface(compute_shaping(attachment, mtu=mtu).ifb, mtu=mtu))
        addresses = tuple(
            ResultAddress(leased.address, gateway.ip if gateway else None, interface=2)
            for leased in lease.addresses
            for gateway in [compute_gateway(options, leased)]
        )
        return Result(tuple(interfaces), addresses, compute_bridge_routes(options, lease))


driver = BridgeDriver()


def _rules(facts: Facts, *intents: Intent) -> Iterator[Resource]:
    return (Rules(facts.firewall, intent) for intent in intents)


def _border(network: Network, lease: Lease) -> Iterator[Intent]:
    """What may pass between the bridge and the rest of the world."""
    options: BridgeOptions = network.options
    device = router_device(options)
    for family in lease.families:
        yield Base(family)
        yield BridgePolicy(
            device,
            family,
            internal=options.internal,
            isolated=options.isolate,
            routed=options.routed,
        )
        if not options.internal:
            yield Accept(device, family)
        elif network.names:
            yield Accept(device, family, forward=False)
    for subnet in dict.fromkeys(leased.address.network for leased in lease.addresses):
        yield Subnet(subnet, device, options.ip_masq and not options.internal)


def _published(
    options: BridgeOptions, attachment: Attachment, lease: Lease, facts: Facts
) -> Iterator[Resource]:
    """Published ports, each family on its own; the host's 127.0.0.1 needs route_localnet."""
    for family, mappings in compute_mappings(attachment, lease).items():
        if family == 4 and any(serves_localhost(mapping) for mapping in mappings):
            key = f"net/ipv4/conf/{router_device(options)}/route_localnet"
            yield Sysctl("host", ((key, "1"),))
        yield from _rules(facts, Publish(attachment.tag, family, mappings))
