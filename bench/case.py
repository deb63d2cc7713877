"""What a case is: contenders, the names and units of what they measure, and the targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

REFERENCE = "reference"
NATIVE = "native launcher"
PYTHON = "Python launcher"
ALONE = "one process"

# Seconds before each measurement. The kernel ends what the one before removed when that has
# returned long since: RCU's grace period, the destruction of rules and namespaces.
SETTLE = 0.06


class NotMeasured(Exception):
    """What a comparison needs cannot be had here; the text is the reason."""


class Contender(Protocol):
    """One side of a comparison. Set up when made; what it holds is closed by the case's stack."""

    @property
    def name(self) -> str: ...

    def measure(self) -> Mapping[str, float]:
        """One round: what each operation took, in the case's unit."""
        ...


@dataclass(frozen=True, slots=True)
class Missing:
    """A contender that cannot be had here, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What cases are given: the executables to compare."""

    reference: Path  # a folder of CNI plugins
    plugins: Mapping[str, Path | Missing]  # netplug's contenders: a folder with one plugin each
    folder: Path  # for files of a case's own; gone with the bench
    state: Path  # folder of the state of the agent behind the launchers
    run: Path  # folder of its socket
    say: Callable[[str], None]  # tells people what takes so long

    def launcher(self) -> tuple[str, Path]:
        """The name and folder of the fastest plugin that works through the agent."""
        for name in (NATIVE, PYTHON):
            if isinstance(found := self.plugins[name], Path):
                return name, found
        raise NotMeasured("there is no launcher")


@dataclass(frozen=True, slots=True)
class Target:
    """At most this: times the baseline's median, or the number itself."""

    limit: float
    relative: bool = True


# By operation and contender.
Targets = Mapping[tuple[str, str], Target]
Make = Callable[[Setup, ExitStack], Sequence[Contender | Missing]]


@dataclass(frozen=True, slots=True)
class Case:
    """A comparison. The first contender is the one that the others are divided by."""

    name: str
    title: str
    make: Make  # raises NotMeasured
    targets: Targets = field(default_factory=dict)
    unit: str = "ms"
    settle: float = SETTLE
    once: bool = False  # no matter of rounds: a size, not a time


def make_targets(**limits: tuple[float, float]) -> Targets:
    """Ratios to the reference, by operation: of the native and of the Python launcher."""
    return {
        (operation, name): Target(limit)
        for operation, pair in limits.items()
        for name, limit in zip((NATIVE, PYTHON), pair, strict=True)
    }
