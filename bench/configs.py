"""CNI configurations of the same network for both sides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.chain import Config

SUBNET = "10.89.0.0/16"
MEGABIT = 1_000_000
FULL_RUNTIME: Mapping[str, Any] = {
    "portMappings": [{"hostPort": 20000, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {
        "ingressRate": 100 * MEGABIT,
        "ingressBurst": 10 * MEGABIT,
        "egressRate": 100 * MEGABIT,
        "egressBurst": 10 * MEGABIT,
    },
}
# As podman 4 writes it; `firewall` declares no capability and chooses iptables by itself here.
CHAINED = (
    {"type": "portmap", "capabilities": {"portMappings": True}},
    {"type": "firewall", "backend": ""},
    {"type": "bandwidth", "capabilities": {"bandwidth": True}},
)


def make_bridge(subnet: str = SUBNET, *, masquerade: bool, **more: Any) -> dict[str, Any]:
    """What the configurations of both sides have in common."""
    ipam = {"ranges": [[{"subnet": subnet}]], "routes": [{"dst": "0.0.0.0/0"}]}
    common = {"bridge": "bench0", "isGateway": True, "ipMasq": masquerade, "ipam": ipam}
    return {**common, **more}


def make_reference_plugin(*, masquerade: bool) -> Config:
    plugin = make_bridge(masquerade=masquerade)
    return {**plugin, "type": "bridge", "ipam": {"type": "host-local", **plugin["ipam"]}}


def make_netplug_plugin(subnet: str = SUBNET, *, masquerade: bool, **more: Any) -> Config:
    plugin = make_bridge(subnet, masquerade=masquerade, **more)
    return {
        **plugin,
        "type": "netplug",
        "driver": "bridge",
        "ipam": {"type": "netplug", **plugin["ipam"]},
        "capabilities": {"portMappings": True, "bandwidth": True},
    }
