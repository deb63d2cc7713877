"""Every option of the drivers beside bridge, alone and with others: one table for several tests.

The host has two links, eth1 (the way out too, MTU 1420) and dev0, as `prepare` makes them.
"""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any

from attaching import V4, V6, driver_network
from bridge_cases import LIMITS, ROUTES, Case

from netplug.model import Facts, LinkFact, Port

if TYPE_CHECKING:
    from conftest import Host

BOTH = [V4, V6]
ETH1 = LinkFact(
    "eth1",
    "veth",
    "02:00:00:00:00:0a",
    1420,
    addresses=(ip_interface("10.1.0.250/24"), ip_interface("fd00:1::250/64")),
)
DEV0 = LinkFact("dev0", "veth", "02:00:00:00:00:0d", 1500)


def prepare(host: Host) -> None:
    far = "type veth peer name {0}-far address 02:00:00:00:00:f{1}"
    host.run(f"ip link add eth1 address 02:00:00:00:00:0a mtu 1420 {far.format('eth1', 'a')}")
    host.run("ip addr add 10.1.0.250/24 dev eth1 && ip addr add fd00:1::250/64 nodad dev eth1")
    host.run("ip link set eth1 up && ip link set eth1-far up")
    host.run("ip route add default via 10.1.0.254")
    host.run(f"ip link add dev0 address 02:00:00:00:00:0d {far.format('dev0', 'd')}")
    host.run("ip link set dev0 up")


FACTS = Facts(links=(ETH1,), egress=ETH1, device=DEV0)


def routed(*ranges: dict[str, Any]) -> dict[str, Any]:
    return {"type": "netplug", "ranges": [[one] for one in ranges], "routes": ROUTES}


def macvlan(**keys: Any) -> Any:
    return driver_network("macvlan", **{"master": "eth1", "ipam": [V4], **keys})


def ptp(**keys: Any) -> Any:
    return driver_network("ptp", **{"ipam": [V4], **keys})


OUTWARD = [{"dst": "0.0.0.0/0"}, {"dst": "198.51.100.0/24", "table": 100}, {"dst": "::/0"}]
DEVICE: dict[str, Any] = {"device": "dev0", "ipam": [V4]}
MACS = ["02:00:00:00:00:22", "02:00:00:00:00:21"]
CASES: dict[str, Case] = {
    "macvlan": (macvlan(), {}),
    "macvlan-layer2": (macvlan(ipam={}), {}),
    "macvlan-egress": (macvlan(master=""), {}),
    "macvlan-private": (macvlan(mode="private", bcqueuelen=2000), {}),
    "macvlan-vepa": (macvlan(mode="vepa", mtu=1300), {}),
    "macvlan-passthru": (macvlan(mode="passthru"), {}),
    "macvlan-source": (macvlan(mode="source", sourceMacs=MACS), {}),
    "macvlan-mac": (macvlan(mac="02:00:00:00:00:31"), {}),
    "macvlan-wishes": (
        macvlan(mac="02:00:00:00:00:31"),
        {"mac": "02:00:00:00:00:32", "mtu": 1280, "ifname": "eth1"},
    ),
    "macvlan-dual-stack": (
        macvlan(ipam=routed(*BOTH), sysctl={"net.ipv6.conf.IFNAME.hop_limit": "9"}),
        {},
    ),
    "macvlan-hostAccess": (macvlan(hostAccess=True, ipam=BOTH), {}),
    "macvlan-hostAddresses": (
        macvlan(hostAccess=True, hostAddresses=["10.1.0.251/32"]),
        {},
    ),
    "ptp": (ptp(), {}),
    "ptp-all": (
        ptp(ipam={**routed(*BOTH), "routes": OUTWARD}, ipMasq=True, mtu=1400),
        {"ports": (Port(8080, 80),), "bandwidth": LIMITS},
    ),
    "ptp-iptables": (
        ptp(ipMasq=True, ipMasqBackend="iptables"),
        {"ports": (Port(8080, 80),)},
    ),
    "host-device": (driver_network("host-device", **DEVICE), {}),
    "host-device-layer2": (driver_network("host-device", device="dev0"), {}),
    "host-device-wishes": (
        driver_network("host-device", **DEVICE),
        {"mac": "02:00:00:00:00:33", "mtu": 1300},
    ),
    "host-device-hwaddr": (
        driver_network("host-device", **{**DEVICE, "device": "", "hwaddr": "02:00:00:00:00:0D"}),
        {},
    ),
    "ipvlan": (driver_network("ipvlan", master="eth1", ipam=[V4]), {}),
    "ipvlan-l3s": (driver_network("ipvlan", master="eth1", mode="l3s", mtu=1300, ipam=BOTH), {}),
    "vlan": (driver_network("vlan", master="eth1", vlanId=10, ipam=[V4]), {}),
    "vlan-mtu": (driver_network("vlan", master="eth1", vlanId=4094, mtu=1300, ipam=BOTH), {}),
    "dummy": (driver_network("dummy", ipam=[V4]), {}),
    "dummy-mtu": (driver_network("dummy", mtu=9000, ipam=BOTH), {}),
}
