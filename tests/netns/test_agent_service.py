"""The agent as a process: started, asked, reloaded, stopped, by commands and by systemd's rules."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import (
    Station,
    ask,
    connected,
    exchange,
    open_descriptors,
    parse_metrics,
    paths_of,
    render_request,
    wait_for,
)
from attaching import STATE, Site
from cni_exec import NOBODY, Pod, state_rows
from typer.testing import CliRunner, Result

from netplug import __version__
from netplug.agent import protocol, service
from netplug.agent.server import control
from netplug.cli.app import app
from netplug.errors import Conflict, NetplugError, Unavailable
from netplug.model import Attachment

if TYPE_CHECKING:
    from conftest import Host

STDIN = json.dumps(
    {
        "cniVersion": "1.1.0",
        "name": "lan",
        "type": "netplug",
        "bridge": "br0",
        "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
    }
).encode()
USED = 'netplug_leases_used{network="lan",family="ipv4"}'
FREE = 'netplug_leases_free{network="lan",family="ipv4"}'
STATUS = NOBODY.environ("STATUS", "/nowhere")


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s" / "agent.sock")
    yield station
    station.end()


def netplug(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def started(station: Station, *options: str) -> dict[str, object]:
    """What `agent start` says of the agent, which then is the station's."""
    done = netplug("agent", "start", "--socket", str(station.socket), "--json", *options)
    assert not done.exit_code, done.output
    status = dict(json.loads(done.stdout))
    station.pid = int(status["pid"])
    return status


# --- netplug agent


def test_start_status_stop(station: Station) -> None:
    at = ("--socket", str(station.socket))
    assert netplug("agent", "status", *at).exit_code
    status = started(station)
    assert status["version"] == __version__
    assert status["state"] == str(STATE)
    again = dict(json.loads(netplug("agent", "status", *at, "--json").stdout))
    assert again["pid"] == status["pid"]
    assert str(status["pid"]) in netplug("agent", "status", *at).stdout
    assert not netplug("agent", "stop", *at).exit_code
    assert os.waitstatus_to_exitcode(station.wait()) == 0
    assert not station.socket.exists()
    refused = netplug("agent", "stop", *at)
    assert refused.exit_code


@pytest.mark.parametrize("command", ["status", "stop", "reload"])
def test_without_an_agent_and_with_one_that_hangs(station: Station, command: str) -> None:
    words = ("agent", command, "--socket", str(station.socket))
    missing = netplug(*words)
    assert isinstance(missing.exception, NetplugError)
    assert "no agent answers" in str(missing.exception)
    assert "netplug agent start" in missing.exception.hint
    started(station)
    os.kill(station.pid, signal.SIGSTOP)
    hung = netplug(*words)
    assert isinstance(hung.exception, Unavailable)
    assert f"process {station.pid} says nothing" in str(hung.exception)
    assert hung.exception.hint == f"end it with: kill -KILL {station.pid}"


