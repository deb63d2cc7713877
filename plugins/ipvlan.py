"""ipvlan: each container an interface of its own on a link of the host, all with its MAC.

    LAN ---- eth1 (parent) ---- ipvlan eth0 (container)
                       `------- ipvlan eth0 (container)

For networks that accept one MAC for each port (cloud hosts, Wi-Fi). Mode l2 joins the
parent's LAN; l3 and l3s route inside the kernel, so that no broadcast passes. As with
macvlan, parent and containers do not hear each other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

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
    demand_addresses,
    demand_mtu,
    find_parent,
    own_result,
    parent_facts,
    plan_own_inside,
    refuse,
    refuse_host_side,
)
from netplug.resources.upper import Kind, Upper


@dataclass(frozen=True, slots=True)
class IpvlanOptions:
    master: str = ""
    mode: Literal["l2", "l3", "l3s"] = "l2"
    mtu: int = 0
    link_in_container: bool = False
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_mtu(self.mtu)

    @property
    def segment(self) -> str:
        return f"link:{self.master}" if self.master and not self.link_in_container else ""


class IpvlanDriver:
    name = "ipvlan"
    options = IpvlanOptions

    def facts(self, network: Network) -> Wanted:
        return parent_facts(network, "ipvlan")

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        options: IpvlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        refuse_host_side(network, attachment)
        why = f"every ipvlan has the MAC of its parent {parent.name}"
        refuse(network, (("a MAC", attachment.mac, why, "remove it; or use macvlan"),))
        demand_addresses(network)
        return Plan(
            (
                Upper(
                    attachment.ifname,
                    Kind("ipvlan", options.mode),
                    parent.name,
                    "",
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
        options: IpvlanOptions = network.options
        parent = find_parent(network, options.master, facts)
        mtu = compute_mtu(attachment, options.mtu, parent)
        return own_result(attachment, lease, mac=parent.mac, mtu=mtu)


driver = IpvlanDriver()
