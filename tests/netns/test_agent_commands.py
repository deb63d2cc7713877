"""`netplug connect` and its like: the agent works, and nobody can tell but by the clock.

Every command line is run as a person's shell would run it, once by an agent and once by the
process itself, on two simulated hosts: they say the same, and leave the same.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import Station, connected, dies_after, exchange, open_descriptors, paths_of, wait_for
from attaching import Site, differing, dump
from cni_exec import CACHE
from launching import PATIENCE
from through import SEARCH_PATH

from netplug import __version__
from netplug.agent import protocol, wire
from netplug.agent.metrics import COMMAND

if TYPE_CHECKING:
    from conftest import Host

NETPLUG = Path(sys.executable).with_name("netplug")


@dataclass(frozen=True, slots=True)
class Said:
    status: int
    stdout: str
    stderr: str


@dataclass(slots=True)
class Shell:
    """A shell on one host. `run` is the folder of the agent's socket; state and networks are the
    same for all."""

    host: Host
    run: Path
    state: Path

    def __call__(self, *words: str, **environ: str) -> Said:
        done = self.start(words, environ)
        stdout, stderr = done.communicate(timeout=PATIENCE)
        return Said(done.returncode, stdout, stderr)

    def start(
        self, words: tuple[str, ...], environ: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        settings = {
            "PATH": SEARCH_PATH,
            "LC_ALL": "C.UTF-8",
            "NETPLUG_RUN": str(self.run),
            "NETPLUG_STATE": str(self.state),
            **(environ or {}),
        }
        return self.host.call(
            lambda: subprocess.Popen(
                [NETPLUG, *words],
                env=settings,
                text=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )


@pytest.fixture(autouse=True)
def _no_cache() -> Iterator[None]:
    """The folder of libcni's cache stays once it is made; it must be empty."""
    yield
    if CACHE.exists():
        CACHE.rmdir()


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    station = Station(tmp_path / "s" / "agent.sock", tmp_path / "state")
    station.start()
    yield station
    station.end()


@pytest.fixture
def warm(host: Host, station: Station) -> Shell:
    """A shell whose commands the agent serves, and a network `lan`."""
    shell = Shell(host, station.socket.parent, station.folder)
    assert shell("network", "create", "lan", "--private", "--subnet", "10.1.0.0/24").status == 0
    return shell


def served(station: Station) -> tuple[int, int]:
    """Commands that the agent has done, and has refused."""
    done = station.counted(COMMAND, "ok") + station.counted(COMMAND, "error")
    return done, station.counted(COMMAND, "refused")


LINES = """
connect WEB lan --publish 8080:80 --alias www --ingress 10M
connect WEB lan
connect WEB lan --ifname eth7 --json
connect WEB lan --dry-run
connect DB lan --dry-run --json
connect DB lan --ip 10.9.9.9
connect DB lan --ip 10.1.0.77 --mac 02:00:00:00:00:01 --name db
connect /run/netns/DB lan --ifname eth9
connect nowhere lan
connect WEB lam
connect WEB
connect WEB lan --colour red
connect --help
ps
ps lan --json
ps other
check
check WEB --json
check nowhere
BREAK
check
check WEB
repair --dry-run
repair --json
repair
status
status lan --json
status lam
ipam ls
ipam ls --json
ipam release lan/nobody/eth0
ipam
gc --all
gc --dry-run
gc lan
disconnect WEB lan --dry-run
disconnect WEB lan --ifname eth0
disconnect WEB lan --json
disconnect WEB lan
gc lan --all --json
ps
"""


def transcript(shell: Shell) -> list[tuple[str, Said]]:
    web, db = (shell.host.container(name) for name in ("web", "db"))

    def plain(text: str) -> str:
        """Without what differs between two hosts and two moments."""
        text = text.replace(web.name, "WEB").replace(db.name, "DB")
        text = re.sub(r"cnitool-[0-9a-f]{20}", "CONTAINER", text)
        text = re.sub(
            r"cnitool-[0-9a-f]+|veth[0-9a-f]{11}|\b[0-9a-f]{2}(:[0-9a-f]{2}){5}", "X", text
        )
        return re.sub(r'"since": [0-9.]+|fd00:[0-9a-f:]+| {2,}', " ", text)

    found = []
    for line in LINES.strip().splitlines():
        if line == "BREAK":
            web.run("ip route del default")
            shell.host.run("nft flush table inet netplug || nft flush table ip netplug")
            continue
        words = [{"WEB": web.name, "DB": db.name}.get(word, word) for word in line.split()]
        said = shell(*(word.replace("netns/DB", f"netns/{db.name}") for word in words))
        found.append((line, Said(said.status, plain(said.stdout), plain(said.stderr))))
    return found


