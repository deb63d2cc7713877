"""Outcomes as a table for people, as JSON, and as the page docs/bench/results.md."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from typing import Any

from rich.table import Table

from bench.runner import Outcome, Samples


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What one must know to judge the numbers."""

    rounds: int
    kernel: str
    processors: int
    reference: str  # where the reference plugins came from
    idle_exec: float  # ms that the bench itself needs to execute a program that does nothing

    @classmethod
    def read(cls, rounds: int, reference: str, idle_exec: float) -> Circumstances:
        return cls(rounds, platform.release(), os.cpu_count() or 0, reference, idle_exec)


COLUMNS = ("operation", "contender", "median", "middle half", "ratio")


def render_row(outcome: Outcome, samples: Samples) -> tuple[str, ...]:
    unit = outcome.case.unit
    low, high = samples.quartiles
    return (
        outcome.operation,
        samples.contender,
        f"{samples.median:.2f} {unit}",
        f"{low:.2f} - {high:.2f}",
        f"{outcome.ratio(samples):.2f}",
    )


def render_tables(outcomes: Sequence[Outcome]) -> Iterable[Table]:
    for title, group in groupby(outcomes, key=lambda outcome: outcome.case.title):
        table = Table(*COLUMNS, title=title, title_justify="left")
        for column in table.columns[2:]:
            column.justify = "right"
        for outcome in group:
            for samples in outcome.samples:
                last = samples is outcome.samples[-1]
                table.add_row(*render_row(outcome, samples), end_section=last)
        yield table


def render_json(outcomes: Sequence[Outcome], circumstances: Circumstances) -> dict[str, Any]:
    return {
        "rounds": circumstances.rounds,
        "kernel": circumstances.kernel,
        "processors": circumstances.processors,
        "reference": circumstances.reference,
        "idle_exec_ms": circumstances.idle_exec,
        "outcomes": [
            {
                "case": outcome.case.name,
                "operation": outcome.operation,
                "unit": outcome.case.unit,
                "contenders": [
                    {
                        "name": samples.contender,
                        "median": samples.median,
                        "ratio": outcome.ratio(samples),
                        "values": samples.values,
                    }
                    for samples in outcome.samples
                ],
            }
            for outcome in outcomes
        ],
    }


def render_circumstances(circumstances: Circumstances) -> str:
    return (
        f"{circumstances.rounds} interleaved rounds, Linux {circumstances.kernel}, "
        f"{circumstances.processors} processors, state in memory for all; reference: "
        f"{circumstances.reference}. A program that does nothing takes "
        f"{circumstances.idle_exec:.2f} ms for each call; it is in every number."
    )


def render_page(outcomes: Sequence[Outcome], circumstances: Circumstances) -> str:
    lines = [
        "# Results",
        "",
        "Written by `./run bench --write`; run it on your own machine. Medians; a ratio is the",
        "contender's median divided by the reference's, so less is better.",
        "",
        f"{date.today().isoformat()}: {render_circumstances(circumstances)}",
    ]
    for title, group in groupby(outcomes, key=lambda outcome: outcome.case.title):
        lines += ["", f"## {title}", "", render_line(COLUMNS), "|---|---|---:|---:|---:|"]
        for outcome in group:
            lines += [render_line(render_row(outcome, one)) for one in outcome.samples]
    return "\n".join(lines) + "\n"


def render_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
