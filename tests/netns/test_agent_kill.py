"""Launcher or agent killed at any step of an exchange, and at any step of the work itself.

Whatever was begun, DEL or GC puts right; nothing is done twice, nothing is lost silently.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import (
    STEPS,
    Relay,
    Station,
    ask,
    connected,
    dies_after,
    end_launcher,
    open_descriptors,
    paths_of,
    render_request,
    wait_for,
)
from attaching import Site, differing, dump
from cni_exec import NOBODY, Answer, Json, Pod, Runtime, dual_stack_network, state_rows

from netplug.agent import protocol
from netplug.agent.build import Settings, make_launcher
from netplug.errors import UnsupportedError
from netplug.install import install_plugin
from netplug.kernel.rtnl import Rtnl
from netplug.model import Attachment
from netplug.state import Phase

if TYPE_CHECKING:
    from conftest import Host

BUSY, CONFLICT = 11, 102
NETWORK = dual_stack_network()
WISHES: Json = {
    "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 8_000_000, "ingressBurst": 800_000},
}
LIST_OF_NONE: Json = {"cni.dev/valid-attachments": []}
HOST_END = Attachment("lan", "web", "eth0").host_name
BEGUN = STEPS.index("go")  # from here on the launcher has given the call away


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s" / "agent.sock")
    yield station
    station.end()


@pytest.fixture(params=["native", "python"])
def launcher(request: pytest.FixtureRequest, station: Station, tmp_path: Path) -> Path:
    """A plugin folder whose launcher looks for its agent at `front.sock`."""
    settings = Settings(socket=str(tmp_path / "front.sock"), answer_ms=60_000, work_ms=60_000)
    try:
        install_plugin(tmp_path / "bin", make_launcher(settings, request.param))
    except UnsupportedError as reason:
        pytest.skip(str(reason))
    return tmp_path / "bin"


class Case:
    """One container on one host, and what its engine calls."""

    def __init__(self, host: Host, folder: Path, alone: Path) -> None:
        self.host, self.web = host, host.container("web")
        self.pod = Pod("web", self.web.path, wishes=WISHES)
        self.warm = Runtime(host, folder, execute=True, cache=alone / "cache")
        self.alone = Runtime(host, alone, cache=alone / "cache")  # in this process
        self.before = dump(host)

    def request(self, **more: Any) -> Json:
        return {**self.warm.request(NETWORK, NETWORK["plugins"][0], self.pod), **more}

    def call(self, command: str, runtime: Runtime | None = None, **more: Any) -> Answer:
        pod = NOBODY if command == "GC" else self.pod
        return (runtime or self.alone).call(command, self.request(**more), pod)

    def phase(self) -> Phase | None:
        record = Site(self.host).record(Attachment("lan", "web", "eth0"))
        return record.phase if record else None

    def clean(self, how: str) -> None:
        """An engine's DEL, or its GC without this container: nothing is left after either."""
        if how == "DEL":
            assert self.call("DEL").code == 0
        else:
            assert self.call("GC", **LIST_OF_NONE).code == 0
        self.demand_nothing_left(how)

    def demand_nothing_left(self, why: object) -> None:
        assert not differing(self.before, dump(self.host)), why
        assert "eth0" not in self.web.run("ip -o link"), why
        assert not state_rows(self.host), why


@pytest.fixture
def case(host: Host, launcher: Path, tmp_path: Path) -> Case:
    (tmp_path / "alone").mkdir()
    return Case(host, launcher, tmp_path / "alone")


@pytest.mark.parametrize("step", STEPS)
def test_the_launcher_dies(case: Case, station: Station, tmp_path: Path, step: str) -> None:
    """The engine has no answer and calls DEL, or GC; what was begun is done once, or undone.

    DEL may come before the agent has begun: then that ADD must not succeed any more.
    """
    station.fork()
    relay = Relay(tmp_path / "front.sock", station.socket, step, end_launcher)
    for how in ("DEL", "GC"):
        done = adds(station)
        relay.reached = False
        with relay.running():
            answer = case.call("ADD", case.warm)
            case.call("DEL" if how == "DEL" else "GC", **(LIST_OF_NONE if how == "GC" else {}))
        assert answer.status == -signal.SIGKILL
        assert relay.reached
        if STEPS.index(step) >= BEGUN:
            wait_for(partial(has_added, station, done + 1))
        case.demand_nothing_left(how)
        assert adds(station) == done + (STEPS.index(step) >= BEGUN)
    station.stop()


def has_added(station: Station, times: int) -> bool:
    return adds(station) == times


def adds(station: Station) -> int:
    """How many ADDs the agent has worked on, to whatever end."""
    return station.counted("ADD", "ok") + station.counted("ADD", "error")


@pytest.mark.parametrize("step", STEPS)
def test_the_agent_dies(case: Case, station: Station, tmp_path: Path, step: str) -> None:
    """Before 'go' the launcher works itself; after it, it says 11 and works no second time."""
    for how in ("DEL", "GC"):
        station.fork()
        relay = Relay(tmp_path / "front.sock", station.socket, step, lambda *_: station.kill())
        with relay.running():
            answer = case.call("ADD", case.warm)
        assert relay.reached
        if STEPS.index(step) < STEPS.index("ready was told"):
            assert answer.document["ips"], answer
        else:
            assert answer.code == BUSY
            demand_one_ready_or_none(case)
        case.clean(how)


