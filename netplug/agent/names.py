"""The name server's counters as metrics; it is asked on its control socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from netplug.agent.metrics import Metric, Sample
from netplug.dns.protocol import NAME, ask

# The name server's word for what became of a question -> the label `result`.
RESULTS = {
    "ready": "ready",
    "own": "names",
    "nxdomain": "nxdomain",
    "internal": "internal",
    "forwarded": "forwarded",
    "strangers": "stranger",
    "refused_kinds": "refused",
    "limited": "rate_limited",
    "malformed": "malformed",
}
UPSTREAM = {
    "cache": "cache",
    "coalesced": "coalesced",
    "timeout": "timeout",
    "no_server": "no_server",
    "overload": "overload",
}
GAUGES = {
    "attachments": "Attachments that have names.",
    "in_flight": "Questions that upstream servers are asked now.",
    "cached": "Answers of upstream servers that are kept.",
    "cached_bytes": "Bytes of these answers.",
    "connections": "TCP connections of clients.",
}


def read_names(folder: Path) -> Iterator[Metric]:
    """Of the name server with its socket in `folder`; where none answers, just that."""
    try:
        found = ask(folder / NAME, {"command": "stats"})
        up = "queries" in found
    except (OSError, ValueError):
        found, up = {}, False
    yield Metric("netplug_dns_up", "gauge", "Does a name server answer?", (Sample(up, {}),))
    if up:
        yield from compute_metrics(found)


def compute_metrics(found: Mapping[str, Any]) -> Iterator[Metric]:
    queries, forwarding = found["queries"], found["forwarding"]
    yield _counted("netplug_dns_queries_total", "Questions by what became of them.",
                   RESULTS, queries)  # fmt: skip
    yield _counted("netplug_dns_forwarded_total",
                   "Forwarded questions that no upstream server had to answer, or none did.",
                   UPSTREAM, forwarding)  # fmt: skip
    for name, key, counts, about in (
        ("servfail", "servfail", queries, "Questions that failed: no upstream server answered."),
        ("tcp_refused", "refused_connections", queries, "TCP connections beyond the limits."),
        ("false_replies", "false_reply", forwarding, "Upstream replies that fitted no question."),
        ("upstream_tcp", "tcp", forwarding, "Questions asked again over TCP: the reply was cut."),
    ):
        sample = Sample(counts.get(key, 0), {})
        yield Metric(f"netplug_dns_{name}_total", "counter", about, (sample,))
    for key, about in GAUGES.items():
        yield Metric(f"netplug_dns_{key}", "gauge", about, (Sample(found[key], {}),))
    yield _latency(found)
    servers: dict[str, list[int]] = {}
    for one in found["upstream"]:  # of every set of servers; a server may be in several
        sums = servers.setdefault(one["server"], [0, 0, 0])
        for index, value in enumerate((one["queries"], one["replies"], int(not one["healthy"]))):
            sums[index] += value
    for index, (name, kind, about) in enumerate((
        ("upstream_queries_total", "counter", "Questions by upstream server."),
        ("upstream_replies_total", "counter", "Replies by upstream server."),
        ("upstream_resting", "gauge", "Sets of servers in which it is asked last: it was silent."),
    )):  # fmt: skip
        samples = (Sample(sums[index], {"server": key}) for key, sums in sorted(servers.items()))
        yield Metric(f"netplug_dns_{name}", kind, about, tuple(samples))


def _counted(name: str, about: str, labels: Mapping[str, str], counts: Mapping[str, int]) -> Metric:
    samples = (Sample(counts.get(key, 0), {"result": word}) for key, word in labels.items())
    return Metric(name, "counter", about, tuple(samples))


def _latency(found: Mapping[str, Any]) -> Metric:
    samples, count = [], 0
    for bound, more in found["latency"]:
        count += more
        samples.append(Sample(count, {"le": f"{bound:g}"}, "_bucket"))
    samples.append(Sample(found["latency_count"], {"le": "+Inf"}, "_bucket"))
    samples.append(Sample(found["latency_seconds"], {}, "_sum"))
    samples.append(Sample(found["latency_count"], {}, "_count"))
    about = "How long upstream servers took to reply."
    return Metric("netplug_dns_upstream_seconds", "histogram", about, tuple(samples))
