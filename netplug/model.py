"""The values that every part of netplug passes around.

Frozen dataclasses of the standard library: cheap to import, safe to share.
Addresses are `ipaddress` objects; text lives at the edges (`cni`, `cli`, stored JSON).
Rates are bits per second, bursts bits, MTUs bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, Literal

IPAddress = IPv4Address | IPv6Address
IPInterface = IPv4Interface | IPv6Interface
IPNetwork = IPv4Network | IPv6Network
Family = Literal[4, 6]
Protocol = Literal["tcp", "udp", "sctp"]
Place = Literal["host", "sandbox"]
Via = Literal["cni", "cli", "ipam", "names"]  # who attached; names: as `dnsname` in a chain

MARK = "netplug/"  # every link alias of ours starts so; what lacks our mark is never deleted
ROUTE_PROTOCOL = 110  # rtnetlink protocol number of routes that we add to the host
DHCP = "netplug-dhcp"  # type of IPAM: our DHCP client
ALIAS_LIMIT = (
    200  # bytes; the kernel takes 255 (IFALIASZ), nftables comments 128: see `Attachment.tag`
)


def link_name_fault(name: str) -> str:
    """The rule that a link's name breaks; "" where the kernel takes it as it is.

    `%` asks the kernel to put a number there, `all` and `default` are folders of sysctls.
    """
    if not 1 <= len(name.encode(errors="surrogateescape")) <= 15:  # IFNAMSIZ without its NUL
        return "must have 1 to 15 bytes"
    if name in (".", "..", "all", "default"):
        return 'must not be ".", "..", "all" or "default"'
    if any(char in "/:%\0" or char.isspace() for char in name):
        return "must not contain '/', ':', '%' or white space"
    return ""


def overlaps(one: IPNetwork, other: IPNetwork) -> bool:
    """Do the two share an address? False across families."""
    return one.version == other.version and one.overlaps(other)


def digest(*parts: str) -> str:
    """Hex SHA-256 of the parts, joined unambiguously: the root of every derived name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def derived_mac(*parts: str) -> str:
    """A locally administered unicast MAC that depends on the parts alone."""
    raw = bytearray(bytes.fromhex(digest("mac", *parts)[:12]))
    raw[0] = raw[0] & 0xFC | 0x02
    return ":".join(f"{byte:02x}" for byte in raw)


@dataclass(frozen=True, slots=True)
class Dns:
    """Resolver settings of a result (CNI spec, "dns")."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nameservers or self.domain or self.search or self.options)


@dataclass(frozen=True, slots=True)
class Route:
    """One route of a result; `None` leaves the choice to the kernel."""

    dst: IPNetwork
    gw: IPAddress | None = None
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None  # 0 global, 253 link, 254 host


@dataclass(frozen=True, slots=True)
class Port:
    """A published port: (host_ip or any, host_port, protocol) -> container_port."""

    host_port: int
    container_port: int
    protocol: Protocol = "tcp"
    host_ip: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """Limits as the container sees them: ingress is what it receives. Bits/s, bits; 0 is none."""

    ingress_rate: int = 0
    ingress_burst: int = 0
    egress_rate: int = 0
    egress_burst: int = 0

    def __bool__(self) -> bool:
        return bool(self.ingress_rate or self.egress_rate)


@dataclass(frozen=True, slots=True)
class Range:
    """Addresses of one subnet that may be leased: start..end without `exclude` and the gateway."""

    subnet: IPNetwork
    start: IPAddress
    end: IPAddress
    gateway: IPAddress | None = None
    exclude: tuple[IPNetwork, ...] = ()


@dataclass(frozen=True, slots=True)
class StaticAddress:
    address: IPInterface
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class DhcpProvided:
    """An option that a DHCP client sends: its number and text; "" takes the container's name."""

    option: int
    value: str = ""


@dataclass(frozen=True, slots=True)
class Dhcp:
    """How our DHCP client asks (the keys of the reference `dhcp` plugin, and ours beside).

    `request` replaces the options that are asked for, where it is not empty. `seconds`: how
    long an ADD waits for a server.
    """

    provide: tuple[DhcpProvided, ...] = ()
    request: tuple[int, ...] = ()
    skip_defaults: bool = False
    client_id: str = ""
    hostname: str = ""
    broadcast: bool = False
    priority: int | None = None
    seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class Ipam:
    """How a network gives addresses.

    `type` "netplug" is ours, "netplug-dhcp" our DHCP client; any other name is a foreign
    plugin, called over the CNI exec interface. Each range set gives one address to each
    attachment.
    """

    type: str = "netplug"
    range_sets: tuple[tuple[Range, ...], ...] = ()
    routes: tuple[Route, ...] = ()
    addresses: tuple[StaticAddress, ...] = ()
    dns: Dns = Dns()
    dhcp: Dhcp | None = None  # a DHCP server gives the address, not we

    @property
    def foreign(self) -> bool:
        return self.type not in ("netplug", "netplug-ipam", DHCP)


