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
plugin means the same here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import ip_interface, ip_network
from typing import Literal

from netplug.errors import ConfigError, UnsupportedError
from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    SpoofGuard,
    Subnet,
)
from netplug.model import (
    Attachment,
    Facts,
    Family,
    Interface,
    IPInterface,
    Lease,
    LeasedAddress,
    Network,
    Result,
    ResultAddress,
    Route,
    Wanted,
    derived_mac,
    digest,
)
from netplug.plan import Plan
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes, Sysctl
from netplug.resources.links import Bridge, Veth, Vlan
from netplug.resources.rules import Rules
from netplug.resources.shaping import Shaping, compute_shaping

DEFAULT_MTU = 1500
DEFAULT = {4: ip_network("0.0.0.0/0"), 6: ip_network("::/0")}


@dataclass(frozen=True, slots=True)
class VlanRange:
    """One `vlanTrunk` entry: an id, or a range of ids."""

    id: int | None = None
    min_id: int | None = field(default=None, metadata={"json": "minID"})
    max_id: int | None = field(default=None, metadata={"json": "maxID"})

    def ids(self) -> range:
        low, high = (self.id, self.id) if self.id is not None else (self.min_id, self.max_id)
        if low is None or high is None or not 1 <= low <= high <= 4094:
            raise ConfigError(
                f"vlanTrunk entry {self} is wrong",
                "it needs 'id', or 'minID' and 'maxID', within 1..4094",
                'write {"id": 10} or {"minID": 10, "maxID": 20}',
            )
        return range(low, high + 1)


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    bridge: str = "cni0"
    is_gateway: bool = False
    is_default_gateway: bool = False
    force_address: bool = False
    ip_masq: bool = False
    ip_masq_backend: Literal["", "iptables", "nftables"] = ""
    mtu: int | Literal["auto"] = 0
    hairpin_mode: bool = False
    promisc_mode: bool = False
    vlan: int = 0
    vlan_trunk: tuple[VlanRange, ...] = ()
    preserve_default_vlan: bool = False
    macspoofchk: bool = False
    enabledad: bool = False
    disable_container_interface: bool = False
    port_isolation: bool = False
    internal: bool = False
    isolate: bool = False
    routed: bool = False
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.hairpin_mode and self.promisc_mode:
            raise ConfigError("'hairpinMode' and 'promiscMode' exclude each other", hint="set one")
        if not 0 <= self.vlan <= 4094:
            raise ConfigError(f"'vlan' is {self.vlan}", "it must be within 0..4094")
        if self.mtu != "auto" and self.mtu != 0 and not 68 <= self.mtu <= 65535:
            raise ConfigError(
                f"'mtu' is {self.mtu}", "it must be 0, \"auto\" or within 68..65535"
            )
        if not 1 <= len(self.bridge.encode()) <= 15 or set(self.bridge) & set("/: \t\n"):
            raise ConfigError(
                f"'bridge' is {self.bridge!r}",
                "a link's name has 1 to 15 bytes, and no '/', ':' or blanks",
            )
        for entry in self.vlan_trunk:
            entry.ids()

    @property
    def segment(self) -> str:
        return f"bridge:{self.bridge}" + (f".{self.vlan}" if self.vlan else "")

    @property
    def gateway(self) -> bool:
        return self.is_gateway or self.is_default_gateway

    @property
    def firewall(self) -> str:
        return {"iptables": "iptables", "nftables": "nft"}.get(self.ip_masq_backend, "auto")


