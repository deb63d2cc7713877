"""What a case is: contenders, and the names and units of what they measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class Contender(Protocol):
    """One side of a comparison. Set up when made; what it holds is closed by the case's stack."""

    @property
    def name(self) -> str: ...

    def measure(self) -> Mapping[str, float]:
        """One round: what each operation took, in the case's unit."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What cases are given: the executables to compare."""

    netplug: Path | None  # None: the reference once more, to try the bench itself
    reference: Path  # a folder of CNI plugins


@dataclass(frozen=True, slots=True)
class Case:
    """A comparison. The first contender is the one that the others are divided by."""

    name: str
    title: str
    make: Callable[[Setup, ExitStack], Sequence[Contender]]
    unit: str = "ms"
