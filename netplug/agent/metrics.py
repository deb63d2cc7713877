"""Counters of the agent, as Prometheus reads them (text exposition format 0.0.4).

A `Metric` is a family of samples. What keeps numbers of its own (requests here, the state
file in `gauges`) is a `Source`: a function that is asked whenever somebody reads.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from netplug.cni.protocol import VERBS

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds
COMMAND = "command"  # the verb of a command line


@dataclass(frozen=True, slots=True)
class Sample:
    """`suffix` follows the metric's name: a histogram has _bucket, _sum and _count."""

    value: float
    labels: Mapping[str, str]
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    name: str
    kind: str  # counter, gauge, histogram
    help: str
    samples: tuple[Sample, ...]


Source = Callable[[], Iterable[Metric]]


def render_metrics(metrics: Iterable[Metric]) -> str:
    lines = []
    for metric in metrics:
        lines.append(f"# HELP {metric.name} {metric.help}")
        lines.append(f"# TYPE {metric.name} {metric.kind}")
        lines += [_render_sample(metric.name, sample) for sample in metric.samples]
    return "".join(f"{line}\n" for line in lines)


def _render_sample(name: str, sample: Sample) -> str:
    labels = ",".join(f'{key}="{_escape(value)}"' for key, value in sample.labels.items())
    value = sample.value
    return f"{name}{sample.suffix}{f'{{{labels}}}' if labels else ''} {value:.15g}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Requests:
    """Requests by verb and result, and how long they took. Safe to use from every thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._results: Counter[tuple[str, str]] = Counter()
        self._buckets: Counter[tuple[str, float]] = Counter()
        self._seconds: dict[str, float] = {}

    def count(self, verb: str, result: str, seconds: float | None = None) -> None:
        """One more; without `seconds` nothing was worked on."""
        verb = _known(verb)
        with self._lock:
            self._results[verb, result] += 1
            if seconds is not None:
                self._seconds[verb] = self._seconds.get(verb, 0.0) + seconds
                bound = next((bound for bound in BOUNDS if seconds <= bound), float("inf"))
                self._buckets[verb, bound] += 1

    @property
    def total(self) -> int:
        return sum(self._results.values())

    def read(self) -> Iterator[Metric]:
        with self._lock:
            results = sorted(self._results.items())
            buckets, seconds = self._buckets.copy(), sorted(self._seconds.items())
        yield Metric(
            "netplug_requests_total",
            "counter",
            "Requests by verb and result; refused: one process does the work instead.",
            tuple(
                Sample(count, {"verb": verb, "result": result}) for (verb, result), count in results
            ),
        )
        yield Metric(
            "netplug_request_seconds",
            "histogram",
            "How long the agent worked on a request.",
            tuple(sample for verb, total in seconds for sample in _histogram(verb, total, buckets)),
        )


def _histogram(verb: str, total: float, buckets: Counter[tuple[str, float]]) -> Iterator[Sample]:
    count = 0
    for bound in (*BOUNDS, float("inf")):
        count += buckets[verb, bound]
        name = "+Inf" if bound == float("inf") else f"{bound:g}"
        yield Sample(count, {"verb": verb, "le": name}, "_bucket")
    yield Sample(total, {"verb": verb}, "_sum")
    yield Sample(count, {"verb": verb}, "_count")


def _known(verb: str) -> str:
    """A caller may say anything; the labels are few."""
    return verb if verb in VERBS or verb == COMMAND else "other"