class BridgeDriver:
    name = "bridge"
    options = BridgeOptions

    def facts(self, network: Network) -> Wanted:
        options: BridgeOptions = network.options
        return Wanted(
            links=(options.bridge,),
            egress_mtu=options.mtu == "auto",
            accept_ra=options.gateway,
            vlan_filtering=bool(options.vlan or options.vlan_trunk),
        )

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        options: BridgeOptions = network.options
        _demand_possible(network, attachment, facts)
        vlans = _vlans(options)
        steps: list[Resource] = [
            Bridge(
                options.bridge,
                mac=derived_mac("bridge", options.bridge),
                mtu=_mtu(options, facts) if options.mtu else 0,
                promisc=options.promisc_mode,
                vlan_filtering=bool(vlans),
            ),
            _quiet_bridge(options.bridge),
            Veth(
                attachment.host_name,
                host_mac=_host_mac(attachment),
                bridge=options.bridge,
                ifname=attachment.ifname,
                mac=attachment.hardware_address,
                mtu=_mtu(options, facts),
                alias=attachment.mark,
                hairpin=options.hairpin_mode,
                isolated=options.port_isolation,
                vlans=vlans,
                keep_default_vlan=options.preserve_default_vlan,
            ),
        ]
        if options.macspoofchk:
            steps += _rules(
                facts,
                Base("bridge"),
                SpoofGuard(attachment.tag, attachment.host_name, attachment.hardware_address),
            )
        if attachment.bandwidth:
            steps.append(compute_shaping(attachment, mtu=_mtu(options, facts)))
        return Plan(tuple(steps))

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        options: BridgeOptions = network.options
        steps: list[Resource] = []
        if options.gateway:
            steps += _forwarding(lease, facts)
            steps += _gateways(options, attachment, lease, facts)
        if lease.addresses and (options.gateway or options.ip_masq or attachment.ports):
            steps += _rules(facts, *_border(options, lease))
        steps.append(_sandbox_sysctls(options, attachment, lease))
        steps.append(Addresses("sandbox", "lo", ()))
        steps.append(
            Addresses(
                "sandbox",
                attachment.ifname,
                tuple(leased.address for leased in lease.addresses),
                dad=options.enabledad,
                up=not options.disable_container_interface,
            )
        )
        routes = compute_routes(options, lease)
        if routes:
            steps.append(Routes("sandbox", attachment.ifname, routes))
        steps += _published(options, attachment, lease, facts)
        return Plan(tuple(steps))

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        options: BridgeOptions = network.options
        mtu = _mtu(options, facts)
        bridge = facts.link(options.bridge)
        found = [
            Interface(
                options.bridge,
                bridge.mac if bridge else derived_mac("bridge", options.bridge),
                bridge.mtu if bridge else mtu,
            ),
            Interface(attachment.host_name, _host_mac(attachment), mtu),
            Interface(attachment.ifname, attachment.hardware_address, mtu, attachment.sandbox),
        ]
        if options.vlan and options.gateway:
            leg = _vlan_leg(options, mtu)
            found.append(Interface(leg.ifname, leg.mac, mtu))
        if attachment.bandwidth.egress_rate:
            shaping = compute_shaping(attachment, mtu=mtu)
            found.append(Interface(shaping.ifb, mtu=mtu))
        addresses = []
        for leased in lease.addresses:
            gateway = _gateway(options, leased)
            addresses.append(ResultAddress(leased.address, gateway.ip if gateway else None, 2))
        return Result(tuple(found), tuple(addresses), compute_routes(options, lease))


driver = BridgeDriver()


def compute_routes(options: BridgeOptions, lease: Lease) -> tuple[Route, ...]:
    """The container's routes: IPAM's, through the first gateway of their family where they
    name none, and a default route for each family (`isDefaultGateway`)."""
    gateways = {leased.address.version: _gateway(options, leased) for leased in reversed(lease.addresses)}
    routes = [
        route if route.gw else _via(route, gateways.get(route.dst.version)) for route in lease.routes
    ]
    if options.is_default_gateway and not options.internal:
        for family, gateway in sorted(gateways.items()):
            known = any(route.dst == DEFAULT[family] and route.gw for route in routes)
            if gateway is not None and not known:
                routes.append(Route(DEFAULT[family], gateway.ip))
    if options.internal:
        routes = [route for route in routes if route.dst.prefixlen]
    return tuple(dict.fromkeys(routes))


