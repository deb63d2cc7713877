"""Hints in three rungs: what the kernel shows, the author's word, the solution.

Rung one looks at the first failing check and walks from the bottom up: is there a link, is it
up, an address, a route, a neighbour. In a lab of faults it looks for those that may be there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netplug.errors import NetplugError
from netplug.kernel import inspect
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.checks.traffic import Flow
from netplug.labs.format import Lab, Step
from netplug.labs.injecting import diagnose
from netplug.labs.solution import read_solution
from netplug.labs.world import World

RUNGS = ("what the kernel shows", "the author's hint", "the solution")


@dataclass(frozen=True, slots=True)
class Hint:
    rung: int
    title: str
    text: str


def give_hint(lab: Lab, world: World, step: Step, rung: int) -> Hint:
    """The hint of that rung, 1 to 3; a higher one where the lower has nothing to say."""
    makers = (lambda: observe(lab, world, step), lambda: step.hint, lambda: solve(lab, step))
    for number in range(rung, len(makers) + 1):
        if text := makers[number - 1]():
            return Hint(number, RUNGS[number - 1], text)
    return Hint(len(makers), RUNGS[-1], "there is no more help for this step")


def observe(lab: Lab, world: World, step: Step) -> str:
    """Rung one: the first failing check, and what the kernel's state says about it."""
    failing = next(((c, v) for c in step.check if not (v := c.ask(world)).ok), None)
    if failing is None:
        return "every check of this step passes now: run netplug lab check"
    check, verdict = failing
    lines = [f"expected: {verdict.expected}", f"found:    {verdict.found}"]
    if lab.keys.faults:
        found = diagnose(world, lab.keys.faults.of)
        lines += [f"look at:  {v.found} (in {f.node}); {f.kind.symptom}" for f, v in found[:1]]
    lines += [f"look at:  {line}" for line in _walk(world, check)]
    if len(lines) == 2 and verdict.meaning:
        lines.append(f"that is:  {verdict.meaning}")
    return "\n".join(lines)


def _walk(world: World, check: Check) -> Iterator[str]:
    """From the sender's links up to its neighbours: the first thing that is missing."""
    if not isinstance(check, Flow):
        return
    for node in dict.fromkeys((check.source, check.lands or check.to.partition(".")[0])):
        if node in world.names() and (problem := _problem(world, node)):
            yield problem
            return
    try:
        address = world.address(check.to, check.version)
    except NetplugError:
        return
    for neighbour in inspect.read_neighbours(world.fd(check.source)):
        if neighbour.failed and neighbour.address == address:
            yield (
                f"{check.source} asked on {neighbour.device} who has {address}, and nobody"
                " answered: follow the cable from there, port by port"
            )


def _problem(world: World, node: str) -> str:
    """What a node lacks to talk to anybody; "" for nothing."""
    links = {name: link for name, link in world.links(node).items() if name != "lo"}
    if not links:
        return f"{node} has no link beside lo"
    for name, link in links.items():
        if not link.up:
            return f"{name} in {node} is down"
        if not link.carrier:
            return f"{name} in {node} is up, and its far end is down"
    addresses = inspect.read_addresses(world.fd(node))
    if not any(address for name in links for address in addresses.get(name, ())):
        return f"no link of {node} has an address"
    if not any(
        r.device and r.destination == "default" for r in inspect.read_routes(world.fd(node))
    ):
        subnets = ", ".join(r.destination for r in inspect.read_routes(world.fd(node)) if r.device)
        return f"{node} has no default route: it reaches {subnets} and nothing else"
    return ""


def solve(lab: Lab, step: Step) -> str:
    """Rung three: the commands of the step."""
    blocks = []
    for section in read_solution(lab):
        if section.step == step.id:
            blocks.append(f"# in {section.node}\n{section.commands.strip()}")
    return "\n".join(blocks)


def render_verdict(verdict: Verdict) -> list[str]:
    """Expected, found, meaning; one line each."""
    lines = [f"expected: {verdict.expected}", f"found:    {verdict.found}"]
    return lines + ([f"that is:  {verdict.meaning}"] if verdict.meaning else [])
