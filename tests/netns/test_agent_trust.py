"""Whom the agent serves, in whose namespaces, and what it bears from callers it does not."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import (
    Station,
    ask,
    connected,
    exchange,
    open_descriptors,
    paths_of,
    render_request,
    wait_for,
)
from attaching import differing, dump, in_child
from cni_exec import NOBODY, Answer, Pod, Runtime, state_rows

from netplug.agent import protocol, server
from netplug.agent.build import Settings, make_launcher
from netplug.host import in_initial_user_namespace
from netplug.install import install_plugin

if TYPE_CHECKING:
    from conftest import Host

LAN = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "plugins": [
        {
            "type": "netplug",
            "bridge": "np0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.9.0.0/24"}]]},
        }
    ],
}
STDIN = json.dumps({**LAN["plugins"][0], "name": "lan", "cniVersion": "1.1.0"}).encode()  # type: ignore[dict-item]
STATUS = NOBODY.environ("STATUS", "/nowhere")
ENDED = b""  # the agent hung up: a launcher would work itself


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """One agent, in the suite's own namespaces, for all tests here."""
    station = Station(tmp_path_factory.mktemp("agent") / "s" / "agent.sock")
    station.start()
    yield station
    station.stop()


@pytest.fixture(scope="module")
def plugins(station: Station, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plugin folder with the best launcher that can be made here."""
    folder = tmp_path_factory.mktemp("bin")
    settings = Settings(socket=str(station.socket), answer_ms=60_000, work_ms=60_000)
    install_plugin(folder, make_launcher(settings))
    return folder


def runtime_on(host: Host, plugins: Path, cache: Path) -> Runtime:
    return Runtime(host, plugins, execute=True, cache=cache / host.name)


def status_of(station: Station, host: Host) -> int:
    """Exit status of a STATUS call: the agent serves."""
    return ask(station.socket, host, STATUS, STDIN)[0]


# --- whose host


def test_two_hosts_and_one_agent(
    make_host: Callable[[str], Host], station: Station, plugins: Path, tmp_path: Path
) -> None:
    """Equal requests from two hosts: each gets the first address, and a bridge of its own."""
    own_before = socket.if_nameindex()
    sites = [runtime_on(make_host(name), plugins, tmp_path) for name in ("a", "b")]
    before = [dump(site.host) for site in sites]
    pods = [Pod("web", site.host.container("web").path) for site in sites]
    served = station.counted("ADD", "ok")
    for site, pod in zip(sites, pods, strict=True):
        result = site.add(LAN, pod)
        assert [ip["address"] for ip in result["ips"]] == ["10.9.0.2/24"]
        assert "np0" in site.host.run("ip -o link")
        assert state_rows(site.host)["leases"] == 1
    assert station.counted("ADD", "ok") == served + 2
    assert socket.if_nameindex() == own_before
    for site, pod in zip(sites, pods, strict=True):
        site.check(LAN, pod)
    sites[0].gc(LAN, [])
    assert not state_rows(sites[0].host)
    assert not differing(before[0], dump(sites[0].host))
    sites[1].check(LAN, pods[1])
    sites[1].delete(LAN, pods[1])
    assert not differing(before[1], dump(sites[1].host))
    assert not state_rows(sites[1].host)


def test_the_sandbox_is_the_callers_not_the_paths(host: Host, station: Station) -> None:
    """The path may name another namespace by the time the agent looks: the descriptor counts."""
    mine, other = host.container("mine"), host.container("other")
    environ = Pod("web", other.path).environ("ADD", "/nowhere")
    request = render_request(environ, STDIN)
    with open_descriptors(*paths_of(host, mine.path)) as fds:
        said = exchange(station.socket, request, fds)
    assert said[:3] == b"BR\0"
    assert "10.9.0.2" in mine.run("ip addr show eth0")
    assert "eth0" not in other.run("ip -o link")
    delete = Pod("web", mine.path).environ("DEL", "/nowhere")
    assert ask(station.socket, host, delete, STDIN)[0] == 0
    assert not state_rows(host)


def execute(host: Host, command: list[str], pod: Pod, verb: str) -> Answer:
    done = host.call(
        lambda: subprocess.run(
            command,
            input=STDIN,
            env=pod.environ(verb, "/nowhere"),
            capture_output=True,
            check=False,
            timeout=60,
        )
    )
    return Answer(done.stdout.decode(), done.returncode, done.stderr.decode())


def test_another_mount_namespace_is_served_by_one_process(
    host: Host, station: Station, plugins: Path
) -> None:
    """The agent refuses: paths mean something else there. What it made, the agent can delete."""
    before = dump(host)
    pod = Pod("web", host.container("web").path)
    apart = ["/usr/bin/unshare", "-m", "--propagation", "slave", str(plugins / "netplug")]
    served, refused = (station.counted("ADD", result) for result in ("ok", "refused"))
    answer = execute(host, apart, pod, "ADD")
    assert answer.code == 0
    assert answer.document["ips"][0]["address"] == "10.9.0.2/24"
    assert station.counted("ADD", "ok") == served
    assert station.counted("ADD", "refused") == refused + 1
    assert execute(host, [str(plugins / "netplug")], pod, "DEL").code == 0
    assert not differing(before, dump(host))
    assert not state_rows(host)


USER_NAMESPACE = """
mkdir -p {state} && mount -t tmpfs tmpfs {state}
unshare --net sleep 60 & sleeper=$!
until [ "$(readlink /proc/$sleeper/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.01; done
export CNI_COMMAND CNI_CONTAINERID=web CNI_IFNAME=eth0 CNI_PATH=/nowhere
export CNI_NETNS=/proc/$sleeper/ns/net
for CNI_COMMAND in ADD DEL DEL; do {plugin} < {stdin} || break; ip -o link | grep -c np0; done
kill $sleeper
"""


@pytest.mark.parametrize("mounts", ["", "--mount"])
def test_another_user_namespace_is_served_by_one_process(
    host: Host, station: Station, plugins: Path, tmp_path: Path, mounts: str
) -> None:
    """As a rootless engine calls: the result is that of one process, in that namespace."""
    if not in_initial_user_namespace():
        pytest.skip("this is a user namespace already")
    stdin = tmp_path / "stdin"
    stdin.write_bytes(STDIN)
    state = Path("/run/user/0/netplug")
    script = USER_NAMESPACE.format(state=state, plugin=plugins / "netplug", stdin=stdin)
    if not mounts:
        script = script.partition("\n")[2].partition("\n")[2]
    refused = station.counted("ADD", "refused")
    try:
        out = host.run(f"unshare -Urn {mounts} sh -c '{script}'")
    finally:
        shutil.rmtree(state, ignore_errors=True)
    result, _, rest = out.partition("\n")
    assert json.loads(result)["ips"][0]["address"] == "10.9.0.2/24"
    assert rest.split()[-2:] == ["0", "0"], out  # the bridge after each DEL
    assert station.counted("ADD", "refused") == refused + 1
    assert not state_rows(host)


# --- who may call


def test_another_user_is_not_heard(host: Host, station: Station) -> None:
    """The folder keeps others out; should it ever be opened, the peer's uid still counts."""
    folder, mode = station.socket.parent, station.socket.stat().st_mode
    assert (folder.stat().st_mode & 0o777, mode & 0o777) == (0o700, 0o600)
    request = render_request(STATUS, STDIN)
    control = server.CONTROL + b'{"command": "stop"}\n'

    def call() -> None:
        with open_descriptors(*paths_of(host)) as fds:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            assert exchange(station.socket, request, fds) == ENDED
            assert exchange(station.socket, control) == ENDED

    outer = station.socket.parent.parent
    modes = [
        (path, path.stat().st_mode) for path in (*outer.parents, outer, folder, station.socket)
    ]
    try:
        for path, was in modes:
            os.chmod(path, was | 0o007)
        assert in_child(call) == 0
    finally:
        for path, was in modes:
            os.chmod(path, was)
    assert station.status() is not None
    assert status_of(station, host) == 0


# --- what comes with a call


def test_descriptors_of_another_kind(host: Host, station: Station, tmp_path: Path) -> None:
    """Each of the three own ones must be a namespace of its kind; else nothing is begun."""
    plain = tmp_path / "plain"
    plain.touch()
    wrong = (str(plain), "/", "/dev/null", "/proc/self/ns/pid", "/proc/self/ns/uts")
    right = paths_of(host)
    for position in range(protocol.OWN_DESCRIPTORS):
        for path in (*wrong, *(r for r in right if r != right[position])):
            paths = [*right[:position], path, *right[position + 1 :]]
            with open_descriptors(*paths) as fds:
                said = exchange(station.socket, render_request(STATUS, STDIN), fds)
            assert said == ENDED, (position, path)
    reader, writer = os.pipe()
    with open_descriptors(*right[1:]) as fds:
        said = exchange(station.socket, render_request(STATUS, STDIN), [reader, *fds])
    os.close(reader)
    os.close(writer)
    assert said == ENDED
    assert status_of(station, host) == 0


def test_a_sandbox_of_another_kind_is_an_error(host: Host, station: Station) -> None:
    before = dump(host)
    for path, code in (("/dev/null", 8), ("/proc/self/ns/pid", 8), (host.path, 8)):
        status, stdout = ask(station.socket, host, Pod("web", path).environ("ADD", "/x"), STDIN)
        assert (status, json.loads(stdout)["code"]) == (1, code), path
    assert not differing(before, dump(host))
    assert not state_rows(host)


@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 64, 250])
def test_another_number_of_descriptors(host: Host, station: Station, count: int) -> None:
    before = station.descriptors()
    with open_descriptors(*(paths_of(host) * 100)[:count]) as fds:
        assert exchange(station.socket, render_request(STATUS, STDIN), fds) == ENDED
    wait_for(lambda: station.descriptors() == before)
    assert status_of(station, host) == 0


