"""Every step checked anew: what is done, what is next, what was done and broke again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from netplug.labs.checks.base import Check, Verdict
from netplug.labs.format import Lab, Step
from netplug.labs.session import Progress
from netplug.labs.world import World

Status = Literal["done", "now", "later", "regressed"]


@dataclass(frozen=True, slots=True)
class StepResult:
    """`broken_by` is the step after which a regressed one was last seen to pass."""

    step: Step
    status: Status
    verdicts: tuple[Verdict, ...]
    broken_by: str = ""

    @property
    def ok(self) -> bool:
        return all(verdict.ok for verdict in self.verdicts)


def ask_all(world: World, checks: Sequence[Check]) -> tuple[Verdict, ...]:
    """The verdicts in order. Pings go at once: each that is not answered takes its time.

    What listens or captures goes alone, for it would meet another's packets.
    """
    pings = [check for check in checks if check.independent]
    with ThreadPoolExecutor(max(1, len(pings))) as pool:
        found = dict(zip(map(id, pings), pool.map(lambda c: c.ask(world), pings), strict=True))
    return tuple(found.get(id(check)) or check.ask(world) for check in checks)


def judge(lab: Lab, world: World, progress: Progress, *, upto: str = "") -> list[StepResult]:
    """The steps in order, until one that was never passed fails; that one is `now`.

    All earlier ones are asked again: one that passed before and fails is `regressed`.
    `upto` asks all steps up to that one, passed or not. `progress` learns what was reached.
    """
    results: list[StepResult] = []
    blocked = False
    for step in lab.steps:
        if blocked and not upto:
            results.append(StepResult(step, "later", ()))
            continue
        verdicts = ask_all(world, step.check)
        if all(verdict.ok for verdict in verdicts):
            progress.reached.setdefault(step.id, time.time())
            results.append(StepResult(step, "done", verdicts))
        elif step.id in progress.reached:
            results.append(StepResult(step, "regressed", verdicts, _breaker(step, progress)))
        else:
            results.append(StepResult(step, "now", verdicts))
            blocked = True
        if step.id == upto:
            break
    return results


def _breaker(step: Step, progress: Progress) -> str:
    """The step that was reached last after this one: while working at it, this one broke."""
    mine = progress.reached[step.id]
    later = {name: when for name, when in progress.reached.items() if when > mine}
    return max(later, key=lambda name: later[name], default="")