@dataclass(frozen=True, slots=True)
class Names:
    """That containers of a network find each other by name: key `names`.

    NAME.NETWORK.`domain` is a container's full name; `ttl` is in seconds; `services` gives
    names to ports, in addition to /etc/services; `upstreams` answer what is not ours.
    """

    domain: str = "internal"
    ttl: int = 5
    services: tuple[tuple[str, int], ...] = ()
    upstreams: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Site:
    """This node's share of a network that spans several: its own subnets of the whole's.

    `tunnel` is the link to the other nodes, `mtu` (bytes) what it carries.
    """

    node: str
    subnets: tuple[IPNetwork, ...]
    cluster: tuple[IPNetwork, ...]
    tunnel: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Network:
    """One network as its configuration describes it.

    `options` is the driver's own options dataclass; `segment` names the layer 2
    domain in which an address must be unique.
    """

    name: str
    driver: str
    options: Any
    ipam: Ipam | None = None
    dns: Dns = Dns()
    firewall: str = "auto"  # auto | nft | iptables | none
    names: Names | None = None
    site: Site | None = None  # of a network that spans nodes, once this one has joined
    raw: dict[str, Any] = field(default_factory=dict, compare=False, hash=False)

    @property
    def families(self) -> tuple[Family, ...]:
        """Families of addresses that it can give; both where a foreign IPAM plugin decides."""
        if self.ipam is None:
            return ()
        if self.ipam.foreign:
            return (4, 6)
        if self.ipam.dhcp is not None:
            return (4,)
        subnets = [one.subnet for range_set in self.ipam.range_sets for one in range_set]
        static = [one.address for one in self.ipam.addresses]
        return tuple(sorted({item.version for item in (*subnets, *static)}))

    @property
    def segment(self) -> str:
        return getattr(self.options, "segment", None) or f"network:{self.name}"


@dataclass(frozen=True, slots=True)
class Attachment:
    """One interface of one container on one network, and what was asked for it."""

    network: str
    container: str
    ifname: str
    sandbox: str = ""  # path of the network namespace; "" when it is gone
    name: str = ""  # the container's name, where the engine tells it
    mac: str | None = None
    mtu: int | None = None
    addresses: tuple[IPInterface | IPAddress, ...] = ()  # requested
    ports: tuple[Port, ...] = ()
    bandwidth: Bandwidth = Bandwidth()
    aliases: tuple[str, ...] = ()
    dns: Dns = Dns()
    via: Via = "cni"

    @property
    def owner(self) -> str:
        """NETWORK/CONTAINER/IFNAME: the key of records, leases and locks. What gives names to
        another plugin's interface stands beside it."""
        beside = "/names" if self.via == "names" else ""
        return f"{self.network}/{self.container}/{self.ifname}{beside}"

    @property
    def mark(self) -> str:
        """The alias of our links: netplug/OWNER, hashed when too long for the kernel."""
        return mark(self.owner)

    @property
    def tag(self) -> str:
        """24 hex that stand for the owner where room is scarce (nft comments, iptables)."""
        return digest("owner", self.owner)[:24]

    @property
    def host_name(self) -> str:
        """Name of the host end of the veth: 15 characters; NetworkManager ignores `veth*`."""
        return "veth" + digest("veth", self.owner)[:11]

    @property
    def hardware_address(self) -> str:
        """The requested MAC, else one from the first requested address, else from the identity."""
        if self.mac:
            return self.mac
        if self.addresses:
            address = self.addresses[0]
            ip = address if isinstance(address, (IPv4Address, IPv6Address)) else address.ip
            return derived_mac("address", self.network, str(ip))
        return derived_mac("attachment", self.owner)


def mark(owner: str) -> str:
    text = MARK + owner
    return text if len(text.encode()) <= ALIAS_LIMIT else f"{MARK}#{digest('mark', owner)}"


@dataclass(frozen=True, slots=True)
class LeasedAddress:
    address: IPInterface
    gateway: IPAddress | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """What IPAM gave: addresses (one for each range set), routes, resolver settings."""

    addresses: tuple[LeasedAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()
    static: bool = False  # the address was asked for, not chosen

    @property
    def families(self) -> tuple[Family, ...]:
        return tuple(sorted({a.address.version for a in self.addresses}))


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface of a result; `sandbox` is empty for the host's side."""

    name: str
    mac: str = ""
    mtu: int | None = None
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class ResultAddress:
    address: IPInterface
    gateway: IPAddress | None = None
    interface: int | None = None  # index into `interfaces`


@dataclass(frozen=True, slots=True)
class Result:
    """A CNI result, free of any version (CNI spec 1.1.0, "Success")."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[ResultAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Dns = Dns()


@dataclass(frozen=True, slots=True)
class DeviceQuery:
    """A host link by name, MAC, folder below /sys/devices or PCI address: the first that is set."""

    name: str = ""
    mac: str = ""
    kernel_path: str = ""
    pci: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a driver needs to know of the kernel before it plans."""

    links: tuple[str, ...] = ()  # links by name, of the host or of `place`
    place: Place = "host"
    egress: bool = False  # the default route's interface there
    addresses: bool = False  # and the addresses of all these
    egress_mtu: bool = False  # MTU of the host's default route's interface
    accept_ra: bool = False  # interfaces that learned a route from router advertisements
    vlan_filtering: bool = False  # can this kernel filter VLANs on a bridge?
    kind: str = ""  # can this kernel make links of this kind?
    host_network: bool = False  # all of the host's links, and whether the sandbox is the host
    device: DeviceQuery | None = None


@dataclass(frozen=True, slots=True)
class LinkFact:
    name: str
    kind: str
    mac: str
    mtu: int
    alias: str = ""
    up: bool = True
    addresses: tuple[IPInterface, ...] = ()  # without link-local ones; where they were wanted


@dataclass(frozen=True, slots=True)
class Facts:
    """The answers to `Wanted`, and which firewall backend serves this host."""

    firewall: str = "nft"
    links: tuple[LinkFact, ...] = ()
    egress_mtu: int | None = None
    ra_interfaces: tuple[str, ...] = ()
    vlan_filtering: bool = True
    kind_known: bool = True
    readable: bool = True  # False: `Wanted.place` is a sandbox that is not there
    egress: LinkFact | None = None
    shares_host: bool = False  # the sandbox is the host's own namespace
    device: LinkFact | None = None  # what `Wanted.device` describes, None where there is none

    def link(self, name: str) -> LinkFact | None:
        return next((link for link in self.links if link.name == name), None)
