"""Faults at work: chosen by the seed, made, named by their evidence, unmade."""

from __future__ import annotations

from collections.abc import Sequence

from netplug.errors import KernelRefused
from netplug.labs.checks.base import Verdict
from netplug.labs.checks.registry import CHECKS
from netplug.labs.faults.base import Fault
from netplug.labs.format import Lab
from netplug.labs.settling import settle
from netplug.labs.vary import generator
from netplug.labs.world import World


def pick_faults(lab: Lab, seed: int) -> list[Fault]:
    """The faults of this variant; the first ones of the list for seed 0."""
    faults = lab.keys.faults
    if faults is None:
        return []
    if seed == 0:
        return list(faults.of[: faults.pick])
    return generator(seed, "faults").sample(faults.of, faults.pick)


def inject(world: World, fault: Fault) -> None:
    """Raises KernelRefused with the words of the command that failed."""
    _run(world, fault, fault.breaks, "cannot be made")


def mend(world: World, fault: Fault) -> None:
    _run(world, fault, fault.mends, "cannot be unmade")


def _run(world: World, fault: Fault, command: str, what: str) -> None:
    done = world.run(fault.node, command)
    if done.returncode:
        raise KernelRefused(f"the fault {fault} {what}", done.stderr.strip() or command)
    settle(world)


def examine(world: World, fault: Fault) -> Verdict:
    """The verdict of the fault's evidence: not ok where the fault is there."""
    ((word, keys),) = fault.evidence.items()
    return CHECKS[word].model_validate(keys).ask(world)


def diagnose(world: World, suspects: Sequence[Fault]) -> list[tuple[Fault, Verdict]]:
    """Those of the suspects that are there, by the kernel's state alone."""
    verdicts = ((fault, examine(world, fault)) for fault in suspects)
    return [(fault, verdict) for fault, verdict in verdicts if not verdict.ok]