def _via(route: Route, gateway: IPInterface | None) -> Route:
    return replace(route, gw=gateway.ip) if gateway else route


def _gateway(options: BridgeOptions, leased: LeasedAddress) -> IPInterface | None:
    """The bridge's address for this subnet: IPAM's gateway, else the subnet's first address."""
    network = leased.address.network
    if leased.gateway is not None:
        return ip_interface(f"{leased.gateway}/{network.prefixlen}")
    if options.gateway:
        return ip_interface(f"{network[0 if network.num_addresses <= 2 else 1]}/{network.prefixlen}")
    return None


def _demand_possible(network: Network, attachment: Attachment, facts: Facts) -> None:
    options: BridgeOptions = network.options
    if (options.vlan or options.vlan_trunk) and not facts.vlan_filtering:
        raise UnsupportedError(
            f"'{'vlan' if options.vlan else 'vlanTrunk'}' cannot be served",
            "this kernel has no bridge VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)",
            "remove the key, or use a kernel that has it",
        )
    if options.disable_container_interface and network.ipam is not None:
        raise ConfigError(
            "'disableContainerInterface' and 'ipam' exclude each other",
            "an interface that stays down serves no address",
            "remove one of the two keys",
        )
    if options.internal and attachment.ports:
        raise ConfigError(
            f"ports cannot be published on network {network.name}",
            "it is internal",
            "remove the ports, or attach the container to another network as well",
        )


def _mtu(options: BridgeOptions, facts: Facts) -> int:
    if options.mtu == "auto":
        return facts.egress_mtu or DEFAULT_MTU
    return options.mtu or DEFAULT_MTU


def _host_mac(attachment: Attachment) -> str:
    return derived_mac("host", attachment.owner)


def _quiet_bridge(name: str) -> Sysctl:
    """A gateway takes no advice from router advertisements, and its address needs no DAD."""
    keys = ("accept_ra", "accept_dad")
    return Sysctl("host", tuple((f"net/ipv6/conf/{name}/{key}", "0") for key in keys), optional=True)


def _vlans(options: BridgeOptions) -> tuple[Vlan, ...]:
    tagged = sorted({vid for entry in options.vlan_trunk for vid in entry.ids()})
    if not options.vlan and not tagged:
        return ()
    own = Vlan(options.vlan or 1, untagged=True)  # a trunk's native VLAN is 1
    return (own, *(Vlan(vid) for vid in tagged if vid != own.vid))


def _vlan_leg(options: BridgeOptions, mtu: int) -> Veth:
    """The host's own port in the VLAN; the gateway address lives on its other end."""
    name = f"{options.bridge}.{options.vlan}"
    if len(name.encode()) > 15:
        name = "vlan" + digest("vlan", name)[:11]
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


def _forwarding(lease: Lease, facts: Facts) -> Iterator[Resource]:
    """The host routes; a host that learned its own default route from router advertisements
    keeps listening to them (accept_ra 2), which forwarding would end otherwise."""
    if 4 in lease.families:
        yield Sysctl("host", (("net/ipv4/ip_forward", "1"),))
    if 6 in lease.families:
        listening = tuple((f"net/ipv6/conf/{name}/accept_ra", "2") for name in facts.ra_interfaces)
        yield Sysctl("host", (*listening, ("net/ipv6/conf/all/forwarding", "1")))


def _gateways(
    options: BridgeOptions, attachment: Attachment, lease: Lease, facts: Facts
) -> Iterator[Resource]:
    device = options.bridge
    if options.vlan:
        leg = _vlan_leg(options, _mtu(options, facts))
        device = leg.ifname
        yield leg
    for leased in lease.addresses:
        gateway = _gateway(options, leased)
        if gateway is not None:
            yield Addresses("host", device, (gateway,), shared=True, force=options.force_address)


