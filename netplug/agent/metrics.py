"""Counters of the agent, as Prometheus reads them (text exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path

from netplug.cni.protocol import VERBS
from netplug.state import State

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class Metrics:
    """Safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: Counter[str] = Counter()
        self._timed: Counter[str] = Counter()

    def count(self, verb: str, result: str) -> None:
        with self._lock:
            self._calls[_label(verb), result] += 1

    def observe(self, verb: str, result: str, seconds: float) -> None:
        verb = _label(verb)
        with self._lock:
            self._calls[verb, result] += 1
            self._timed[verb] += 1
            self._seconds[verb] += seconds  # type: ignore[assignment]
            for bound in BOUNDS:
                if seconds <= bound:
                    self._buckets[verb, bound] += 1

    @property
    def total(self) -> int:
        return sum(self._calls.values())

    def render(self, folder: Path) -> str:
        lines = ["# TYPE netplug_requests_total counter"]
        with self._lock:
            for (verb, result), count in sorted(self._calls.items()):
                lines.append(f'netplug_requests_total{{verb="{verb}",result="{result}"}} {count}')
            lines.append("# TYPE netplug_request_seconds histogram")
            for verb in sorted(self._timed):
                lines += self._histogram(verb)
        return "\n".join([*lines, *_gauges(folder)]) + "\n"

    def _histogram(self, verb: str) -> list[str]:
        name = "netplug_request_seconds"
        lines = [
            f'{name}_bucket{{verb="{verb}",le="{bound:g}"}} {self._buckets[verb, bound]}'
            for bound in BOUNDS
        ]
        lines.append(f'{name}_bucket{{verb="{verb}",le="+Inf"}} {self._timed[verb]}')
        lines.append(f'{name}_sum{{verb="{verb}"}} {self._seconds[verb]:.6f}')
        lines.append(f'{name}_count{{verb="{verb}"}} {self._timed[verb]}')
        return lines


def _label(verb: str) -> str:
    """A caller may say anything; the labels are few and need no escapes."""
    return verb if verb in VERBS else "other"


def _gauges(folder: Path) -> list[str]:
    """Attachments and leases of all hosts, from the state file."""
    state = State(folder)
    try:
        rows = state.connection.execute(
            "SELECT network, phase, count(*) FROM records GROUP BY network, phase"
        ).fetchall()
        leases = state.connection.execute(
            "SELECT network, count(*) FROM leases GROUP BY network"
        ).fetchall()
    finally:
        state.close()
    lines = ["# TYPE netplug_attachments gauge"]
    lines += [
        f'netplug_attachments{{network="{network}",phase="{phase}"}} {count}'
        for network, phase, count in rows
    ]
    lines.append("# TYPE netplug_leases gauge")
    lines += [f'netplug_leases{{network="{network}"}} {count}' for network, count in leases]
    return lines
