"""Every option of the bridge driver, alone and with others: one table for several tests."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from attaching import V4, V6, gateway_network, make_network

from netplug.model import Bandwidth, Network, Port

Case = tuple[Network, dict[str, Any]]
BOTH = (V4, V6)
LIMITS = Bandwidth(8_000_000, 800_000, 4_000_000, 400_000)
ROUTES = [
    {"dst": "192.0.2.0/24", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1300, "priority": 7},
    {"dst": "198.51.100.0/24", "table": 100},
    {"dst": "203.0.113.0/24", "scope": 253},
    {"dst": "2001:db8::/32", "gw": "fd00:1::9", "mtu": 1280, "priority": 2048},
]


def ipam(*ranges: dict[str, Any], routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "netplug", "ranges": [[one] for one in ranges], "routes": routes}


LAYER_2 = make_network(ipam={})
NETWORKS: dict[str, Case] = {
    "layer2": (LAYER_2, {}),
    "address": (make_network(), {}),
    "bridge": (gateway_network(bridge="other-bridge0"), {}),
    "isGateway": (make_network(isGateway=True), {}),
    "isDefaultGateway": (make_network(isDefaultGateway=True), {}),
    "forceAddress": (make_network(isGateway=True, forceAddress=True), {}),
    "ipMasq": (make_network(ipMasq=True), {}),
    "ipMasqBackend": (make_network(ipMasq=True, ipMasqBackend="nftables"), {}),
    "mtu": (make_network(mtu=1400), {}),
    "mtu-auto": (make_network(mtu="auto"), {}),
    "hairpinMode": (make_network(hairpinMode=True), {}),
    "promiscMode": (make_network(promiscMode=True), {}),
    "vlan": (make_network(isGateway=True, vlan=10), {}),
    "vlanTrunk": (make_network(ipam={}, vlanTrunk=[{"id": 10}, {"minID": 20, "maxID": 22}]), {}),
    "preserveDefaultVlan": (make_network(vlan=10, preserveDefaultVlan=True), {}),
    "macspoofchk": (make_network(macspoofchk=True), {}),
    "enabledad": (make_network("lan", V6, enabledad=True), {}),
    "disableContainerInterface": (make_network(ipam={}, disableContainerInterface=True), {}),
    "portIsolation": (make_network(portIsolation=True), {}),
    "internal": (gateway_network("lan", *BOTH, internal=True), {}),
    "isolate": (gateway_network("lan", *BOTH, isolate=True), {}),
    "routed": (gateway_network("lan", *BOTH, routed=True), {}),
    "sysctl": (make_network(sysctl={"net.ipv4.conf.IFNAME.rp_filter": "2"}), {}),
    "ipv6-only": (gateway_network("lan", V6), {}),
    "dual-stack": (gateway_network("lan", *BOTH), {}),
    "31": (gateway_network("lan", {"subnet": "10.9.0.0/31"}), {}),
    "127": (gateway_network("lan", {"subnet": "fd00:9::/127"}), {}),
    "several": (gateway_network("lan", V4, {"subnet": "10.2.0.0/24"}, V6), {}),
    "routes": (gateway_network("lan", ipam=ipam(*BOTH, routes=ROUTES)), {}),
    "mac": (make_network(), {"mac": "02:00:00:00:00:07"}),
    "ifname": (gateway_network(), {"ifname": "net0"}),
    "requested": (gateway_network(), {"addresses": (ip_address("10.1.0.77"),)}),
    "bandwidth": (make_network(), {"bandwidth": LIMITS}),
    "ingress": (LAYER_2, {"bandwidth": Bandwidth(ingress_rate=1_000_000)}),
    "egress": (LAYER_2, {"bandwidth": Bandwidth(egress_rate=1_000_000)}),
    "ports": (
        gateway_network("lan", *BOTH),
        {"ports": (Port(8080, 80), Port(53, 53, "udp"), Port(9, 9, "sctp"))},
    ),
    "port-of-one-address": (
        gateway_network("lan", *BOTH),
        {
            "ports": (
                Port(8080, 80, host_ip=ip_address("192.0.2.1")),
                Port(8081, 80, host_ip=ip_address("127.0.0.1")),
                Port(8082, 80, host_ip=ip_address("2001:db8::1")),
            )
        },
    ),
    "all": (
        gateway_network(
            "lan",
            ipam=ipam(*BOTH, routes=ROUTES),
            hairpinMode=True,
            macspoofchk=True,
            mtu=1450,
            isolate=True,
            portIsolation=True,
            sysctl={"net.ipv6.conf.IFNAME.hop_limit": "9"},
        ),
        {"bandwidth": LIMITS, "ports": (Port(8080, 80), Port(53, 53, "udp"))},
    ),
}
IPTABLES = ("ipMasq", "internal", "isolate", "routed", "ports", "port-of-one-address", "several")


def with_backend(name: str, backend: str) -> Case:
    network, wishes = NETWORKS[name]
    return replace(network, firewall=backend), wishes


CASES = NETWORKS | {f"{name}-iptables": with_backend(name, "iptables") for name in IPTABLES}
CASES["none"] = with_backend("dual-stack", "none")
