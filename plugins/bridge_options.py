"""The keys of a bridge network, as the reference `bridge` plugin means them, and ours beside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from netplug.errors import ConfigError, UnsupportedError
from netplug.model import Attachment, Facts, Network, link_name_fault
from netplug.resources.links import Vlan

DEFAULT_MTU = 1500


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
            raise ConfigError(f"'vlan' is {self.vlan}", "it must be within 0..4094", "correct it")
        if self.mtu != "auto" and self.mtu != 0 and not 68 <= self.mtu <= 65535:
            raise ConfigError(
                f"'mtu' is {self.mtu}",
                'it must be 0, "auto" or within 68..65535',
                'remove it, or write "mtu": "auto"',
            )
        if fault := link_name_fault(self.bridge):
            raise ConfigError(
                f"'bridge' is {self.bridge!r}",
                f"the name of a link {fault}",
                "use a name such as cni0",
            )
        for entry in self.vlan_trunk:
            entry.ids()
        for key, value in self.sysctl.items():
            if not value or "\n" in value or "\0" in key + value:
                raise ConfigError(
                    f"'sysctl' has {value!r} for {key!r}", "that is no value", "write one line"
                )
            parts = key.replace("/", ".").split(".")
            if parts[0] != "net" or "" in parts:
                raise ConfigError(
                    f"'sysctl' has {key!r}",
                    "only keys below net. belong to a network namespace",
                    'write it as "net.ipv4.conf.IFNAME.rp_filter"',
                )

    @property
    def segment(self) -> str:
        return f"bridge:{self.bridge}" + (f".{self.vlan}" if self.vlan else "")

    @property
    def gateway(self) -> bool:
        return self.is_gateway or self.is_default_gateway

    @property
    def vlans(self) -> tuple[Vlan, ...]:
        """VLANs of a container's port, its own first; a trunk's native VLAN is 1."""
        tagged = sorted({vid for entry in self.vlan_trunk for vid in entry.ids()})
        if not self.vlan and not tagged:
            return ()
        own = Vlan(self.vlan or 1, untagged=True)
        return (own, *(Vlan(vid) for vid in tagged if vid != own.vid))

    def hairpin_for(self, attachment: Attachment) -> bool:
        """`hairpinMode`; published ports need it too, for the container that reaches its own
        (with br_netfilter the packet turns round inside the bridge). Promiscuous mode does without.
        """
        return self.hairpin_mode or (bool(attachment.ports) and not self.promisc_mode)

    def link_mtu(self, facts: Facts) -> int:
        """Bytes; "auto" follows the host's way out, 0 is the kernel's default."""
        if self.mtu == "auto":
            return facts.egress_mtu or DEFAULT_MTU
        return self.mtu or DEFAULT_MTU


def demand_possible(network: Network, attachment: Attachment, facts: Facts) -> None:
    """Raises ConfigError for keys that exclude each other, UnsupportedError for what this
    kernel lacks."""
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
    if options.gateway and network.ipam is not None and network.ipam.dhcp is not None:
        raise ConfigError(
            "'isGateway' and addresses of a DHCP server exclude each other",
            "the gateway is the one that the server names",
            "set 'isGateway' and 'isDefaultGateway' to false, or let 'ipam' lease from ranges",
        )
    if options.internal and attachment.ports:
        raise ConfigError(
            f"ports cannot be published on network {network.name}",
            "it is internal",
            "remove the ports, or attach the container to another network as well",
        )
