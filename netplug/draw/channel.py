"""Links between two layers: each on a track of its own, so that no two run on one another.

The channel routing problem, by left edges with vertical constraints (Hashimoto, Stevens
1971; Yoshimura, Kuh 1982): where one link comes down in the column in which another one
goes on, the first must turn aside higher up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(slots=True)
class Run:
    """A link that comes down in one column and goes on in another, by way of a track."""

    link: int
    x1: int
    x2: int
    track: int = 0
    after: int = -1  # index of the piece that comes before, where a link has two of them

    @property
    def left(self) -> int:
        return min(self.x1, self.x2)

    @property
    def right(self) -> int:
        return max(self.x1, self.x2)

    def apart(self, other: Run) -> bool:
        """May both have the same track?"""
        return self.left > other.right + 1 or other.left > self.right + 1


@dataclass(frozen=True, slots=True)
class Pass:
    """One link's way through the channel: columns, with the track on which each is left."""

    link: int
    x1: int
    turns: tuple[tuple[int, int], ...] = ()  # (track, next column)


def route(pins: Sequence[tuple[int, int, int]]) -> tuple[list[Pass], int]:
    """The way of each (link, upper column, lower column), and the number of tracks.

    No two links have the same upper column, nor the same lower one.
    """
    runs = [Run(link, x1, x2) for link, x1, x2 in pins if x1 != x2]
    taken = {x for _, x1, x2 in pins for x in (x1, x2)}
    tracks = _assign(runs, taken)
    ways: dict[int, list[Run]] = {}
    for run in runs:
        ways.setdefault(run.link, []).append(run)
    passes = []
    for link, x1, _ in pins:
        pieces = sorted(ways.get(link, ()), key=lambda run: run.track)
        passes.append(Pass(link, x1, tuple((run.track, run.x2) for run in pieces)))
    return passes, tracks


def _precedence(run: Run) -> tuple[bool, int]:
    rightwards = run.x2 > run.x1
    return rightwards, -run.x1 if rightwards else run.x1


def _assign(runs: list[Run], taken: set[int]) -> int:
    """Gives each run its track; in a cycle of constraints one run takes a side step."""
    above: dict[int, set[int]] = {}  # index of a run -> those that must lie above it

    def constrain() -> None:
        above.clear()
        entering = {run.x1: number for number, run in enumerate(runs) if run.after < 0}
        aside = {run.after for run in runs}
        for number, run in enumerate(runs):
            above[number] = {run.after} - {-1}
            other = None if number in aside else entering.get(run.x2)
            if other is not None and other != number:
                above[number].add(other)

    constrain()
    # Of those that go the same way, the one with the shortest way out turns first: no crossing.
    waiting = sorted(range(len(runs)), key=lambda number: _precedence(runs[number]))
    done: set[int] = set()
    track = 0
    while waiting:
        ready = [number for number in waiting if above[number] <= done]
        if not ready:
            # Around a free column: from the old one above, to the new one below.
            run = runs[waiting[0]]
            aside = max(taken) + 2
            taken.add(aside)
            runs.append(Run(run.link, aside, run.x2, after=waiting[0]))
            run.x2 = aside
            waiting.append(len(runs) - 1)
            constrain()
            continue
        placed: list[int] = []
        full: set[bool] = set()  # ways in which a run found no room: those behind it wait too
        for number in ready:
            run = runs[number]
            rightwards = run.x2 > run.x1
            if rightwards in full:
                continue
            if all(run.apart(runs[other]) for other in placed):
                run.track = track
                placed.append(number)
            else:
                full.add(rightwards)
        done.update(placed)
        waiting = [number for number in waiting if number not in done]
        track += 1
    return track