def test_descriptors_that_come_late_or_twice(host: Host, station: Station) -> None:
    before = station.descriptors()
    request = render_request(STATUS, STDIN)
    with open_descriptors(*paths_of(host)) as fds:
        for first, second in (([], fds), (fds, fds)):
            with connected(station.socket) as connection:
                for data, rights in ((request[:4], first), (request[4:], second)):
                    socket.send_fds(connection, [data], rights)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(100)  # served or not: the kernel may join what was sent apart
    wait_for(lambda: station.descriptors() == before)


BROKEN_PAYLOADS = (
    b"",
    b"\3",
    b"\0",
    b"\0PROGRAM=netplug",
    b"\0PROGRAM=netplug\0",
    b"\0PROGRAM=\0\0{}",
    b"\0CNI_COMMAND=ADD\0\0{}",
    b"\0PROGRAM=netplug\0LD_PRELOAD=/tmp/x\0\0{}",
    b"\0PROGRAM=netplug\0CNI_COMMAND\0\0{}",
    b"\xff" * 1000,
)


def test_broken_payloads(host: Host, station: Station) -> None:
    with open_descriptors(*paths_of(host)) as fds:
        for payload in BROKEN_PAYLOADS:
            frame = protocol.MAGIC + struct.pack("<I", len(payload)) + payload
            assert exchange(station.socket, frame, fds, hang_up=True) == ENDED, payload
    assert status_of(station, host) == 0


