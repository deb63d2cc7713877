"""What people read of a lab. Pure: values to text."""

from __future__ import annotations

from collections.abc import Sequence

from netplug.labs.checks.base import Verdict
from netplug.labs.format import Lab
from netplug.labs.hints import Hint, render_verdict
from netplug.labs.judging import StepResult
from netplug.labs.session import Progress
from netplug.labs.showing import NodeState
from netplug.labs.texts import Text, read_text

GREEN, RED, YELLOW, BOLD, PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[1m", "\x1b[0m"
SIGNS = {
    "done": ("ok", GREEN),
    "now": ("--", YELLOW),
    "later": ("  ", ""),
    "regressed": ("!!", RED),
}


def _paint(text: str, style: str, color: bool) -> str:
    return f"{style}{text}{PLAIN}" if color and style else text


def _prose(text: str, color: bool) -> str:
    """Headings in bold; the rest of the Markdown reads well as it is."""
    lines = (
        _paint(line.lstrip("# "), BOLD, color) if line.startswith("#") else line
        for line in text.splitlines()
    )
    return "\n".join(lines)


def render_start(lab: Lab, color: bool) -> str:
    """Why, and the first thing to do."""
    text = read_text(lab)
    if not lab.steps:
        nodes = ", ".join(node.name for node in lab.topology.nodes)
        return f"{lab.topology.about}\nnodes: {nodes}\n\nenter one: netplug lab shell NODE"
    parts = [_prose(text.why, color), _render_task(lab, text, lab.steps[0].id, color)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _render_task(lab: Lab, text: Text, name: str, color: bool) -> str:
    number = [step.id for step in lab.steps].index(name) + 1
    step = lab.steps[number - 1]
    head = f"Step {number} of {len(lab.steps)}, {name}: {step.task}"
    body = text.steps[name].task if name in text.steps else ""
    return _paint(head, BOLD, color) + (f"\n\n{_prose(body, color)}" if body else "")


def render_results(
    lab: Lab, results: Sequence[StepResult], progress: Progress, *, color: bool
) -> str:
    """A line for each step, what fails in full, and what comes next."""
    lines: list[str] = []
    for result in results:
        sign, style = SIGNS[result.status]
        words = f"{result.step.id}: {result.step.task}"
        lines.append(f"{_paint(sign, style, color)}  {words}")
        if result.status == "regressed":
            after = f" after {result.broken_by}" if result.broken_by else ""
            lines.append(_paint(f"    this worked, and broke again{after}", RED, color))
        if result.status in ("now", "regressed"):
            for verdict in result.verdicts:
                mark = _paint("ok" if verdict.ok else "no", GREEN if verdict.ok else RED, color)
                if verdict.ok:
                    lines.append(f"    {mark}  {verdict.expected}")
                    lines += _details(verdict)
                else:
                    first, *others = render_verdict(verdict)
                    lines += [f"    {mark}  {first}", *(f"        {line}" for line in others)]
        elif result.status == "done":
            lines += [line for verdict in result.verdicts for line in _details(verdict)]
    return "\n".join([*lines, "", *_render_next(lab, results, color)])


def _details(verdict: Verdict) -> list[str]:
    """What was found where that is a table worth reading, also when all is well."""
    return [f"        {line}" for line in verdict.found.splitlines()[1:]]


def _render_next(lab: Lab, results: Sequence[StepResult], color: bool) -> list[str]:
    """What happened in the step passed last, and the one to do now."""
    text = read_text(lab)
    done = [r for r in results if r.status == "done"]
    lines = []
    open_ = [r for r in results if r.status != "done"]
    if done and done[-1].step.id in text.steps and text.steps[done[-1].step.id].happened:
        name = done[-1].step.id
        lines += [_paint(f"What happened in {name}", BOLD, color)]
        lines += [_prose(text.steps[name].happened, color), ""]
    if not open_:
        return [*lines, _paint("Every step is done.", GREEN, color)]
    name = open_[0].step.id
    return [*lines, _render_task(lab, text, name, color), "", "stuck? netplug lab hint"]


def render_hint(hint: Hint, *, color: bool) -> str:
    return f"{_paint(f'Hint {hint.rung} of 3: {hint.title}', BOLD, color)}\n{hint.text}"


def render_show(lab: Lab, progress: Progress, nodes: Sequence[NodeState], *, color: bool) -> str:
    """Steps, and every node with its links."""
    lines = [_paint(f"{lab.name}: {lab.keys.title}", BOLD, color), ""]
    for step in lab.steps:
        sign = "ok" if step.id in progress.reached else "  "
        lines.append(f"{sign}  {step.id}: {step.task}")
    lines += [""] if lab.steps else []
    for node in nodes:
        lines.append(_paint(node.name, BOLD, color))
        for link in node.links:
            state = "up" if link.up and link.carrier else "down" if not link.up else "no carrier"
            where = f", port of {link.master}" if link.master else ""
            vni = f", VNI {link.vni}" if link.vni is not None else ""
            kind = link.kind or "loopback"
            addresses = " ".join(node.addresses.get(link.name, ()))
            words = f"{kind}{where}{vni}, mtu {link.mtu}, {state}"
            lines.append(f"  {link.name:15} {words:44} {addresses}".rstrip())
        lines += [f"  route {route}" for route in node.routes]
    return "\n".join(lines)
