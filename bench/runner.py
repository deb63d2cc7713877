"""Runs the contenders of a case in turn, and condenses what they measured."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bench.case import Case, Contender, Missing, NotMeasured, Setup, Target

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

    def ratio(self, samples: Samples) -> float | None:
        """How many times the baseline's median: below 1 is better. None for the baseline."""
        if samples is self.samples[0]:
            return None
        return samples.median / self.samples[0].median

    def target(self, samples: Samples) -> Target | None:
        return self.case.targets.get((self.operation, samples.contender))

    def met(self, samples: Samples) -> bool | None:
        """Whether the target is met; None where there is none."""
        target = self.target(samples)
        figure = samples.median if target and not target.relative else self.ratio(samples)
        return None if target is None or figure is None else figure <= target.limit


@dataclass(frozen=True, slots=True)
class Gap:
    """What could not be measured: one contender of a case, or all of it."""

    case: Case
    contender: str
    reason: str


def run_case(
    case: Case, setup: Setup, rounds: int, advance: Callable[[], None]
) -> tuple[list[Outcome], list[Gap]]:
    """Measure `rounds` rounds of every contender, in turn; `advance` is called after each round.

    Who begins changes from round to round, so that neither gains from the state that the other
    leaves the machine in, and a slow minute of the machine hits all alike.
    """
    with ExitStack() as stack:
        try:
            wanted = case.make(setup, stack)
        except NotMeasured as reason:
            return [], [Gap(case, "", str(reason))]
        contenders = [one for one in wanted if not isinstance(one, Missing)]
        gaps = [Gap(case, one.name, one.reason) for one in wanted if isinstance(one, Missing)]
        measured: dict[str, list[Mapping[str, float]]] = {one.name: [] for one in contenders}
        warm_up = 0 if case.once else WARM_UP
        for number in range(-warm_up, 1 if case.once else rounds):
            for contender in contenders if number % 2 else list(reversed(contenders)):
                time.sleep(case.settle)
                values = contender.measure()
                if number >= 0:
                    measured[contender.name].append(values)
            if number >= 0:
                advance()
    return collect(case, contenders, measured), gaps


def collect(
    case: Case,
    contenders: Sequence[Contender],
    measured: Mapping[str, Sequence[Mapping[str, float]]],
) -> list[Outcome]:
    """Outcomes in the order in which operations are met first; not everybody has each."""
    operations = dict.fromkeys(name for one in contenders for name in measured[one.name][0])
    return [
        Outcome(
            case,
            operation,
            tuple(
                Samples(one.name, tuple(values[operation] for values in measured[one.name]))
                for one in contenders
                if operation in measured[one.name][0]
            ),
        )
        for operation in operations
    ]
