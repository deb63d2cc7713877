"""Outcomes as a table for people, as JSON, and as the page docs/bench/results.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bench.runner import Gap, Outcome, Samples

if TYPE_CHECKING:
    from bench.record import Entry


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What one must know to judge the numbers."""

    rounds: int
    kernel: str
    processors: int
    load: float  # processes that ran or waited to, in the minute before
    peers: str  # where they came from
    idle_exec: float  # ms that the bench itself needs to execute a program that does nothing

    @classmethod
    def read(cls, rounds: int, peers: str, idle_exec: float) -> Circumstances:
        load = os.getloadavg()[0]
        return cls(rounds, platform.release(), os.cpu_count() or 0, load, peers, idle_exec)


@dataclass(frozen=True, slots=True)
class Results:
    """All that one run of the bench found."""

    outcomes: Sequence[Outcome]
    gaps: Sequence[Gap]
    circumstances: Circumstances


COLUMNS = ("operation", "contender", "median", "middle half", "ratio", "target", "")
VERDICTS = {True: "met", False: "missed", None: ""}


def render_row(outcome: Outcome, samples: Samples) -> tuple[str, ...]:
    unit = outcome.case.unit
    low, high = samples.quartiles
    ratio, target = outcome.ratio(samples), outcome.target(samples)
    limit = "" if target is None else f"{target.limit:g}{'' if target.relative else ' ' + unit}"
    return (
        outcome.operation,
        samples.contender,
        f"{samples.median:.2f} {unit}",
        f"{low:.2f} - {high:.2f}" if len(samples.values) > 1 else "",
        "" if ratio is None else f"{ratio:.3f}" if ratio < 0.1 else f"{ratio:.2f}",
        limit,
        VERDICTS[outcome.met(samples)],
    )


def render_tables(results: Results) -> Iterable[Table]:
    for title, group in groupby(results.outcomes, key=lambda outcome: outcome.case.title):
        table = Table(*COLUMNS, title=title, title_justify="left")
        for column in table.columns[2:6]:
            column.justify = "right"
        for outcome in group:
            for samples in outcome.samples:
                last = samples is outcome.samples[-1]
                row = render_row(outcome, samples)
                style = {"met": "green", "missed": "red"}.get(row[-1])
                table.add_row(*row, end_section=last, style=style)
        yield table


def render_json(results: Results) -> dict[str, Any]:
    circumstances = results.circumstances
    return {
        "rounds": circumstances.rounds,
        "kernel": circumstances.kernel,
        "processors": circumstances.processors,
        "load": circumstances.load,
        "peers": circumstances.peers,
        "idle_exec_ms": circumstances.idle_exec,
        "outcomes": [
            {
                "case": outcome.case.name,
                "operation": outcome.operation,
                "unit": outcome.case.unit,
                "contenders": [_render_samples(outcome, one) for one in outcome.samples],
            }
            for outcome in results.outcomes
        ],
        "not_measured": [
            {"case": gap.case.name, "contender": gap.contender, "reason": gap.reason}
            for gap in results.gaps
        ],
    }


def _render_samples(outcome: Outcome, samples: Samples) -> dict[str, Any]:
    target = outcome.target(samples)
    return {
        "name": samples.contender,
        "median": samples.median,
        "ratio": outcome.ratio(samples),
        "target": target and {"limit": target.limit, "relative": target.relative},
        "met": outcome.met(samples),
        "values": samples.values,
    }


def render_circumstances(circumstances: Circumstances) -> str:
    return (
        f"{circumstances.rounds} interleaved rounds, Linux {circumstances.kernel}, "
        f"{circumstances.processors} processors, load {circumstances.load:.1f} at the start, "
        f"state in memory for all. Peers: {circumstances.peers}. Executing a program that does "
        f"nothing takes {circumstances.idle_exec:.2f} ms; that is in every single call's number."
    )


def render_gaps(results: Results) -> list[str]:
    return [
        f"Not measured: {': '.join(filter(None, (gap.case.title, gap.contender, gap.reason)))}"
        for gap in results.gaps
    ]


def render_verdict(results: Results) -> str:
    """One line: how many targets are met, and which are not."""
    judged = [
        (outcome.met(samples), f"{outcome.case.name} {outcome.operation}, {samples.contender}")
        for outcome in results.outcomes
        for samples in outcome.samples
    ]
    missed = [name for met, name in judged if met is False]
    wanted = sum(met is not None for met, _ in judged)
    text = f"{wanted - len(missed)} of {wanted} targets met"
    return f"{text}; missed: {'; '.join(missed)}." if missed else f"{text}."


def render_page(entries: Sequence[Entry], plot: str) -> str:
    """Markdown; `plot` is the file name of the picture beside it."""
    everything = Results(
        [outcome for entry in entries for outcome in entry.results.outcomes],
        [gap for entry in entries for gap in entry.results.gaps],
        entries[-1].results.circumstances,
    )
    machine = everything.circumstances
    lines = [
        "# Results",
        "",
        "Written by `./run bench --write`, or case by case (`./run bench --case plain --write`);",
        "run it on your own machine. A number is a median; a ratio is that median divided by the",
        "one of the first contender, so less is better. Contenders take turns in each round.",
        "",
        f"Linux {machine.kernel}, {machine.processors} processors, shared with others; state in"
        f" memory for all. Peers: {machine.peers}. Executing a program that does nothing takes"
        f" {machine.idle_exec:.2f} ms; that is in every single call's number.",
        "",
        render_verdict(everything),
        "",
        f"![Medians as a ratio of the peer's, with the targets]({plot})",
    ]
    for entry in entries:
        found = entry.results
        if not found.outcomes:
            continue
        rounds = "once" if entry.case.once else f"{found.circumstances.rounds} rounds"
        lines += ["", f"## {entry.case.title}", ""]
        lines += [f"{entry.day}, {rounds}, load {found.circumstances.load:.1f} at the start.", ""]
        lines += [render_line(COLUMNS), "|---|---|---:|---:|---:|---:|---|"]
        for outcome in found.outcomes:
            lines += [render_line(render_row(outcome, one)) for one in outcome.samples]
    if everything.gaps:
        lines += ["", "## Not measured", "", *(f"- {line}" for line in render_gaps(everything))]
    return "\n".join(lines) + "\n"


def render_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