def test_frames_of_other_magic_or_size(host: Host, station: Station) -> None:
    frames = [
        b"PUT / HTTP/1.1\r\n\r\n",
        b"NPA9" + bytes(4),
        protocol.MAGIC + struct.pack("<I", protocol.PAYLOAD_LIMIT + 1) + bytes(1000),
        protocol.MAGIC + b"\xff" * 4,
    ]
    with open_descriptors(*paths_of(host)) as fds:
        for frame in frames:
            assert exchange(station.socket, frame, fds) == ENDED, frame[:20]
    assert status_of(station, host) == 0


def test_half_frames(host: Host, station: Station) -> None:
    """The caller dies at any byte of its request: nothing is begun."""
    before, whole = station.descriptors(), render_request(STATUS, STDIN)
    with open_descriptors(*paths_of(host)) as fds:
        for size in (0, 1, 7, 8, 9, 20, len(whole) - 1):
            sent = fds if size else []
            assert exchange(station.socket, whole[:size], sent, hang_up=True) == ENDED, size
    wait_for(lambda: station.descriptors() == before)
    assert status_of(station, host) == 0


@pytest.mark.parametrize(
    "line", [b"", b"\n", b"null\n", b"[]\n", b'{"command": []}\n', b"{" * 5000, b"\xff\xfe\n"]
)
def test_broken_control_requests(host: Host, station: Station, line: bytes) -> None:
    said = exchange(station.socket, server.CONTROL + line, hang_up=True)
    assert said == ENDED or "error" in json.loads(said)
    assert status_of(station, host) == 0


