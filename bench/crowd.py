"""Hosts with many attachments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.chain import Attachment, Chain, SimulatedHost
from bench.configs import make_netplug_plugin
from bench.execute import Execution

PER_BRIDGE = 900  # ports; the kernel takes 1023 (BR_MAX_PORTS)
PER_SANDBOX = 50  # a namespace for each attachment would take minutes to make and to destroy


def fill(
    host: SimulatedHost,
    attachments: int,
    plugins: Path,
    *,
    run: Callable[[Execution], object],
    say: Callable[[str], None],
) -> None:
    """Adds attachments to a host; `run` makes each.

    The network `bench` is the first that gets some; the others exist where it cannot hold them.
    They bring no routes, for many of them share a container.
    """
    networks = [_make_chain(number, plugins) for number in range(-(-attachments // PER_BRIDGE))]
    sandbox = -1
    for number in range(attachments):
        if number % PER_SANDBOX == 0:
            sandbox = host.container()
            say(f"{number} of {attachments} attachments")
        attachment = Attachment(f"crowd-{number}", sandbox, {}, f"net{number}")
        chain = networks[number % len(networks)]
        run(chain.execution("ADD", chain.plugins[0], attachment))


def _make_chain(number: int, plugins: Path) -> Chain:
    subnet = f"10.{89 + number}.0.0/16"
    plugin = dict(make_netplug_plugin(subnet, masquerade=True, bridge=f"bench{number}"))
    plugin["ipam"] = {**plugin["ipam"], "routes": []}
    return Chain("bench" if number == 0 else f"bench-{number}", plugins, [plugin])