def _rules(facts: Facts, *intents: Intent) -> Iterator[Resource]:
    return (Rules(facts.firewall, intent) for intent in intents)


def _border(options: BridgeOptions, lease: Lease) -> Iterator[Intent]:
    """What may pass between the bridge and the rest of the world."""
    for family in lease.families:
        yield Base(family)
        yield BridgePolicy(
            options.bridge,
            family,
            internal=options.internal,
            isolated=options.isolate,
            routed=options.routed,
        )
        if not options.internal:
            yield Accept(options.bridge, family)
    for subnet in dict.fromkeys(leased.address.network for leased in lease.addresses):
        yield Subnet(subnet, options.bridge, options.ip_masq and not options.internal)


def _sandbox_sysctls(options: BridgeOptions, attachment: Attachment, lease: Lease) -> Sysctl:
    name = attachment.ifname
    values = {f"net/ipv4/conf/{name}/arp_notify": "1"}
    if 6 in lease.families:
        dad = "1" if options.enabledad else "0"
        values |= {
            "net/ipv6/conf/lo/disable_ipv6": "0",
            f"net/ipv6/conf/{name}/disable_ipv6": "0",
            f"net/ipv6/conf/{name}/accept_dad": dad,
            f"net/ipv6/conf/{name}/enhanced_dad": dad,
            f"net/ipv6/conf/{name}/keep_addr_on_down": "1",
            f"net/ipv6/conf/{name}/ndisc_notify": "1",
        }
    for key, value in options.sysctl.items():
        values[key.replace(".", "/").replace("IFNAME", name, 1)] = value
    return Sysctl("sandbox", tuple(values.items()))


def _published(
    options: BridgeOptions, attachment: Attachment, lease: Lease, facts: Facts
) -> Iterator[Resource]:
    """Published ports, each family on its own; the host's 127.0.0.1 needs route_localnet."""
    by_family = compute_mappings(attachment, lease)
    for family, mappings in by_family.items():
        if family == 4 and any(_serves_localhost(mapping) for mapping in mappings):
            yield Sysctl("host", ((f"net/ipv4/conf/{options.bridge}/route_localnet", "1"),))
        yield from _rules(facts, Publish(attachment.tag, family, mappings))


def _serves_localhost(mapping: Mapping) -> bool:
    ip = mapping.host_ip
    return ip is None or ip.is_unspecified or ip.is_loopback


def compute_mappings(attachment: Attachment, lease: Lease) -> dict[Family, tuple[Mapping, ...]]:
    """Mappings by family. A mapping without host address serves every family of the lease.

    Raises ConfigError for one that no address of the container can serve.
    """
    targets = {leased.address.version: leased.address.ip for leased in reversed(lease.addresses)}
    found: dict[Family, list[Mapping]] = {}
    for port in attachment.ports:
        ip = port.host_ip
        if ip is not None and ip.version == 6 and ip.is_loopback:
            raise ConfigError(
                f"port {port.host_port} cannot be published on ::1",
                "the kernel does not route ::1 (there is no route_localnet for IPv6)",
                "publish on 127.0.0.1, or on an IPv6 address of the host",
            )
        families = [ip.version] if ip is not None else sorted(targets)
        for family in families:
            if family not in targets:
                raise ConfigError(
                    f"port {port.host_port} cannot be published on {ip}",
                    f"the container has no IPv{family} address",
                    "add a range of that family to 'ipam', or choose another host address",
                )
            found.setdefault(family, []).append(
                Mapping(
                    port.protocol,
                    port.host_port,
                    targets[family],
                    port.container_port,
                    None if ip is None or ip.is_unspecified else ip,
                )
            )
    if attachment.ports and not targets:
        raise ConfigError("ports cannot be published", "the container has no address", "set 'ipam'")
    return {family: tuple(mappings) for family, mappings in found.items()}