def test_a_launcher_that_gives_up_gets_nothing_done(host: Host, station: Station) -> None:
    """It hangs up instead of saying go, or says something else."""
    web, before = host.container("web"), dump(host)
    request = render_request(Pod("web", web.path).environ("ADD", "/x"), STDIN)
    for word in (b"", b"N", b"\0"):
        with (
            open_descriptors(*paths_of(host, web.path)) as fds,
            connected(station.socket) as caller,
        ):
            socket.send_fds(caller, [request], fds)
            assert caller.recv(1) == protocol.BEGIN
            caller.sendall(word)
            caller.shutdown(socket.SHUT_WR)
            assert caller.recv(100) == ENDED
    assert not differing(before, dump(host))
    assert not state_rows(host)


# --- slow callers, many callers


def test_slow_callers_hold_up_nobody(host: Host, station: Station, plugins: Path) -> None:
    """All but one thread wait for a caller that says nothing more: the others are served."""
    request = render_request(STATUS, STDIN)
    with ExitStack() as stack:
        for number in range(server.THREADS - 1):
            slow = stack.enter_context(connected(station.socket))
            slow.sendall(request[: number * 5])
        pod = Pod("web", host.container("web").path)
        served = station.counted("ADD", "ok")
        assert execute(host, [str(plugins / "netplug")], pod, "ADD").code == 0
        assert execute(host, [str(plugins / "netplug")], pod, "DEL").code == 0
        assert station.counted("ADD", "ok") == served + 1
    assert not state_rows(host)


def test_an_agent_whose_threads_are_all_held_is_done_without(
    host: Host, station: Station, tmp_path: Path
) -> None:
    settings = Settings(socket=str(station.socket), answer_ms=200)
    install_plugin(tmp_path / "bin", make_launcher(settings))
    program = [str(tmp_path / "bin" / "netplug")]
    pod = Pod("web", host.container("web").path)
    with ExitStack() as stack:
        for _ in range(server.THREADS):
            stack.enter_context(connected(station.socket)).sendall(b"N")
        answer = execute(host, program, pod, "ADD")
        assert answer.document["ips"], answer
        assert execute(host, program, pod, "DEL").code == 0
    assert not state_rows(host)
    assert status_of(station, host) == 0


