"""What an overlay network is, for a container and for a node: tests/golden/overlay.

To keep new plans, after reading the difference: `python -m tests.unit.test_overlay_golden`.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from overlay_world import RANGE4, RANGE6, make_overlay
from planning import plan_first, render_commands

from netplug.kernel.tunnelguard import Allowed
from netplug.kernel.tunnels import Forward, Neighbour, TunnelRoute
from netplug.model import Facts
from netplug.overlay.keys import NetworkRecord
from netplug.overlay.membership import Membership, localize
from netplug.overlay.plan import plan_node
from netplug.plan import Plan

GOLDEN = Path(__file__).parents[1] / "golden" / "overlay"
MAC, PEER = "02:00:00:00:00:09", ip_address("192.0.2.2")
V4, V6 = ip_network("10.200.9.0/24"), ip_network("fd00:200:0:9::/64")
ITEMS = (
    Neighbour(V4[0], MAC),
    Neighbour(V6[0], MAC),
    Forward(MAC, PEER),
    TunnelRoute(V4, V4[0]),
    TunnelRoute(V6, V6[0]),
)
CONTAINERS: dict[str, dict[str, Any]] = {
    "routed": {},
    "bridged": {"mode": "bridged"},
    "direct": {"direct": True},
    "internal": {"internal": True},
    "isolated": {"isolate": True, "portIsolation": True},
    "plain": {"ipMasq": False, "bridge": "br0"},
}


def member(**keys: Any) -> Membership:
    ranges = (ip_network(RANGE4), ip_network(RANGE6))
    record = NetworkRecord(ranges, 24, 4242, mode=keys.get("mode", "routed"))
    return Membership("web", "n1", "i", record, 7, 1, ip_address("192.0.2.1"), "eth0", 1450)


def compute_plan(name: str) -> Plan:
    if name == "node":
        allowed = (Allowed(PEER, V4), Allowed(PEER, V6))
        return plan_node(member(), "np-web", ITEMS, allowed)
    network = make_overlay("web", RANGE4, RANGE6, **CONTAINERS[name])
    return plan_first(localize(network, member(**CONTAINERS[name])), {}, Facts())


@pytest.mark.parametrize("name", [*CONTAINERS, "node"])
def test_plan(name: str) -> None:
    assert render_commands(compute_plan(name)) == (GOLDEN / f"{name}.sh").read_text()


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for case in (*CONTAINERS, "node"):
        (GOLDEN / f"{case}.sh").write_text(render_commands(compute_plan(case)))
