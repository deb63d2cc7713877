"""solution.sh: for each step the commands that do it, and the plan core that applies them.

    ## STEP [in NODE]
    ip link add ...

The section `setup` runs when the lab starts, in every run: what the exercise begins with.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from netplug import plan
from netplug.errors import ConfigError, KernelRefused
from netplug.host import Host
from netplug.kernel import Kernel
from netplug.labs.checks.base import Check
from netplug.labs.format import SOLUTION, Lab
from netplug.labs.settling import settle
from netplug.labs.world import World
from netplug.resources import Shell

HEADING = re.compile(r"^## ([\w-]+)(?: in (\S+))?\s*$")
SETUP = "setup"


@dataclass(frozen=True, slots=True)
class Section:
    """The commands of one step, and where they are typed."""

    step: str
    node: str
    commands: str


def parse_solution(text: str, *, node: str, source: str = SOLUTION) -> list[Section]:
    """The sections in their order; a step may have several, in several nodes."""
    found: list[Section] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if match := HEADING.match(line):
            found.append(Section(match[1], match[2] or node, ""))
        elif found:
            last = found.pop()
            found.append(Section(last.step, last.node, f"{last.commands}{line}\n"))
        elif line.strip() and not line.startswith("#"):
            raise ConfigError(
                f"{source} line {number}", "a command before any step", "begin with: ## STEP"
            )
    return found


def read_solution(lab: Lab) -> list[Section]:
    """Raises ConfigError for a section of no step."""
    sections = parse_solution(lab.read(SOLUTION), node=lab.keys.node)
    known = {SETUP, *(step.id for step in lab.steps)}
    for section in sections:
        if section.step not in known:
            raise ConfigError(
                f"{lab.name}/{SOLUTION}: {section.step}",
                "no step has this name",
                f"steps: {', '.join(sorted(known))}",
            )
    return sections


@dataclass(frozen=True, slots=True, eq=False)
class Stage:
    """The reference state of one section, as a step of a plan.

    It is there when its checks pass; applying it runs its commands, each a change of the
    kernel. Undoing is no business of its own: who resets a lab begins with an empty one.
    """

    world: World
    section: Section
    checks: tuple[Check, ...] = ()

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"step {self.section.step} in {self.section.node}"

    def present(self, kernel: Kernel) -> str | None:
        verdicts = [check.ask(self.world) for check in self.checks if check.word != "ask"]
        if not verdicts:
            return None
        return ", ".join(f"{v.expected}: {v.found}" for v in verdicts if not v.ok)

    def apply(self, kernel: Kernel) -> bool:
        done = self.world.run(self.section.node, self.section.commands)
        if done.returncode:
            raise KernelRefused(
                f"{self.describe()} fails", done.stderr.strip() or done.stdout.strip()
            )
        return True

    def undo(self, kernel: Kernel) -> None:
        return None

    def shell(self, shell: Shell) -> list[str]:
        return [line for line in self.section.commands.splitlines() if line.strip()]


def plan_stages(lab: Lab, world: World, steps: Iterable[str]) -> plan.Plan:
    """The reference state of these steps, in the order of solution.sh."""
    wanted = set(steps)
    checks = {step.id: step.check for step in lab.steps}
    sections = [section for section in read_solution(lab) if section.step in wanted]
    return plan.Plan(tuple(Stage(world, s, checks.get(s.step, ())) for s in sections))


def apply_stages(lab: Lab, world: World, steps: Iterable[str]) -> None:
    """Brings the kernel to the reference state of these steps. Raises KernelRefused."""
    stages = plan_stages(lab, world, steps)
    with Host() as host, host.kernel() as kernel:
        plan.add(kernel, stages)
    if len(stages):
        settle(world)
