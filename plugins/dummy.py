"""dummy: an interface that leads nowhere.

    container
    +----------------+
    |  eth0 (dummy)  |   what is sent there is gone
    +----------------+

It holds addresses: of a service that must not depend on a link's state, of a router's
loopback, of a test.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    demand_addresses,
    demand_kind,
    demand_mtu,
    own_result,
    plan_own_inside,
    refuse_host_side,
)
from netplug.resources.upper import Kind, Upper

DEFAULT_MTU = 1500


@dataclass(frozen=True, slots=True)
class DummyOptions:
    mtu: int = 0
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        demand_mtu(self.mtu)


class DummyDriver:
    name = "dummy"
    options = DummyOptions

    def facts(self, network: Network) -> Wanted:
        return Wanted(kind="dummy")

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        demand_kind(network, facts)
        refuse_host_side(network, attachment)
        demand_addresses(network, dhcp=False)
        return Plan(
            (
                Upper(
                    attachment.ifname,
                    Kind("dummy"),
                    "",
                    attachment.hardware_address,
                    _mtu(network, attachment),
                    attachment.mark,
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
        mac, mtu = attachment.hardware_address, _mtu(network, attachment)
        return own_result(attachment, lease, mac=mac, mtu=mtu)


driver = DummyDriver()


def _mtu(network: Network, attachment: Attachment) -> int:
    options: DummyOptions = network.options
    return attachment.mtu or options.mtu or DEFAULT_MTU
