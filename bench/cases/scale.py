"""Does an ADD cost more on a crowded host? Each contender is a host, compared with the emptiest."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing

from bench.case import Case, Contender, Setup, Target
from bench.chain import Chain, ChainContender, SimulatedHost
from bench.configs import make_netplug_plugin
from bench.crowd import fill
from bench.inside import Inside

SIZES = (5, 500, 5000)


def make_hosts(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    _, folder = setup.launcher()
    chain = Chain("bench", folder, [make_netplug_plugin(masquerade=True)])
    contenders = []
    for size in SIZES:
        host = SimulatedHost()
        stack.callback(host.close)
        with closing(Inside(host, setup.state)) as inside:
            fill(host, size, folder, run=inside.serve, say=setup.say)
        contenders.append(ChainContender(name_of(size), chain, {}, host))
    return contenders


def name_of(size: int) -> str:
    return f"{size} attachments"


CASES = (
    Case(
        "scale",
        "on a host that has attachments already (launcher and agent)",
        make_hosts,
        {("ADD", name_of(size)): Target(1.2) for size in SIZES[1:]},
    ),
)
