"""Overlay networks: one network over several nodes, each node with a subnet of its own.

    node a                                              node b
    +-------------------------------------+             +------------------------------
    | eth0 -- veth -- np-web  10.200.7.1  |             |  np-web  10.200.9.1 -- veth
    |                   |                 |             |    |
    |        10.200.9.0/24 dev vx-web     |             |  10.200.7.0/24 dev vx-web
    |                   |                 |             |    |
    |                 vx-web  10.200.7.0  |             |  vx-web  10.200.9.0
    +-------------------+-----------------+             +----+-------------------------
                 192.0.2.1 +------- VXLAN in UDP, port 4789 -------+ 192.0.2.2

On each node it is a bridge network with the node's own subnet, and so it is planned as
one. What joins the nodes belongs to the node, not to a container: a VXLAN device, and
for each other node one route, one neighbour and one forwarding entry (`overlay.plan`),
kept right by the agent.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from netplug.errors import ConfigError, Unavailable
from netplug.firewall.intent import BridgePolicy, Subnet
from netplug.model import (
    Attachment,
    Facts,
    Lease,
    Network,
    Result,
    Site,
    Wanted,
    digest,
    link_name_fault,
    overlaps,
)
from netplug.plan import Plan
from netplug.plugins import bridge
from netplug.plugins.bridge_options import BridgeOptions
from netplug.resources import Resource
from netplug.resources.rules import Rules


@dataclass(frozen=True, slots=True)
class OverlayOptions:
    """`nodePrefix` is the length of a node's subnet (IPv4; IPv6 nodes get a /64).

    mode: `routed` (a subnet for each node) or `bridged` (one subnet, each node leases from
    a block of it). direct: route without tunnel to nodes on the same link (whose hosts then reach
    container addresses). encrypt: WireGuard instead of VXLAN. `vni` 0: chosen.
    """

    mode: Literal["routed", "bridged"] = "routed"
    node_prefix: int = 24
    port: int = 4789
    vni: int = 0
    mtu: int | Literal["auto"] = "auto"
    direct: bool = False
    encrypt: Literal["", "wireguard"] = ""
    bridge: str = ""
    ip_masq: bool = True
    internal: bool = False
    isolate: bool = False
    port_isolation: bool = False
    sysctl: dict[str, str] = field(default_factory=dict)

    @property
    def tunnel_port(self) -> int:
        """WireGuard has a port of its own where none is named."""
        return 51820 if self.encrypt and self.port == 4789 else self.port

    def __post_init__(self) -> None:
        if not 8 <= self.node_prefix <= 30:
            raise ConfigError(
                f"'nodePrefix' is {self.node_prefix}", "it must be within 8..30", "write 24"
            )
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"'port' is {self.port}", "it must be within 1..65535", "write 4789")
        if not 0 <= self.vni < 1 << 24:
            raise ConfigError(f"'vni' is {self.vni}", "it must be within 1..16777215", "remove it")
        if self.mtu != "auto" and not 1280 <= self.mtu <= 65535:
            raise ConfigError(
                f"'mtu' is {self.mtu}", 'it must be "auto" or within 1280..65535', 'write "auto"'
            )
        if self.bridge and (fault := link_name_fault(self.bridge)):
            raise ConfigError(f"'bridge' is {self.bridge!r}", f"it {fault}", "remove the key")
        if self.mode == "bridged" and (self.direct or self.encrypt):
            raise ConfigError(
                f"'{'direct' if self.direct else 'encrypt'}' needs the routed mode",
                "a bridged network has no routes between its nodes",
                'remove one of the two keys, or write "mode": "routed"',
            )


def bridge_name(network: Network) -> str:
    named: str = network.options.bridge
    return named or short_name("np-", network.name)


def tunnel_name(network: str) -> str:
    return short_name("vx-", network)


def short_name(prefix: str, network: str) -> str:
    """The network's name behind the prefix, hashed where that is too long for a link."""
    name = prefix + network
    fits = len(name.encode()) <= 15 and not link_name_fault(name)
    return name if fits else prefix + digest("link", network)[: 15 - len(prefix)]


class OverlayDriver:
    name = "overlay"
    options = OverlayOptions

    def facts(self, network: Network) -> Wanted:
        if network.site is None:
            return Wanted(links=(bridge_name(network),))
        return bridge.driver.facts(_node_side(network))

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        return bridge.driver.plan_link(_node_side(network), attachment, facts)

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        """As on a bridge, but for the border, which lies around the whole network."""
        plan = bridge.driver.plan_network(_node_side(network), attachment, lease, facts)
        return Plan(tuple(_widened(step, _site(network)) for step in plan))

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        return bridge.driver.result(_node_side(network), attachment, lease, facts)


driver = OverlayDriver()


def _site(network: Network) -> Site:
    if network.site is None:
        raise Unavailable(
            f"this node has not joined the overlay network {network.name}",
            "its subnet is not known yet",
            "is the agent running? see: netplug agent status, netplug overlay status",
        )
    return network.site


def _node_side(network: Network) -> Network:
    """The bridge network that it is on this node."""
    options: OverlayOptions = network.options
    return replace(
        network,
        options=BridgeOptions(
            bridge=bridge_name(network),
            is_default_gateway=True,
            ip_masq=options.ip_masq and not options.internal,
            hairpin_mode=True,
            mtu=_site(network).mtu,
            internal=options.internal,
            isolate=options.isolate,
            routed=options.direct,  # then other nodes' containers come in by the underlay
            port_isolation=options.port_isolation,
            sysctl=options.sysctl,
        ),
    )


def _widened(step: Resource, site: Site) -> Resource:
    """The tunnel is inside the border, and no packet within the whole range is masqueraded."""
    if isinstance(step, Rules) and isinstance(step.intent, Subnet):
        subnet = step.intent.subnet
        whole = next(one for one in site.cluster if overlaps(one, subnet))
        return replace(step, intent=replace(step.intent, whole=whole))
    if isinstance(step, Rules) and isinstance(step.intent, BridgePolicy):
        return replace(step, intent=replace(step.intent, tunnel=site.tunnel))
    return step