def test_a_second_agent_is_a_conflict(station: Station) -> None:
    """Also one that is started past the command, as two at once would."""
    started(station)
    with pytest.raises(Conflict, match="runs already"):
        service.start(station.socket, STATE)
    other = subprocess.run(
        [sys.executable, "-m", "netplug.agent", str(station.socket), str(STATE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert other.returncode
    assert "runs already" in other.stderr
    assert (station.status() or {})["pid"] == station.pid
    station.stop()


def test_of_many_started_at_once_one_stays(station: Station) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "netplug.agent", str(station.socket), str(STATE)],
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    wait_for(lambda: sum(process.poll() is None for process in processes) == 1)
    (winner,) = (process for process in processes if process.poll() is None)
    wait_for(lambda: (station.status() or {}).get("pid") == winner.pid)
    service.stop(station.socket)
    assert winner.wait() == 0


def test_a_stale_socket_is_replaced(station: Station) -> None:
    station.start()
    station.kill()
    assert station.socket.exists()
    assert station.status() is None
    started(station)
    assert station.status() is not None
    station.stop()


def test_the_started_agent_keeps_nothing_of_its_starter(station: Station, tmp_path: Path) -> None:
    with ExitStack() as stack:
        kept = stack.enter_context((tmp_path / "kept").open("w"))
        os.set_inheritable(kept.fileno(), True)
        here = os.getcwd()
        stack.callback(os.chdir, here)
        os.chdir(tmp_path)
        started(station)
    process = Path(f"/proc/{station.pid}")
    assert os.readlink(process / "cwd") == "/"
    assert os.getsid(station.pid) == station.pid
    opened = {int(fd.name): os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert [opened.pop(fd) for fd in (0, 1, 2)] == ["/dev/null"] * 3
    own = ("socket:", str(station.folder))  # it looks after DHCP leases in its state
    assert all(target.startswith(own) for target in opened.values()), opened
    station.stop()


def logged(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_the_log_tells_of_each_request(host: Host, station: Station, tmp_path: Path) -> None:
    """One id in all lines of one; no configuration, no environment beyond the call's own names."""
    log = tmp_path / "log"
    started(station, "--log", str(log), "--log-format", "json")
    pod = Pod("web", host.container("web").path, args="IgnoreUnknown=1;SECRET=hunter2")
    more = b', "hunter2ish": 1, "args": {"cni": {"labels": [{"key": "k", "value": "hunter2"}]}}}'
    trace = {"TRACEPARENT": "00-0af7-b7ad-01", "CNI_PASSWORD": "hunter2"}
    for verb in ("ADD", "DEL"):
        assert (
            ask(station.socket, host, {**pod.environ(verb, "/x"), **trace}, STDIN[:-1] + more)[0]
            == 0
        )
    bad = STDIN.replace(b"10.1.0.0/24", b"hunter2")
    assert ask(station.socket, host, pod.environ("ADD", "/x"), bad)[0] == 1
    station.stop()
    lines = logged(log)
    assert [line["event"] for line in lines if "request" not in line] == ["listening", "stopped"]
    served = [line for line in lines if line["event"] == "served"]
    assert [line["verb"] for line in served] == ["ADD", "DEL", "ADD"]
    assert [line["status"] for line in served] == [0, 0, 1]
    assert served[2]["code"] == 7
    assert all(line["container"] == "web" and line["ms"] for line in served)
    assert [line.get("trace") for line in served] == [trace["TRACEPARENT"]] * 2 + [None]
    assert len({str(line["request"]) for line in served}) == 3
    (said,) = (line for line in lines if line["event"] == "said")  # of the key that is unknown
    assert said["request"] == served[0]["request"]
    assert "hunter2ish" in str(said["text"])
    assert "hunter2" not in log.read_text().replace("hunter2ish", "")


def test_the_log_as_pairs(host: Host, station: Station, tmp_path: Path) -> None:
    log = tmp_path / "log"
    started(station, "--log", str(log))
    assert ask(station.socket, host, STATUS, STDIN)[0] == 0
    station.stop()
    (line,) = (line for line in log.read_text().splitlines() if "event=served" in line)
    assert " verb=STATUS status=0 ms=" in line


# --- metrics


def test_numbers_add_up(host: Host, station: Station) -> None:
    started(station)
    pods = [Pod(f"c{n}", host.container(f"c{n}").path) for n in range(3)]
    for pod in pods:
        assert ask(station.socket, host, pod.environ("ADD", "/x"), STDIN)[0] == 0
    assert ask(station.socket, host, pods[0].environ("ADD", "/x"), STDIN)[0] == 1
    assert ask(station.socket, host, STATUS, STDIN)[0] == 0
    for number in range(20):
        odd = {**STATUS, "CNI_COMMAND": f'{number}"}} 1\nnetplug_requests_total{{verb="y'}
        assert ask(station.socket, host, odd, STDIN)[0] == 1
    at = ("--socket", str(station.socket))
    assert netplug("metrics", *at).stdout.startswith("# HELP")
    found = station.metrics()

    def total(**labels: str) -> float:
        inner = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return found[f"netplug_requests_total{{{inner}}}"]

    assert total(verb="ADD", result="ok") == 3
    assert total(verb="ADD", result="error") == 1
    assert total(verb="other", result="error") == 20
    requests = sum(v for name, v in found.items() if name.startswith("netplug_requests_total"))
    timed = sum(v for name, v in found.items() if name.startswith("netplug_request_seconds_count"))
    assert requests == timed == 25 == (station.status() or {})["calls"]
    for verb in ("ADD", "STATUS"):
        prefix = f'netplug_request_seconds_bucket{{verb="{verb}",'
        buckets = [value for name, value in found.items() if name.startswith(prefix)]
        assert buckets == sorted(buckets)
        assert buckets[-1] == found[f'netplug_request_seconds_count{{verb="{verb}"}}']
    assert found['netplug_attachments{network="lan",phase="ready"}'] == 3
    assert found[USED] == 3
    assert found[FREE] == 253 - 3
    for pod in pods:
        assert ask(station.socket, host, pod.environ("DEL", "/x"), STDIN)[0] == 0
    found = station.metrics()
    assert USED not in found and FREE not in found
    station.stop()


def test_leases_of_all_hosts_are_counted(
    make_host: Callable[[str], Host], station: Station, tmp_path: Path
) -> None:
    """Used and free by family; a network that nobody is on counts by its file."""
    started(station)
    config = json.loads(STDIN)
    subnets = ("10.1.0.0/29", "fd00:1::/64")
    config["ipam"]["ranges"] = [[{"subnet": subnet}] for subnet in subnets]
    stdin = json.dumps(config).encode()
    hosts = [make_host("a"), make_host("b")]
    pods = [(host, Pod("web", host.container("web").path)) for host in hosts]
    for host, pod in pods:
        assert ask(station.socket, host, pod.environ("ADD", "/x"), stdin)[0] == 0
    assert not netplug(
        "network", "create", "empty", "--private", "--subnet", "10.7.0.0/24"
    ).exit_code
    found = station.metrics()
    assert found[USED] == 2
    assert found[FREE] == 2 * (5 - 1)  # eight but for network, broadcast and gateway
    assert found[USED.replace("4", "6")] == 2
    assert found[FREE.replace("4", "6")] > 1e19
    assert found[FREE.replace("lan", "empty")] == 253
    assert found[USED.replace("lan", "empty")] == 0
    assert not netplug("network", "rm", "empty").exit_code
    (STATE / "networks").rmdir()
    for host, pod in pods:
        assert ask(station.socket, host, pod.environ("DEL", "/x"), stdin)[0] == 0
    station.stop()


def test_metrics_over_http(station: Station) -> None:
    """As `curl --unix-socket` asks for them."""
    started(station)
    request = b"GET /metrics HTTP/1.1\r\nHost: agent\r\nAccept: */*\r\n\r\n"
    head, _, body = exchange(station.socket, request).decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.0 200 OK")
    assert parse_metrics(body).keys() == station.metrics().keys()
    station.stop()


# --- reload


def test_reload_forgets_the_hosts(host: Host, station: Station) -> None:
    """Descriptors of namespaces and their sockets go; the next call works as before."""
    started(station)
    web = Pod("web", host.container("web").path)
    for verb in ("ADD", "DEL"):
        assert ask(station.socket, host, web.environ(verb, "/x"), STDIN)[0] == 0
    assert host_is_held(station, host)
    assert not netplug("agent", "reload", "--socket", str(station.socket)).exit_code
    assert not host_is_held(station, host)
    for verb in ("ADD", "DEL"):
        assert ask(station.socket, host, web.environ(verb, "/x"), STDIN)[0] == 0
    station.stop()


def host_is_held(station: Station, host: Host) -> bool:
    wanted = os.fstat(host.fd)
    found = []
    for name in os.listdir(f"/proc/{station.pid}/fd"):
        status = os.stat(f"/proc/{station.pid}/fd/{name}")
        found.append((status.st_dev, status.st_ino))
    return (wanted.st_dev, wanted.st_ino) in found


def test_reload_spares_the_calls_that_are_running(host: Host, station: Station) -> None:
    """And nobody is served in a host that was forgotten meanwhile."""
    started(station)
    pods = [Pod(f"c{n}", host.container(f"c{n}").path) for n in range(4)]
    failures: list[object] = []

    def work(pod: Pod) -> None:
        for _ in range(8):
            for verb in ("ADD", "DEL"):
                answer = ask(station.socket, host, pod.environ(verb, "/x"), STDIN)
                if answer[0]:
                    failures.append(answer)

    threads = [threading.Thread(target=work, args=(pod,)) for pod in pods]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert not netplug("agent", "reload", "--socket", str(station.socket)).exit_code
    for thread in threads:
        thread.join()
    assert not failures
    assert not state_rows(host)
    station.stop()


# --- a state file that somebody exchanges


def test_without_its_log_the_agent_ends(host: Host, station: Station, tmp_path: Path) -> None:
    """Its threads' connections disagree with the file then; one process alone reads it right."""
    station.folder = tmp_path / "state"
    station.start()
    pods = [Pod(f"c{n}", host.container(f"c{n}").path) for n in range(2)]
    assert ask(station.socket, host, pods[0].environ("ADD", "/x"), STDIN)[0] == 0
    site = Site(host, station.folder)
    with closing(sqlite3.connect(station.folder / "state.db")) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in ("state.db-wal", "state.db-shm"):
        (station.folder / name).unlink()
    with open_descriptors(*paths_of(host, pods[1].netns)) as fds:
        said = exchange(station.socket, render_request(pods[1].environ("ADD", "/x"), STDIN), fds)
    assert said[:1] == b"N" and b"log was taken away" in said
    assert os.waitstatus_to_exitcode(station.wait()) == 0
    site.delete(Attachment("lan", "c0", "eth0", sandbox=pods[0].netns))
    assert not any(site.rows().values())


# --- stop


@contextmanager
def held(host: Host, pod: Pod) -> Iterator[None]:
    """Whoever works on this attachment waits."""
    owner = Attachment("lan", pod.container, pod.ifname).owner
    with Site(host).engine() as engine, engine.state.locked(engine.lock_name(owner)):
        yield


def begin(caller: socket.socket, host: Host, pod: Pod) -> None:
    """An ADD that was told to go."""
    with open_descriptors(*paths_of(host, pod.netns)) as fds:
        socket.send_fds(caller, [render_request(pod.environ("ADD", "/x"), STDIN)], fds)
    assert caller.recv(1) == protocol.BEGIN
    caller.sendall(protocol.GO)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "stop"])
def test_a_call_that_was_begun_is_finished(host: Host, station: Station, how: str) -> None:
    station.start()
    pod = Pod("web", host.container("web").path)
    with connected(station.socket) as caller:
        with held(host, pod):
            begin(caller, host, pod)
            if how == "stop":
                control(station.socket, "stop")
            else:
                os.kill(station.pid, getattr(signal, how))
            wait_for(lambda: station.status() is None)
            assert Path(f"/proc/{station.pid}/ns/net").exists()
        assert caller.recv(2) == b"R\0"
    assert os.waitstatus_to_exitcode(station.wait()) == 0
    site = Site(host)
    attachment = Attachment("lan", "web", "eth0", sandbox=pod.netns)
    site.check(attachment)
    site.delete(attachment)
    assert not state_rows(host)


# --- systemd


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


def activate(station: Station, listener: socket.socket) -> None:
    """Starts the agent as systemd does: the socket is descriptor 3, two variables tell of it."""
    number = listener.fileno()
    agent = (sys.executable, "-I", "-m", "netplug.agent", str(station.socket), str(STATE))
    command = [sys.executable, "-c", ACTIVATE, str(number), *agent]
    process = subprocess.Popen(command, pass_fds=[number], stderr=subprocess.DEVNULL)
    process.returncode = 0  # the station waits for it
    station.pid = process.pid


def test_socket_activation(host: Host, station: Station) -> None:
    """The first call waits until the agent is there; the socket outlives each agent."""
    station.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(station.socket))
        listener.listen()
        inode = station.socket.stat().st_ino
        pod = Pod("web", host.container("web").path)
        for verb in ("ADD", "DEL"):
            answers: list[tuple[int, bytes]] = []
            environ = pod.environ(verb, "/x")
            caller = threading.Thread(
                target=lambda environ=environ, answers=answers: answers.append(
                    ask(station.socket, host, environ, STDIN)
                )
            )
            caller.start()
            activate(station, listener)
            caller.join()
            assert answers[0][0] == 0
            station.stop()
            assert station.socket.stat().st_ino == inode
    assert not state_rows(host)


def test_units_are_what_systemd_takes(tmp_path: Path) -> None:
    done = netplug("agent", "units", "--dir", str(tmp_path), "--socket", "/run/x/agent.sock")
    assert not done.exit_code, done.output
    service_unit = (tmp_path / "netplug.service").read_text()
    assert "ListenStream=/run/x/agent.sock" in (tmp_path / "netplug.socket").read_text()
    assert f"-m netplug.agent /run/x/agent.sock {STATE}" in service_unit
    for key in ("PrivateMounts", "ProtectSystem", "PrivateTmp", "PrivateNetwork", "ProtectHome"):
        assert key not in service_unit  # a mount namespace of its own would see no container
