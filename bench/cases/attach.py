"""One container at a time: what an engine waits for when it starts and stops one.

The reference needs a chain of plugins for what netplug does in one call, so a chain is what it is
compared with: the same address, masquerade, published port, accept rules and bandwidth limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

from bench.case import (
    ALONE,
    NATIVE,
    PYTHON,
    REFERENCE,
    Case,
    Contender,
    Missing,
    Setup,
    Target,
    make_targets,
)
from bench.chain import Chain, ChainContender, VersionContender
from bench.configs import CHAINED, FULL_RUNTIME, make_netplug_plugin, make_reference_plugin


class Closable(Contender, Protocol):
    def close(self) -> None: ...


def make_netplug_chains(
    setup: Setup, *, masquerade: bool, without: Sequence[str] = ()
) -> Iterable[tuple[str, Chain | Missing]]:
    """The chain of each of netplug's contenders, by name."""
    plugins = [make_netplug_plugin(masquerade=masquerade)]
    for name, found in setup.plugins.items():
        if name not in without:
            chain = Chain("bench", found, plugins) if isinstance(found, Path) else found
            yield name, chain


def make_each(
    chains: Iterable[tuple[str, Chain | Missing]],
    stack: ExitStack,
    make: Callable[[str, Chain], Closable],
) -> list[Contender | Missing]:
    """A contender of each chain that can be had, closed by `stack`."""
    made: list[Contender | Missing] = []
    for name, chain in chains:
        if isinstance(chain, Missing):
            made.append(chain)
            continue
        contender = make(name, chain)
        stack.callback(contender.close)
        made.append(contender)
    return made


def make_contenders(
    setup: Setup, stack: ExitStack, *, masquerade: bool, full: bool = False
) -> Sequence[Contender | Missing]:
    runtime = FULL_RUNTIME if full else {}
    plugins = [make_reference_plugin(masquerade=masquerade), *(CHAINED if full else ())]
    reference = Chain("bench-reference", setup.reference, plugins)
    chains = ((REFERENCE, reference), *make_netplug_chains(setup, masquerade=masquerade))
    return make_each(chains, stack, lambda name, chain: ChainContender(name, chain, runtime))


def make_versions(setup: Setup, stack: ExitStack) -> Sequence[Contender | Missing]:
    reference = Chain("bench", setup.reference, [make_reference_plugin(masquerade=False)])
    chains = (
        (REFERENCE, reference),
        *make_netplug_chains(setup, masquerade=False, without=(ALONE,)),
    )
    return [
        chain if isinstance(chain, Missing) else VersionContender(name, chain)
        for name, chain in chains
    ]


CASES = (
    Case(
        "version",
        "VERSION, against bridge",
        make_versions,
        make_targets(VERSION=(0.35, 3)),
        settle=0,  # it leaves the kernel nothing to do
    ),
    Case(
        "plain",
        "bridge + host-local",
        lambda setup, stack: make_contenders(setup, stack, masquerade=False),
        {
            ("ADD", NATIVE): Target(0.40),
            ("ADD", PYTHON): Target(1.2),
            ("ADD", ALONE): Target(6),
        },
    ),
    Case(
        "masquerade",
        "bridge + host-local with ipMasq",
        lambda setup, stack: make_contenders(setup, stack, masquerade=True),
        make_targets(ADD=(0.25, 0.6), DEL=(0.10, 0.2)),
    ),
    Case(
        "chain",
        "bridge with ipMasq + portmap + firewall + bandwidth: one port, both rates limited",
        lambda setup, stack: make_contenders(setup, stack, masquerade=True, full=True),
        make_targets(ADD=(0.10, 0.2), DEL=(0.05, 0.1)),
    ),
)