def demand_one_ready_or_none(case: Case) -> None:
    """A second ADD is an error only where the first one really succeeded."""
    phase = case.phase()
    assert case.call("ADD").code == (CONFLICT if phase == "ready" else 0), phase
    assert case.phase() == "ready"


def test_a_delete_whose_agent_dies(case: Case, station: Station, tmp_path: Path) -> None:
    for step in STEPS:
        assert case.call("ADD").code == 0
        station.fork()
        relay = Relay(tmp_path / "front.sock", station.socket, step, lambda *_: station.kill())
        with relay.running():
            code = case.call("DEL", case.warm).code
        assert code == (0 if STEPS.index(step) < STEPS.index("ready was told") else BUSY)
        case.clean("DEL")


# --- in the middle of the work

VERBS: dict[str, Callable[[Case], object]] = {
    "ADD": lambda case: None,
    "DEL": lambda case: case.alone.add(NETWORK, case.pod),
    "GC": lambda case: case.alone.add(NETWORK, case.pod),
}


@pytest.mark.parametrize("launcher", ["native"], indirect=True)
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("stride", [3, pytest.param(1, marks=pytest.mark.long)])
def test_the_agent_dies_after_each_netlink_request(
    case: Case, station: Station, tmp_path: Path, verb: str, stride: int
) -> None:
    """What it had changed by then is found by its record; DEL, GC and a second ADD put it right."""
    answer = Answer("", 1)
    steps, tries = 1 - stride, 0
    listed = LIST_OF_NONE if verb == "GC" else {}
    while answer.status and tries < 100:
        steps, tries = steps + stride, tries + 1
        VERBS[verb](case)
        station.socket = tmp_path / "s" / f"{steps}.sock"
        station.fork(dies_after(steps))
        (tmp_path / "front.sock").unlink(missing_ok=True)
        (tmp_path / "front.sock").symlink_to(station.socket)
        answer = case.call(verb, case.warm, **listed)
        if not answer.status:
            station.kill()
        else:
            assert answer.code == BUSY
            assert os.WTERMSIG(station.wait()) == signal.SIGKILL
            if verb == "ADD" and tries % 3 == 0:
                demand_one_ready_or_none(case)
        case.clean("GC" if tries % 3 == 1 else "DEL")
        (tmp_path / "front.sock").unlink()
        station.socket.unlink(missing_ok=True)
    assert tries > 3
    assert not answer.status


# --- DEL is answered on the kernel's notification


@pytest.fixture
def warm(station: Station) -> Station:
    station.start()
    return station


def test_names_are_free_when_delete_is_answered(host: Host, warm: Station) -> None:
    web = host.container("web")
    pod = Pod("web", web.path, wishes=WISHES)
    runtime = Runtime(host, Path("/nowhere"))
    request = runtime.request(NETWORK, NETWORK["plugins"][0], pod)
    stdin = render_json(request)
    outside, inside = Rtnl(host.fd), Rtnl(web.fd)
    try:
        for _ in range(30):
            assert ask(warm.socket, host, pod.environ("ADD", "/x"), stdin)[0] == 0
            assert outside.link(HOST_END) is not None
            assert ask(warm.socket, host, pod.environ("DEL", "/x"), stdin)[0] == 0
            assert outside.link(HOST_END) is None
            assert inside.link("eth0") is None
            host.run(f"ip link add {HOST_END} type bridge && ip link delete {HOST_END}")
    finally:
        outside.close()
        inside.close()
    warm.stop()


def test_delete_of_what_is_gone_already(host: Host, warm: Station) -> None:
    """No notification comes: the acknowledgement counts, and at once."""
    web = host.container("web")
    pod = Pod("web", web.path, wishes=WISHES)
    request = Runtime(host, Path("/nowhere")).request(NETWORK, NETWORK["plugins"][0], pod)
    stdin, before = render_json(request), dump(host)
    for gone in (f"ip link delete {HOST_END}", "ip link delete br0", "nft flush ruleset"):
        assert ask(warm.socket, host, pod.environ("ADD", "/x"), stdin)[0] == 0
        host.run(gone)
        for _ in range(2):
            assert ask(warm.socket, host, pod.environ("DEL", "/x"), stdin)[0] == 0
        assert not differing(before, dump(host)), gone
    rtnl = Rtnl(host.fd, prompt=True)
    rtnl.delete_link(9999)
    rtnl.close()
    warm.stop()


def render_json(value: Json) -> bytes:
    return json.dumps(value).encode()


def test_an_add_whose_launcher_is_gone_is_undone(host: Host, warm: Station) -> None:
    """Nobody hears of it, and the engine's DEL may have come already."""
    web, before = host.container("web"), dump(host)
    pod = Pod("web", web.path)
    request = Runtime(host, Path("/nowhere")).request(NETWORK, NETWORK["plugins"][0], pod)
    frame = render_request(pod.environ("ADD", "/x"), render_json(request))
    with open_descriptors(*paths_of(host, web.path)) as fds, connected(warm.socket) as launcher:
        socket.send_fds(launcher, [frame + protocol.GO], fds)
        assert launcher.recv(1) == protocol.BEGIN
    wait_for(lambda: warm.counted("ADD", "error") == 1)
    assert not differing(before, dump(host))
    assert not state_rows(host)
    warm.stop()
