"""One container at a time: what an engine waits for when it starts and stops one.

The reference needs a chain of plugins for what netplug does in one call, so a chain is what it is
compared with: the same address, masquerade, published port, accept rules and bandwidth limits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from bench.case import Case, Contender, Setup
from bench.chain import Chain, ChainContender

BRIDGE = {"bridge": "bench0", "isGateway": True, "ipMasq": True}
IPAM = {"ranges": [[{"subnet": "10.89.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
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


def make_reference(setup: Setup, name: str, *, full: bool) -> ChainContender:
    bridge = {"type": "bridge", **BRIDGE, "ipam": {"type": "host-local", **IPAM}}
    plugins = [bridge, *(CHAINED if full else ())]
    chain = Chain(name.replace(" ", "-"), setup.reference, plugins)
    return ChainContender(name, chain, FULL_RUNTIME if full else {})


def make_netplug(setup: Setup, *, full: bool) -> ChainContender:
    if setup.netplug is None:
        return make_reference(setup, "reference again", full=full)
    plugin = {
        "type": setup.netplug.name,
        "driver": "bridge",
        **BRIDGE,
        "ipam": {"type": "netplug", **IPAM},
        "capabilities": {"portMappings": True, "bandwidth": True},
    }
    chain = Chain("netplug", setup.netplug.parent, [plugin])
    return ChainContender("netplug", chain, FULL_RUNTIME if full else {})


def make_pair(setup: Setup, stack: ExitStack, *, full: bool) -> Sequence[Contender]:
    reference = make_reference(setup, "reference", full=full)
    stack.callback(reference.close)
    netplug = make_netplug(setup, full=full)
    stack.callback(netplug.close)
    return reference, netplug


CASES = (
    Case(
        "plain",
        "bridge + host-local, masquerade",
        lambda setup, stack: make_pair(setup, stack, full=False),
    ),
    Case(
        "full",
        "the same + portmap + firewall + bandwidth: one published port, both rates limited",
        lambda setup, stack: make_pair(setup, stack, full=True),
    ),
)