def failing_and_served(host: Host, web: Host, station: Station, rounds: int) -> None:
    """Twenty calls a round: served, refused, in error, broken off."""
    pod = Pod("web", web.path)
    environ = {verb: pod.environ(verb, "/x") for verb in ("ADD", "CHECK", "DEL", "GC")}
    lost = Pod("web", f"{web.path}-gone").environ("ADD", "/x")
    foreign = STDIN.replace(b'"netplug", "ranges"', b'"elsewhere", "ranges"')
    request = render_request(environ["ADD"], STDIN)
    for _ in range(rounds):
        status, result = ask(station.socket, host, environ["ADD"], STDIN)
        assert not status
        previous = json.dumps({**json.loads(STDIN), "prevResult": json.loads(result)}).encode()
        for verb, expected in (("ADD", 1), ("CHECK", 0), ("DEL", 0), ("CHECK", 1), ("DEL", 0)):
            assert ask(station.socket, host, environ[verb], previous)[0] == expected
        for stdin in (b"", b"{", b"[]", b"{}", STDIN[:50]):
            assert ask(station.socket, host, environ["ADD"], stdin)[0] == 1
        assert ask(station.socket, host, {**environ["ADD"], "CNI_COMMAND": "FLY"}, STDIN)[0] == 1
        with open_descriptors(*paths_of(host)) as fds:
            gone = render_request(lost, STDIN, protocol.SANDBOX_GONE)
            assert exchange(station.socket, gone, fds)[:3] == b"BR\1"
        with open_descriptors(*paths_of(host, web.path)) as fds:
            said = exchange(station.socket, render_request(environ["ADD"], foreign), fds)
            assert said[:1] == b"N"
            for size in (1, 8, 100, len(request) - 1):
                assert exchange(station.socket, request[:size], fds, hang_up=True) == ENDED
            assert exchange(station.socket, request, fds[:2]) == ENDED
            assert exchange(station.socket, request, fds * 2) == ENDED
        assert station.status() is not None


def test_many_calls_leave_nothing_in_the_agent(host: Host, station: Station) -> None:
    """Descriptors, threads and memory are the same after hundreds of calls, failed ones too."""
    web = host.container("web")
    failing_and_served(host, web, station, 4)
    before, threads = station.descriptors(), 1 + 2 * server.THREADS
    memory = station.resident()
    failing_and_served(host, web, station, 12)
    wait_for(lambda: count_threads(station) <= threads)  # one for sandboxes with each
    # a thread that serves for the first time opens its own state file
    again = [name for name in station.descriptors() if "state.db" not in name]
    was = [name for name in before if "state.db" not in name]
    assert len(again) <= len(was) + server.THREADS, (was, again)
    many = station.descriptors()
    failing_and_served(host, web, station, 12)
    wait_for(lambda: len(station.descriptors()) <= len(many))
    assert station.resident() - memory < 6_000  # KiB
    assert not state_rows(host)


def count_threads(station: Station) -> int:
    return len(os.listdir(f"/proc/{station.pid}/task"))


def test_large_calls_do_not_add_up(host: Host, station: Station) -> None:
    """Each thread may keep what its largest call took; more calls take no more."""
    padding = STDIN[:-1] + b', "padding": "' + b"x" * 4_000_000 + b'"}'
    deep = b"[" * 4_000_000  # deeper than any parser follows
    for _ in range(1 + server.THREADS):  # chance says which threads have served a large one
        memory = station.resident()
        for _ in range(16):
            assert ask(station.socket, host, STATUS, padding)[0] == 0
            assert ask(station.socket, host, STATUS, deep)[0] == 1
        if (added := station.resident() - memory) < 20_000:  # KiB; they would add 250_000
            break
    else:
        pytest.fail(f"32 large calls added {added} KiB once more")


def test_many_callers_at_once(host: Host, station: Station) -> None:
    """More than there are threads: each is served, with an address of its own."""
    before = dump(host)
    pods = [Pod(f"c{n}", host.container(f"c{n}").path) for n in range(24)]
    answers: dict[str, tuple[int, bytes]] = {}

    def call(pod: Pod, verb: str) -> None:
        answers[pod.container] = ask(station.socket, host, pod.environ(verb, "/x"), STDIN)

    for verb in ("ADD", "DEL"):
        answers.clear()
        threads = [threading.Thread(target=call, args=(pod, verb)) for pod in pods]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [status for status, _ in answers.values()] == [0] * len(pods), answers
        if verb == "ADD":
            given = {json.loads(text)["ips"][0]["address"] for _, text in answers.values()}
            assert len(given) == len(pods)
    assert not differing(before, dump(host))
    assert not state_rows(host)