def test_the_same_words_and_deeds(
    make_host: Callable[[str], Host], station: Station, tmp_path: Path
) -> None:
    hosts = [make_host("a"), make_host("b")]
    warm = Shell(hosts[0], station.socket.parent, station.folder)
    alone = Shell(hosts[1], tmp_path / "nobody", station.folder)
    assert warm("network", "create", "lan", "--private", "--subnet", "10.1.0.0/24").status == 0
    before = [dump(host) for host in hosts]
    with ThreadPoolExecutor() as pool:
        by_agent, by_itself = pool.map(transcript, (warm, alone))
    for one, other in zip(by_agent, by_itself, strict=True):
        assert one == other
    statuses = {said.status for _, said in by_agent}
    assert statuses == {0, 2, 4, 5, 6}
    assert served(station) == (len(by_agent), 0)
    for host, was in zip(hosts, before, strict=True):
        assert not differing(was, dump(host))
        assert not any(Site(host, station.folder).rows().values())
    station.stop()


def test_output_for_a_terminal(warm: Shell, station: Station, tmp_path: Path) -> None:
    """Colours and width are those of the caller's terminal."""
    assert warm("connect", warm.host.container("web").name, "lan").status == 0
    alone = Shell(warm.host, tmp_path / "nobody", station.folder)
    for environ in ({"TERM": "xterm"}, {"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}):
        for words in ("ps", "connect nowhere lan", "check --help"):
            said = [on_terminal(shell, words, environ) for shell in (warm, alone)]
            assert said[0] == said[1], (environ, words)
    assert "\x1b[31m" in on_terminal(warm, "connect nowhere lan", {"TERM": "xterm"})
    assert served(station)[1] == 0
    assert warm("gc", "lan", "--all").status == 0
    station.stop()


def on_terminal(shell: Shell, words: str, environ: dict[str, str]) -> str:
    """What a terminal of 60 columns shows."""
    settings = {"PATH": SEARCH_PATH, "LC_ALL": "C.UTF-8", **environ}
    settings |= {"NETPLUG_RUN": str(shell.run), "NETPLUG_STATE": str(shell.state)}
    line = f"stty cols 60; exec {NETPLUG} {words}"
    done = shell.host.call(
        lambda: subprocess.run(
            ["script", "--quiet", "--command", line, "/dev/null"],
            env=settings,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    )
    return done.stdout


# --- who does it


def test_what_the_agent_leaves_to_the_caller(warm: Shell, station: Station, tmp_path: Path) -> None:
    """Each by its own reason; and it is done."""
    web = warm.host.container("web")
    named = tmp_path / "named"
    assert warm("network", "create", "wan", "--subnet", "10.2.0.0/24", NETCONFPATH=str(named))
    assert warm("connect", web.name, "wan", NETCONFPATH=str(named)).status == 0
    assert served(station) == (0, 1)
    assert warm("disconnect", web.name, "wan").status == 0  # by the record
    assert served(station) == (1, 1)
    assert warm("ps", NETPLUG_STATE=str(tmp_path / "other")).status == 0
    assert warm("connect", "podman:web", "lan").status == 4
    assert served(station) == (1, 3)
    mounts = warm.host.call(
        lambda: subprocess.run(
            ["unshare", "--mount", NETPLUG, "ps"],
            env={"NETPLUG_RUN": str(warm.run), "NETPLUG_STATE": str(warm.state)},
            capture_output=True,
            text=True,
            check=True,
        )
    )
    assert mounts.stdout == "nothing is attached\n"
    assert served(station)[0] == 1
    assert warm("--conf-dir", str(named), "ps").status == 0  # is not even asked for
    assert served(station)[0] == 1
    station.stop()


def test_relative_paths_are_the_callers(warm: Shell, station: Station) -> None:
    web = warm.host.container("web")
    done = warm.host.call(
        lambda: subprocess.run(
            [NETPLUG, "connect", f"../netns/{web.name}", "lan"],
            env={"NETPLUG_RUN": str(warm.run), "NETPLUG_STATE": str(warm.state)},
            cwd="/run/netns",
            capture_output=True,
            check=False,
        )
    )
    assert done.returncode == 0, done
    assert warm("disconnect", web.name, "lan").status == 0
    assert served(station) == (2, 0)
    station.stop()


def test_a_hung_agent_is_passed_over(warm: Shell, station: Station) -> None:
    web = warm.host.container("web")
    os.kill(station.pid, signal.SIGSTOP)
    assert warm("connect", web.name, "lan").status == 0
    os.kill(station.pid, signal.SIGCONT)
    assert warm("disconnect", web.name, "lan").status == 0
    wait_for(lambda: served(station) == (1, 0))
    station.stop()


def test_an_agent_that_dies_at_work(warm: Shell, station: Station) -> None:
    """The command says so, and the next one finds what was begun."""
    web = warm.host.container("web")
    before = dump(warm.host)
    assert warm("connect", web.name, "lan").status == 0
    assert warm("disconnect", web.name, "lan").status == 0
    for number in (1, 4, 7):
        station.kill()
        station.fork(dies_after(number))
        said = warm("connect", web.name, "lan")
        station.wait()
        assert said.status == 7, said
        assert "the agent ended" in said.stderr
        station.start()
        assert warm("connect", web.name, "lan").status == 0
        assert warm("disconnect", web.name, "lan").status == 0
        assert not differing(before, dump(warm.host))
        assert not any(Site(warm.host, station.folder).rows().values())
    station.stop()


def test_a_command_that_is_killed_is_undone(warm: Shell, station: Station) -> None:
    """Whoever connects has gone before the work was done: nobody would know of it."""
    web = warm.host.container("web")
    with Site(warm.host, station.folder).engine() as engine:
        container = json.loads(warm("connect", web.name, "lan", "--dry-run", "--json").stdout)
        assert container
        owner = f"lan/{warm_container(web)}/eth0"
        with engine.state.locked(engine.lock_name(owner)):
            process = warm.start(("connect", web.name, "lan"))
            wait_for(lambda: f"{web.name}" in opened_by(station.pid))
            process.kill()
            process.communicate()
    wait_for(lambda: served(station)[0] == 2)
    assert warm("ps").stdout == "nothing is attached\n"
    assert not any(Site(warm.host, station.folder).rows().values())
    station.stop()


def warm_container(web: Host) -> str:
    from netplug.cni.cache import cnitool_container

    return cnitool_container(web.path)


def opened_by(pid: int) -> str:
    return " ".join(Station(Path("/"), pid=pid).descriptors())


def test_many_at_once_keep_their_words_apart(warm: Shell, station: Station) -> None:
    webs = [warm.host.container(f"w{number}") for number in range(6)]
    said: dict[str, list[Said]] = {web.name: [] for web in webs}

    def work(name: str) -> None:
        for words in (
            ("connect", name, "lan"),
            ("connect", f"no-{name}", "lan"),
            ("disconnect", name, "lan"),
        ):
            said[name].append(warm(*words))

    threads = [threading.Thread(target=work, args=(web.name,)) for web in webs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, (connected_, refused, left) in said.items():
        assert connected_.stdout.startswith(f"{name} is on lan as eth0: 10.1.0.")
        assert f"no-{name} does not exist" in refused.stderr and not refused.stdout
        assert left.stdout == f"{name} left lan (eth0)\n" and not left.stderr
    assert served(station) == (18, 0)
    station.stop()


# --- callers that break the rules


def command(*words: str, **environ: str) -> bytes:
    variables = {"PROGRAM": "netplug", wire.FOLDER: "/", wire.VERSION: __version__, **environ}
    text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in variables.items())
    payload = bytes([wire.COMMAND]) + text + b"\0" + "\0".join(words).encode()
    return protocol.MAGIC + len(payload).to_bytes(4, "little") + payload


def say(warm: Shell, station: Station, frame: bytes) -> bytes:
    with open_descriptors(*paths_of(warm.host)) as fds:
        return exchange(station.socket, frame, fds)


def test_what_the_agent_does_not_take(warm: Shell, station: Station) -> None:
    state = {"NETPLUG_STATE": str(station.folder)}
    assert say(warm, station, command("ps", **state)).startswith(b"B1")
    for words in (
        ("install",),
        ("--install-completion",),
        ("agent", "stop"),
        ("",),
        ("--version",),
    ):
        assert say(warm, station, command(*words, **state))[:2] == b"BN", words
    assert say(warm, station, command("ps", NETPLUG_VERSION="0", **state))[:2] == b"BN"
    assert say(warm, station, command("ps", HOME="/root", **state)) == b""
    assert station.status()
    station.stop()


INSTEAD: dict[str, tuple[bytes, list[str]]] = {
    "file": (bytes(4), ["/etc/passwd"]),
    "directory": (bytes(4), ["/"]),
    "mount namespace": (bytes(4), ["/proc/self/ns/mnt"]),
    "two": (bytes(4), ["/proc/self/ns/net"] * 2),
    "none": (bytes(4), []),
    "text": (b"what?", []),
}


def test_descriptors_that_are_no_sandbox(warm: Shell, station: Station) -> None:
    """The caller opens something else than it was asked for: nothing comes of it."""
    before = dump(warm.host)
    for what, (answer, paths) in INSTEAD.items():
        said = connect_with(warm, station, answer, paths)
        assert b"E\1\0\0\0\0" not in said, what
        assert not differing(before, dump(warm.host))
        assert not any(Site(warm.host, station.folder).rows().values())
    wait_for(lambda: len(station.descriptors()) < 40)
    station.stop()


def connect_with(warm: Shell, station: Station, answer: bytes, paths: list[str]) -> bytes:
    frame = command("connect", "web", "lan", NETPLUG_STATE=str(station.folder))
    said = b""
    with open_descriptors(*paths_of(warm.host)) as fds, connected(station.socket) as caller:
        socket.send_fds(caller, [frame], fds)
        assert caller.recv(1) == protocol.BEGIN
        caller.sendall(protocol.GO)
        asked = caller.recv(100)
        assert asked == b"O" + (14).to_bytes(4, "little") + b"/run/netns/web"
        with open_descriptors(*paths) as answers, suppress(ConnectionResetError):
            if answers:
                socket.send_fds(caller, [answer], answers)
            else:
                caller.sendall(answer)
            while part := caller.recv(1 << 16):
                said += part
    return said
