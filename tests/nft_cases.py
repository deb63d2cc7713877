"""The intents whose nft text is kept under tests/golden/nft, by name."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from netplug.firewall.intent import (
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    SpoofGuard,
    Subnet,
)

OWNER = "0123456789abcdef01234567"
V4, V6 = ip_address("10.1.0.2"), ip_address("fd00:1::2")

CASES: dict[str, Intent] = {
    "base-ipv4": Base(4),
    "base-ipv6": Base(6),
    "base-bridge": Base("bridge"),
    "policy-plain": BridgePolicy("br0", 4),
    "policy-isolated": BridgePolicy("br0", 4, isolated=True),
    "policy-internal": BridgePolicy("br0", 6, internal=True),
    "policy-routed": BridgePolicy("br0", 6, routed=True),
    "subnet-masquerade": Subnet(ip_network("10.1.0.0/24"), "br0", masquerade=True),
    "subnet-plain": Subnet(ip_network("10.1.0.0/24"), "br0"),
    "subnet-ipv6": Subnet(ip_network("fd00:1::/64"), "br0", masquerade=True),
    "publish-any": Publish(OWNER, 4, (Mapping("tcp", 8080, V4, 80), Mapping("udp", 53, V4, 53))),
    "publish-sctp": Publish(OWNER, 4, (Mapping("sctp", 3868, V4, 5868),)),
    "publish-host-ip": Publish(
        OWNER,
        4,
        (
            Mapping("tcp", 8080, V4, 80, ip_address("127.0.0.1")),
            Mapping("tcp", 8081, V4, 81, ip_address("0.0.0.0")),
        ),
    ),
    "publish-ipv6": Publish(
        OWNER,
        6,
        (Mapping("tcp", 8080, V6, 80), Mapping("sctp", 9, V6, 9, ip_address("fd00:9::1"))),
    ),
    "spoof-guard": SpoofGuard(OWNER, "veth0", "02:00:00:00:00:0A"),
}
