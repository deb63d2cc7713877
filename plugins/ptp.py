"""ptp: a cable between each container and the host, and nobody else on it.

    container                 host
    +--------+                +---------------------------+
    |  eth0 -+---- veth ------+- vethXXXX  10.1.0.1       |
    +--------+                |     route 10.1.0.2 -------+-- NAT -- outside
                              +---------------------------+

No bridge: containers reach each other through the host, which routes. The host's end has
the gateway's address alone (/32), and the host one route to each container.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import Literal

from netplug.errors import ConfigError
from netplug.firewall.intent import Accept, Base, Intent, Publish, Subnet
from netplug.model import (
    Attachment,
    Facts,
    Family,
    Interface,
    IPAddress,
    Lease,
    Network,
    Result,
    ResultAddress,
    Route,
    Wanted,
    derived_mac,
    digest,
)
from netplug.plan import Plan
from netplug.plugins.gateway import plan_forwarding
from netplug.plugins.inside import compute_routes, plan_inside
from netplug.plugins.parent import demand_addresses, demand_mtu
from netplug.plugins.publishing import compute_mappings, serves_localhost
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes, Sysctl
from netplug.resources.links import Veth
from netplug.resources.rules import Rules
from netplug.resources.shaping import compute_shaping

DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class PtpOptions:
    ip_masq: bool = False
    ip_masq_backend: Literal["", "iptables", "nftables"] = ""
    mtu: int = 0
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_mtu(self.mtu)


class PtpDriver:
    name = "ptp"
    options = PtpOptions

    def facts(self, network: Network) -> Wanted:
        return Wanted(accept_ra=6 in network.families)

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        demand_addresses(network, dhcp=False)
        mtu = _mtu(network, attachment)
        steps: list[Resource] = [
            Veth(
                attachment.host_name,
                host_mac=derived_mac("host", attachment.owner),
                bridge="",
                ifname=attachment.ifname,
                mac=attachment.hardware_address,
                mtu=mtu,
                alias=attachment.mark,
            )
        ]
        if attachment.bandwidth:
            steps.append(compute_shaping(attachment, mtu=mtu))
        return Plan(tuple(steps))

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        """The host as the container's router, then the container's inside."""
        options: PtpOptions = network.options
        device = attachment.host_name
        steps: list[Resource] = list(plan_forwarding(lease, facts))
        gateways = tuple(ip_interface(gateway) for gateway in _gateways(lease).values())
        steps.append(Addresses("host", device, gateways))
        targets = tuple(Route(ip_network(a.address.ip)) for a in lease.addresses)
        steps.append(Routes("host", device, targets))
        steps += (Rules(facts.firewall, i) for i in _border(network, attachment, lease))
        for family, mappings in compute_mappings(attachment, lease).items():
            if family == 4 and any(map(serves_localhost, mappings)):
                steps.append(Sysctl("host", ((f"net/ipv4/conf/{device}/route_localnet", "1"),)))
            steps.append(Rules(facts.firewall, Publish(attachment.tag, family, mappings)))
        # Alone on the link: a prefix would promise neighbours that are not there.
        alone = tuple(replace(a, address=ip_interface(a.address.ip)) for a in lease.addresses)
        inside = replace(lease, addresses=alone)
        steps += plan_inside(attachment, inside, _inner_routes(lease), sysctl=options.sysctl)
        return Plan(tuple(steps))

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        """The host's end first, as the reference has it; the addresses are the container's."""
        mtu = _mtu(network, attachment)
        ends = (
            Interface(attachment.host_name, derived_mac("host", attachment.owner), mtu),
            Interface(attachment.ifname, attachment.hardware_address, mtu, attachment.sandbox),
        )
        addresses = tuple(
            ResultAddress(ip_interface(a.address.ip), a.gateway, interface=1)
            for a in lease.addresses
        )
        return Result(ends, addresses, _inner_routes(lease))


driver = PtpDriver()


def _mtu(network: Network, attachment: Attachment) -> int:
    options: PtpOptions = network.options
    return attachment.mtu or options.mtu or DEFAULT_MTU


def _gateways(lease: Lease) -> dict[Family, IPAddress]:
    """The host's address of each family: IPAM's gateway, else the first one of the subnet."""
    found: dict[Family, IPAddress] = {}
    for leased in lease.addresses:
        network = leased.address.network
        first = network[1] if network.num_addresses > 2 else None
        gateway = leased.gateway or first
        if gateway is None or gateway == leased.address.ip:
            raise ConfigError(
                f"{leased.address} has no gateway",
                "the host's end of the cable needs an address of its own",
                "add 'gateway' to the range or address in 'ipam'",
            )
        found.setdefault(gateway.version, gateway)
    return found


def _inner_routes(lease: Lease) -> tuple[Route, ...]:
    """First the way to the gateway itself, then to its subnet, then what IPAM says."""
    gateways = _gateways(lease)
    near = [Route(ip_network(gateway), scope=253) for gateway in gateways.values()]
    subnets = dict.fromkeys(a.address.network for a in lease.addresses)
    far = [Route(net, gateways[net.version]) for net in subnets if net.num_addresses > 1]
    return tuple(dict.fromkeys((*near, *far, *compute_routes(lease, gateways, default=False))))


def _border(network: Network, attachment: Attachment, lease: Lease) -> Iterator[Intent]:
    options: PtpOptions = network.options
    label = "ptp" + digest("ptp", network.name)[:11]  # the subnet's, which has no device of its own
    for family in lease.families:
        yield Base(family)
        yield Accept(attachment.host_name, family)
    for subnet in dict.fromkeys(leased.address.network for leased in lease.addresses):
        yield Subnet(subnet, label, options.ip_masq)
