"""Links that were raised a moment ago."""

from __future__ import annotations

import time

from netplug.kernel.inspect import LinkState
from netplug.labs.world import World

SETTLE_TIME = 3.0  # seconds
SETTLE_STEP = 0.02


def settle(world: World) -> None:
    """Waits until every raised link is operational. The kernel's link watcher takes up to a
    second for it; before, a link drops what it should send, and a bridge what a port brings."""
    deadline = time.monotonic() + SETTLE_TIME
    for node in world.names():
        while any(_pending(link) for link in world.links(node).values()):
            if time.monotonic() > deadline:
                return  # what is broken shall stay so
            time.sleep(SETTLE_STEP)


def _pending(link: LinkState) -> bool:
    asleep = link.operstate in ("DOWN", "LOWERLAYERDOWN") or link.port_state == "disabled"
    return link.up and link.carrier and asleep
