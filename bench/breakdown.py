"""`--profile`: where the time of one ADD and one DEL inside the warm agent goes.

The same code works in this process, first without a profiler for the true time, then under
cProfile in every thread. A profiler slows Python code, not the kernel: what it says of Python is
an upper bound. What threads wait for side by side adds up: a DEL is answered when the link is
gone, while another thread still waits for the kernel's grace period.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from bench.case import SETTLE
from bench.chain import Attachment, Chain, SimulatedHost
from bench.configs import FULL_RUNTIME, make_netplug_plugin
from bench.inside import Inside

Function = tuple[str, int, str]  # file, line, name: pstats' key
NETPLUG = str(Path(__file__).resolve().parents[1])
KINDS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("bridge with ipMasq", {}),
    ("ipMasq, one port, both rates limited", FULL_RUNTIME),
)
LEAST = 0.05  # ms of a group that is worth a line
SHOWN = 12  # functions of each table
# What C functions are for, by a part of their name. Waiting for another thread of ours is not
# counted: that thread's own time is.
WAITS = ("SimpleQueue", "_thread.lock", "thread.lock", "start_new_thread")
GROUPS = (
    ("kernel: netlink", ("_socket.socket", "'recv", "'send")),
    ("kernel: namespaces and files", ("posix.", "ioctl", "io.open", "setns", "fcntl")),
    ("SQLite", ("sqlite3",)),
    ("JSON", ("json",)),
)


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Milliseconds of one call, by verb: the true time, and shares under the profiler."""

    title: str
    verb: str
    wall: float
    groups: Mapping[str, float]
    functions: Sequence[tuple[str, float, float]]  # name, own ms, calls


class ThreadProfiles:
    """Profiles of the calling thread and of every thread started meanwhile."""

    def __init__(self) -> None:
        self._profiles: list[cProfile.Profile] = []

    def __enter__(self) -> ThreadProfiles:
        threading.setprofile(self._begin)
        self._own = self._enable()
        return self

    def __exit__(self, *_: object) -> None:
        self._own.disable()
        threading.setprofile(None)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> None:
        """Called by a new thread's first event: the profiler takes over."""
        self._enable()

    def _enable(self) -> cProfile.Profile:
        profile = cProfile.Profile()
        self._profiles.append(profile)
        profile.enable()
        return profile

    def sum_up(self) -> dict[Function, tuple[int, float]]:
        """Calls and own seconds of each function."""
        found: dict[Function, tuple[int, float]] = defaultdict(lambda: (0, 0.0))
        for profile in self._profiles:
            statistics: Any = pstats.Stats(profile)
            for function, (_, calls, own, *_rest) in statistics.stats.items():
                before = found[function]
                found[function] = before[0] + calls, before[1] + own
        return found


def profile_calls(folder: Path, rounds: int) -> list[Breakdown]:
    """Breakdowns of ADD and DEL, of a plain and of a full attachment."""
    return [
        breakdown
        for number, (title, runtime) in enumerate(KINDS)
        for breakdown in _profile_kind(folder / f"profile-{number}", title, runtime, rounds)
    ]


def _profile_kind(
    folder: Path, title: str, runtime: Mapping[str, Any], rounds: int
) -> Iterable[Breakdown]:
    chain = Chain("bench", Path("/nonexistent"), [make_netplug_plugin(masquerade=True)])
    host = SimulatedHost()
    with closing(host), closing(Inside(host, folder)) as inside:
        resident = Attachment("resident", host.container(), {})
        inside.serve(chain.execution("ADD", chain.plugins[0], resident))
        walls: dict[str, list[float]] = {"ADD": [], "DEL": []}
        profiles = {verb: ThreadProfiles() for verb in walls}
        for number in range(2 * rounds + 2):
            attachment = Attachment(f"bench-{number}", host.container(), runtime)
            result: dict[str, Any] | None = None
            for verb in walls:
                execution = chain.execution(verb, chain.plugins[0], attachment, result)
                time.sleep(SETTLE)
                started = time.perf_counter()
                if number % 2 and number > 1:
                    with profiles[verb]:
                        text = inside.serve(execution)
                else:
                    text = inside.serve(execution)
                    walls[verb].append(1000 * (time.perf_counter() - started))
                result = json.loads(text) if text else None
        for verb, times in walls.items():
            yield _condense(title, verb, sorted(times)[len(times) // 2], profiles[verb], rounds)


def _condense(
    title: str, verb: str, wall: float, profiles: ThreadProfiles, rounds: int
) -> Breakdown:
    groups: dict[str, float] = defaultdict(float)
    functions = []
    for function, (calls, own) in profiles.sum_up().items():
        group = _group_of(function)
        if group:
            groups[group] += 1000 * own / rounds
            functions.append((_name_of(function), 1000 * own / rounds, calls / rounds))
    functions.sort(key=lambda entry: -entry[1])
    return Breakdown(title, verb, wall, groups, functions[:SHOWN])


def _group_of(function: Function) -> str:
    file, _, name = function
    if file.startswith(NETPLUG) and "/.venv/" not in file:
        package = Path(file).relative_to(NETPLUG)
        parts = package.parts[1:] if package.parts[0] == "netplug" else package.parts
        return f"Python: {parts[0].removesuffix('.py')}" if parts else ""
    if any(part in name for part in WAITS):
        return ""
    for group, parts in GROUPS:
        if any(part in name for part in parts):
            return group
    return "Python: standard library" if file != "~" else "Python: builtin functions"


def _name_of(function: Function) -> str:
    file, line, name = function
    if file == "~":
        return name.strip("<>").replace("built-in method ", "")
    path = file.removeprefix(f"{NETPLUG}/")
    return f"{path if path != file else Path(file).name}:{line} {name}"


def render_breakdowns(breakdowns: Sequence[Breakdown]) -> str:
    """Markdown, which reads well in a terminal too."""
    lines = ["# Where the time of a call goes", "", *(__doc__ or "").splitlines()[2:]]
    for one in breakdowns:
        total = sum(one.groups.values())
        lines += ["", f"## {one.verb}, {one.title}: {one.wall:.2f} ms inside the agent", ""]
        lines += [f"{total:.2f} ms under the profiler:", "", "| what | ms |", "|---|---:|"]
        shown = ((name, spent) for name, spent in one.groups.items() if spent >= LEAST)
        for name, spent in sorted(shown, key=lambda pair: -pair[1]):
            lines.append(f"| {name} | {spent:.2f} |")
        lines += ["", "| function | own ms | calls |", "|---|---:|---:|"]
        for name, spent, calls in one.functions:
            lines.append(f"| `{name}` | {spent:.2f} | {calls:g} |")
    return "\n".join(lines) + "\n"
