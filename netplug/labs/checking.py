"""Checks and hints of a running lab, with the student's progress."""

from __future__ import annotations

from collections.abc import Mapping

from netplug.errors import NotFound
from netplug.fixtures.schema import did_you_mean
from netplug.labs.entering import run_inside
from netplug.labs.format import Lab, Step
from netplug.labs.hints import RUNGS, Hint, give_hint
from netplug.labs.judging import StepResult, ask_all, judge
from netplug.labs.session import Progress, Session
from netplug.labs.world import World


def check_session(
    session: Session, lab: Lab, *, upto: str = "", answers: Mapping[str, str] | None = None
) -> tuple[list[StepResult], Progress]:
    """The results of every step so far, and the progress, which is kept."""
    if upto:
        find_step(lab, upto)
    progress = session.read_progress()
    progress.answers |= dict(answers or {})
    progress.checks += 1

    def work() -> tuple[list[StepResult], Progress]:
        with World(folder=lab.folder, answers=progress.answers) as world:
            return judge(lab, world, progress, upto=upto), progress

    results, progress = run_inside(session, work)
    session.write_progress(progress)
    return results, progress


def hint_session(session: Session, lab: Lab, *, step: str | None, rung: int | None) -> Hint:
    """The next hint for that step, or for the first one that fails. The use is noted."""
    progress = session.read_progress()

    def work() -> tuple[str, Hint] | None:
        with World(folder=lab.folder, answers=progress.answers) as world:
            wanted = find_step(lab, step) if step else _first_failing(lab, world)
            if wanted is None:
                return None
            number = rung or min(progress.hints.get(wanted.id, 0) + 1, len(RUNGS))
            return wanted.id, give_hint(lab, world, wanted, number)

    given = run_inside(session, work)
    if given is None:
        return Hint(1, "nothing is left to do", "every step is done: netplug lab check shows it")
    name, hint = given
    progress.hints[name] = max(progress.hints.get(name, 0), hint.rung)
    session.write_progress(progress)
    return hint


def find_step(lab: Lab, name: str) -> Step:
    """Raises NotFound."""
    for step in lab.steps:
        if step.id == name:
            return step
    names = [step.id for step in lab.steps]
    raise NotFound(f"lab {lab.name} has no step {name}", "", did_you_mean(name, names))


def _first_failing(lab: Lab, world: World) -> Step | None:
    for step in lab.steps:
        if not all(verdict.ok for verdict in ask_all(world, step.check)):
            return step
    return None
