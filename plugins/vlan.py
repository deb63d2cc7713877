"""vlan: the container gets a tagged subinterface (802.1Q) of a link of the host.

    trunk ---- eth1 (parent) ---- eth1, VLAN 10 = eth0 (container)
                         `------- eth1, VLAN 20 = eth0 (container)

One container for each VLAN id and parent, with the parent's MAC. Several containers in one
VLAN: make the subinterface on the host, and a macvlan network on it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netplug.errors import ConfigError
from netplug.model import (
    Attachment,
    Facts,
    Lease,
    Network,
    Result,
    Wanted,
)
from netplug.plan import Plan
from netplug.plugins.parent import (
    compute_mtu,
    demand_mtu,
    find_parent,
    own_result,
    parent_facts,
    plan_own_inside,
    refuse_host_side,
)
from netplug.resources.upper import Kind, Upper


@dataclass(frozen=True, slots=True)
class VlanOptions:
    vlan_id: int
    master: str
    mtu: int = 0
    link_in_container: bool = False
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_mtu(self.mtu)
        if not self.master:
            raise ConfigError("'master' is empty", "a VLAN needs a link", "name the trunk's link")
        if not 0 <= self.vlan_id <= 4094:
            raise ConfigError(
                f"'vlanId' is {self.vlan_id}", "it must be within 0..4094 (802.1Q)", "correct it"
            )

    @property
    def segment(self) -> str:
        return "" if self.link_in_container else f"link:{self.master}.{self.vlan_id}"


class VlanDriver:
    name = "vlan"
    options = VlanOptions

    def facts(self, network: Network) -> Wanted:
        return parent_facts(network, "vlan")

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        options: VlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        refuse_host_side(network, attachment)
        return Plan(
            (
                Upper(
                    attachment.ifname,
                    Kind("vlan", vlan=options.vlan_id),
                    parent.name,
                    attachment.mac or parent.mac,
                    compute_mtu(attachment, options.mtu, parent),
                    attachment.mark,
                    parent_place="sandbox" if options.link_in_container else "host",
                ),
            )
        )

    def plan_network(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Plan:
        return plan_own_inside(network, attachment, lease)

    def result(
        self, network: Network, attachment: Attachment, lease: Lease, facts: Facts
    ) -> Result:
        options: VlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        mtu = compute_mtu(attachment, options.mtu, parent)
        return own_result(attachment, lease, mac=attachment.mac or parent.mac, mtu=mtu)


driver = VlanDriver()
