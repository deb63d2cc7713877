"""Fifty containers at once: how long until the last of them is connected, or gone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.case import ALONE, REFERENCE, Case, Contender, Missing, Setup, make_targets
from bench.cases.attach import make_each, make_netplug_chains
from bench.chain import Attachment, Chain, Result, SimulatedHost
from bench.configs import make_reference_plugin
from bench.execute import execute_at_once

CALLERS = 50


class ParallelContender:
    """Measures a network of one plugin, executed by all callers at the same moment."""

    def __init__(self, name: str, chain: Chain) -> None:
        self.name = name
        self._chain = chain
        self._host = SimulatedHost()
        self._namespaces = [self._host.container() for _ in range(CALLERS)]
        resident = Attachment("resident", self._host.container(), {})
        self._host.run(lambda: chain.add(resident))
        self._round = 0

    def measure(self) -> Mapping[str, float]:
        self._round += 1
        attachments = [
            Attachment(f"bench-{self._round}-{number}", namespace, {})
            for number, namespace in enumerate(self._namespaces)
        ]

        def run(command: str, results: Sequence[Result | None]) -> tuple[float, list[str]]:
            return execute_at_once(
                [
                    self._chain.execution(command, self._chain.plugins[0], attachment, result)
                    for attachment, result in zip(attachments, results, strict=True)
                ]
            )

        def work() -> Mapping[str, float]:
            added, texts = run("ADD", [None] * CALLERS)
            deleted, _ = run("DEL", [json.loads(text) for text in texts])
            return {"ADD": 1000 * added, "DEL": 1000 * deleted}

        return self._host.run(work)

    def close(self) -> None:
        self._host.close()


def make_contenders(setup: Setup, stack: ExitStack) -> Sequence[Contender | Missing]:
    reference = Chain("bench-parallel", setup.reference, [make_reference_plugin(masquerade=True)])
    chains = (
        (REFERENCE, reference),
        *make_netplug_chains(setup, masquerade=True, without=(ALONE,)),
    )
    return make_each(chains, stack, ParallelContender)


CASES = (
    Case(
        "parallel",
        f"{CALLERS} callers at once, bridge + host-local with ipMasq, until the last has ended",
        make_contenders,
        make_targets(ADD=(0.20, 0.5), DEL=(0.10, 0.25)),
    ),
)
