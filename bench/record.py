"""What was measured last of each case, in docs/bench/results.json: the page is made from it.

Cases take from seconds to many minutes, so each is measured when there is time for it, and
says when that was, with how many rounds and under what load.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from bench.case import Case
from bench.report import Circumstances, Results
from bench.runner import Gap, Outcome, Samples

DIGITS = 5  # significant ones of a stored value


@dataclass(frozen=True, slots=True)
class Entry:
    """One case, when it was measured, and under what circumstances."""

    case: Case
    day: str
    results: Results


def read_entries(file: Path, cases: Sequence[Case]) -> list[Entry]:
    """In the order of the cases; what is stored of other cases is left out."""
    stored = _load(file)
    return [_parse(case, stored[case.name]) for case in cases if case.name in stored]


def write_entries(file: Path, results: Results, measured: Sequence[Case]) -> None:
    """Replaces what is stored of the measured cases."""
    stored = _load(file)
    for case in measured:
        stored[case.name] = {
            "day": date.today().isoformat(),
            "circumstances": asdict(results.circumstances),
            "outcomes": [
                {
                    "operation": outcome.operation,
                    "samples": {
                        one.contender: [float(f"{value:.{DIGITS}g}") for value in one.values]
                        for one in outcome.samples
                    },
                }
                for outcome in results.outcomes
                if outcome.case is case
            ],
            "gaps": {gap.contender: gap.reason for gap in results.gaps if gap.case is case},
        }
    file.parent.mkdir(parents=True, exist_ok=True)
    text = ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in stored.items())
    file.write_text(f"{{\n{text}\n}}\n")


def _load(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return found


def _parse(case: Case, stored: dict[str, Any]) -> Entry:
    outcomes = [
        Outcome(
            case,
            one["operation"],
            tuple(Samples(name, tuple(values)) for name, values in one["samples"].items()),
        )
        for one in stored["outcomes"]
    ]
    gaps = [Gap(case, contender, reason) for contender, reason in stored["gaps"].items()]
    circumstances = Circumstances(**stored["circumstances"])
    return Entry(case, stored["day"], Results(outcomes, gaps, circumstances))
