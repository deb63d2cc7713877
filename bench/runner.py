"""Runs the contenders of a case in turn, and condenses what they measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.case import Case, Contender, Setup

WARM_UP = 2  # rounds that are thrown away: first-use costs of kernel modules, page cache


@dataclass(frozen=True, slots=True)
class Samples:
    """What one contender measured for one operation, round by round."""

    contender: str
    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The bounds of the middle half: how noisy it was."""
        if len(self.values) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True, slots=True)
class Outcome:
    """One operation of a case, with the samples of each contender, the baseline first."""

    case: Case
    operation: str
    samples: tuple[Samples, ...]

    def ratio(self, samples: Samples) -> float:
        """How many times the baseline's median: below 1 is better than the baseline."""
        return samples.median / self.samples[0].median


def run_case(case: Case, setup: Setup, rounds: int, advance: Callable[[], None]) -> list[Outcome]:
    """Measure `rounds` rounds of every contender, in turn; `advance` is called after each round.

    Who begins changes from round to round, so that neither gains from the state that the other
    leaves the machine in, and a slow minute of the machine hits all alike.
    """
    with ExitStack() as stack:
        contenders = case.make(setup, stack)
        for _ in range(WARM_UP):
            for contender in contenders:
                contender.measure()
        measured: dict[str, list[Mapping[str, float]]] = {one.name: [] for one in contenders}
        for number in range(rounds):
            for contender in contenders if number % 2 else list(reversed(contenders)):
                measured[contender.name].append(contender.measure())
            advance()
    return collect(case, contenders, measured)


def collect(
    case: Case,
    contenders: Sequence[Contender],
    measured: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[Outcome]:
    operations = measured[contenders[0].name][0]
    return [
        Outcome(
            case,
            operation,
            tuple(
                Samples(one.name, tuple(values[operation] for values in measured[one.name]))
                for one in contenders
            ),
        )
        for operation in operations
    ]
