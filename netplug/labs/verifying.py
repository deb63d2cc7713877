"""The proof of a lab: it fails before, passes after, and every fault in it is found.

For each of two rounds: a fresh start fails every check that is not trivial; each section of
solution.sh passes its step and those before, and not yet the next; `reset` reaches each step;
every fault fails a check and is named by its evidence, and nothing else is; at the end nothing
is left.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from netplug.errors import NetplugError
from netplug.labs.checks.asking import AskCheck
from netplug.labs.entering import run_inside
from netplug.labs.format import Lab, Step, read_lab
from netplug.labs.injecting import diagnose, inject, mend, pick_faults
from netplug.labs.judging import ask_all
from netplug.labs.needs import demand_features
from netplug.labs.resetting import reset
from netplug.labs.running import start
from netplug.labs.session import Session, end_session
from netplug.labs.solution import apply_stages, read_solution
from netplug.labs.texts import read_text
from netplug.labs.world import World

ROUNDS = 2
Say = Callable[[str], None]


@dataclass(slots=True)
class Proof:
    """What was shown, and every point at which the lab failed its proof."""

    lab: str
    shown: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def verify(path: Path, *, seed: int = 0, rounds: int = ROUNDS, say: Say = lambda _: None) -> Proof:
    """The proof of one lab. Raises ConfigError where it cannot be read, UnsupportedError where
    this machine cannot run it."""
    lab = read_lab(path, seed=seed)
    demand_features(lab)
    proof = Proof(lab.name)
    proof.problems += _read_problems(lab)
    before = take_inventory()
    for number in range(1, rounds + 1):
        say(f"{lab.name}: round {number} of {rounds}")
        session = start(lab, path, seed=seed, faults=False)
        try:
            found = run_inside(session, lambda: list(_prove(lab, seed)))
        except NetplugError as error:
            found = [str(error)]
        finally:
            end_session(session)
        proof.problems += [f"round {number}: {problem}" for problem in found]
        proof.problems += _residue(session, before)
        proof.shown.append(f"round {number}: {len(lab.steps)} steps, {len(_faults(lab))} faults")
    return proof


def _faults(lab: Lab) -> tuple[object, ...]:
    return lab.keys.faults.of if lab.keys.faults else ()


def _read_problems(lab: Lab) -> Iterator[str]:
    text = read_text(lab)
    sections = {section.step for section in read_solution(lab)}
    for step in lab.steps:
        if step.id not in text.steps:
            yield f"text.md has no part ## {step.id}"
        elif not text.steps[step.id].happened:
            yield f"text.md does not say what happened in {step.id}"
        if step.id not in sections and not lab.keys.faults:
            yield f"solution.sh has no part ## {step.id}"
    if not text.why:
        yield "text.md does not say why"
    if not lab.steps:
        yield "the lab has no steps"


def _prove(lab: Lab, seed: int) -> Iterator[str]:
    """Inside the lab, which was just started without its faults."""
    if lab.keys.faults:
        yield from _prove_faults(lab, seed)
        return
    yield from _prove_fresh(lab)
    done: list[str] = []
    for step in lab.steps:
        with World(folder=lab.folder) as world:
            apply_stages(lab, world, [step.id])
        done.append(step.id)
        yield from _prove_reached(lab, done, "the solution")
    for step in lab.steps:
        reset(lab, seed, step.id)
        upto = [s.id for s in lab.steps][: [s.id for s in lab.steps].index(step.id) + 1]
        yield from _prove_reached(lab, upto, f"reset {step.id}")
    reset(lab, seed, "")
    yield from (f"after reset: {problem}" for problem in _prove_fresh(lab))


def _prove_fresh(lab: Lab) -> Iterator[str]:
    with World(folder=lab.folder) as world:
        for step in lab.steps:
            for verdict in ask_all(world, [check for check in step.check if not check.trivial]):
                if verdict.ok:
                    yield f"a fresh start passes {step.id}: {verdict.expected}"


def _prove_reached(lab: Lab, done: list[str], how: str) -> Iterator[str]:
    """Steps in `done` pass, and the one behind them does not."""
    with World(folder=lab.folder) as world:
        for step in lab.steps:
            if step.id in done:
                failing = _failing(world, step)
                yield from (f"{how} does not pass {step.id}: {words}" for words in failing)
                continue
            if all(check.ask(world).ok for check in step.check):  # without any answer
                yield f"{how} passes {step.id}, which was not done"
            return


def _failing(world: World, step: Step) -> list[str]:
    """Checks that fail, where the student gives the right answers."""
    for check in step.check:
        if isinstance(check, AskCheck):
            right = check.right.values(world)
            world.answers[check.id] = right[0] if right else ""
    verdicts = ask_all(world, step.check)
    world.answers.clear()
    return [f"expected {v.expected}; found {v.found}" for v in verdicts if not v.ok]


def _prove_faults(lab: Lab, seed: int) -> Iterator[str]:
    assert lab.keys.faults is not None
    faults = lab.keys.faults.of
    with World(folder=lab.folder) as world:
        yield from (f"whole, it does not pass {words}" for words in _all_failing(lab, world))
        for fault in faults:
            inject(world, fault)
            if not _any_failing(lab, world):
                yield f"no check fails with the fault {fault}"
            named = [found for found, _ in diagnose(world, faults)]
            if fault not in named:
                yield f"the fault {fault} is not named by its evidence"
            yield from (f"with {fault}, {f} is named too" for f in named if f != fault)
            mend(world, fault)
            yield from (f"with {fault} mended: {words}" for words in _all_failing(lab, world))
    reset(lab, seed, "")
    with World(folder=lab.folder) as world:
        picked = pick_faults(lab, seed)
        if not _any_failing(lab, world):
            yield f"the variant of seed {seed} passes at once"
        for fault in reversed(picked):
            mend(world, fault)
        yield from (f"with all mended: {words}" for words in _all_failing(lab, world))
    for step in lab.steps:
        reset(lab, seed, step.id)
        with World(folder=lab.folder) as world:
            yield from (f"reset {step.id}: {words}" for words in _all_failing(lab, world))


def _any_failing(lab: Lab, world: World) -> bool:
    """Does some check fail? The first one is enough: silence takes its time."""
    return any(not check.ask(world).ok for step in lab.steps for check in step.check)


def _all_failing(lab: Lab, world: World) -> list[str]:
    return [f"{step.id}: {words}" for step in lab.steps for words in _failing(world, step)]


def take_inventory() -> set[str]:
    """What a lab could leave on the machine: links, mounts, names."""
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    names = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    return {
        *(f"link {name}" for _, name in socket.if_nameindex()),
        *(f"mount {line.split()[4]}" for line in mounts),
        *(f"namespace {name}" for name in names),
    }


def _residue(session: Session, before: set[str]) -> list[str]:
    found = [f"left behind: {thing}" for thing in sorted(take_inventory() - before)]
    if session.running:
        found.append(f"left behind: process {session.pid}")
    if session.folder.exists():
        found.append(f"left behind: {session.folder}")
    return found
