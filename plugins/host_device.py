"""host-device: a network device of the host moves into the container, and back.

    before           while attached
    host: ens5       container: eth0 (the same device)

For hardware that a container shall have alone. DEL gives it back under its old name, with
its old MAC, MTU and state. When the container's namespace dies first, the kernel gives
physical devices back by itself and DEL restores the name; virtual ones end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from netplug.errors import ConfigError, NotFound
from netplug.model import (
    Attachment,
    DeviceQuery,
    Facts,
    Lease,
    LinkFact,
    Network,
    Result,
    Wanted,
)
from netplug.plan import Plan
from netplug.plugins.parent import demand_mac, own_result, plan_own_inside, refuse_host_side
from netplug.resources.upper import WAS, Moved

DEVICES = "/sys/devices/"


@dataclass(frozen=True, slots=True)
class HostDeviceOptions:
    """The first of the four keys that is set selects the device (as the reference plugin)."""

    device: str = ""
    hwaddr: str = ""
    kernelpath: str = ""
    pci_bus_id: str = field(default="", metadata={"json": "pciBusID"})
    sysctl: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (self.device or self.hwaddr or self.kernelpath or self.pci_bus_id):
            raise ConfigError(
                "no device is named",
                "one of 'device', 'hwaddr', 'kernelpath', 'pciBusID' selects it",
                'add "device": "NAME"',
            )
        if self.hwaddr:
            demand_mac("hwaddr", self.hwaddr)
        path = self.kernelpath
        if path and (not path.startswith(DEVICES) or ".." in path.split("/")):
            raise ConfigError(
                f"'kernelpath' is {path!r}", f"devices live below {DEVICES}", "correct the path"
            )
        if self.device == "lo" or "/" in self.pci_bus_id:
            raise ConfigError("the device cannot be moved", "it is none", "name another one")


class HostDeviceDriver:
    name = "host-device"
    options = HostDeviceOptions

    def facts(self, network: Network) -> Wanted:
        o: HostDeviceOptions = network.options
        return Wanted(device=DeviceQuery(o.device, o.hwaddr, o.kernelpath, o.pci_bus_id))

    def plan_link(self, network: Network, attachment: Attachment, facts: Facts) -> Plan:
        refuse_host_side(network, attachment)
        device = _device(network, facts)
        return Plan(
            (
                Moved(
                    device.name,
                    device.mac,
                    device.mtu,
                    device.up,
                    device.alias,
                    attachment.ifname,
                    attachment.mac or device.mac,
                    attachment.mtu or device.mtu,
                    f"{attachment.mark}{WAS}{device.name}",
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
        device = _device(network, facts)
        mac, mtu = attachment.mac or device.mac, attachment.mtu or device.mtu
        return own_result(attachment, lease, mac=mac, mtu=mtu)


driver = HostDeviceDriver()


def _device(network: Network, facts: Facts) -> LinkFact:
    options: HostDeviceOptions = network.options
    if facts.device is not None:
        return facts.device
    named = options.device or options.hwaddr or options.kernelpath or options.pci_bus_id
    raise NotFound(
        f"device {named} of network {network.name} is not on the host",
        "no link fits, or another container has it",
        "see: ip link; netplug ps",
    )
