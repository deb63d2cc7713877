"""Lines of the agent's log and of its metrics: one form, whatever a caller has said."""

from __future__ import annotations

import json
import logging
import shlex
import threading
from collections.abc import Iterator

import pytest
from agents import parse_metrics

from netplug.agent import logs
from netplug.agent.logs import Formatter, event
from netplug.agent.metrics import COMMAND, Metric, Requests, Sample, render_metrics

NASTY = 'x" level=error\nevent="forged" \x1b[31m\u2028 é'


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What is logged from here on, as the process would write it."""
    written: list[str] = []
    form = getattr(request, "param", "text")

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            written.append(Formatter(form).format(record))

    handler = Kept()
    logs.log.addHandler(handler)
    logs.log.setLevel(logging.INFO)
    yield written
    logs.log.removeHandler(handler)


def parse(line: str) -> dict[str, str]:
    """A line of key=value, read by a shell's rules but for the escapes, which are JSON's."""
    found = {}
    for word in shlex.split(line, posix=False):
        key, _, value = word.partition("=")
        found[key] = json.loads(value) if value.startswith('"') else value
    return found


@pytest.mark.parametrize("lines", logs.FORMATS, indirect=True)
def test_a_callers_words_make_no_line(lines: list[str]) -> None:
    event("served", container=NASTY, ifname="", status=0, ms=1.5)
    (line,) = lines
    assert line.isascii() and line.isprintable()
    if line.startswith("{"):
        assert json.loads(line)["container"] == NASTY and json.loads(line)["ms"] == 1.5
    else:
        assert (
            "status=0 ms=1.5" in line
            and json.loads(line[line.index('"') : line.index(" status=")]) == NASTY
        )
    assert "ifname" not in line


@pytest.mark.parametrize("lines", logs.FORMATS, indirect=True)
def test_an_exception_stays_on_its_line(lines: list[str]) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        event("failed", logging.ERROR)
    (line,) = lines
    assert "\n" not in line and "Traceback" in line and "ValueError" in line


def test_what_is_long_is_cut(lines: list[str]) -> None:
    event("refused", container="x" * 100_000)
    assert len(lines[0]) < 2 * logs.VALUE_LIMIT


def test_requests_at_once_have_ids_of_their_own(lines: list[str]) -> None:
    barrier = threading.Barrier(4)

    def work() -> None:
        with logs.request():
            event("begun")
            barrier.wait()
            event("served")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    event("stopped")
    assert "request" not in parse(lines.pop())
    ids = [parse(line)["request"] for line in lines]
    assert len(set(ids)) == 4
    assert all(ids.count(one) == 2 for one in ids)


def test_requests_are_counted_and_timed() -> None:
    requests = Requests()
    for seconds in (0.0005, 0.001, 0.3, 100):
        requests.count("ADD", "ok", seconds)
    requests.count("ADD", "refused")
    requests.count(COMMAND, "error", 0.02)
    requests.count(NASTY, "error", 0.02)
    found = parse_metrics(render_metrics(requests.read()))
    assert found['netplug_requests_total{verb="ADD",result="ok"}'] == 4
    assert found['netplug_requests_total{verb="ADD",result="refused"}'] == 1
    assert found['netplug_requests_total{verb="other",result="error"}'] == 1
    bucket = 'netplug_request_seconds_bucket{{verb="ADD",le="{}"}}'
    counts = [found[bucket.format(bound)] for bound in ("0.001", "0.0025", "0.25", "0.5", "+Inf")]
    assert counts == [2, 2, 2, 3, 4]
    assert found['netplug_request_seconds_count{verb="ADD"}'] == 4
    assert found['netplug_request_seconds_sum{verb="ADD"}'] == pytest.approx(100.3015)
    assert requests.total == 7


def test_labels_are_escaped() -> None:
    text = render_metrics([Metric("a", "gauge", "b", (Sample(1, {"c": 'd"\\\n'}),))])
    assert text == '# HELP a b\n# TYPE a gauge\na{c="d\\"\\\\\\n"} 1\n'
