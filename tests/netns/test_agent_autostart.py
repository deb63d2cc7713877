"""The first call starts the agent: as root in the initial namespaces alone, once, in passing.

A machine is a namespace of processes, whose first process also says what the initial
namespaces are, and takes over what its parent has left.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from agents import wait_for
from cni_exec import Pod
from launching import PATIENCE

from netplug.agent import autostart, service, spawn
from netplug.agent.build import Settings, make_launcher
from netplug.errors import UnsupportedError
from netplug.host import in_initial_user_namespace
from netplug.install import install_plugin

if TYPE_CHECKING:
    from conftest import Host

FIRST_PROCESS = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
print(os.getpid(), flush=True)
while signal.sigwait([signal.SIGCHLD]):
    try:
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            print("took over", *ended, flush=True)
    except ChildProcessError:
        pass
"""
CONFIG = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "bridge": "br0",
    "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}
BROKEN = {**CONFIG, "bridge": "/"}  # an error that is found at once


@dataclass(slots=True)
class Machine:
    """Its first process, seen from outside, and one plugin folder with its socket."""

    host: Host
    folder: Path
    pid: int
    log: Path
    pod: Pod

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "agent.sock"

    def command(self, *words: str | Path, net: bool = True) -> list[str]:
        """Executes these inside."""
        enter = ["nsenter", f"--target={self.pid}", "--pid", "--mount", *(["--net"] * net)]
        return [*enter, "--", *map(str, words)]

    def start(self, verb: str, pod: Pod, config: object = CONFIG, *, net: bool = True) -> Call:
        environ = {"PATH": os.environ["PATH"], "SECRET": "x", **pod.environ(verb, "/x")}
        process = subprocess.Popen(
            self.command(self.folder / "bin" / "netplug", net=net),
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Call(process, json.dumps(config).encode())

    def agents(self) -> list[int]:
        """Processes that were started as agents of this machine, and have not ended."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                words = Path(f"/proc/{name}/cmdline").read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if b"netplug.agent" in words and str(self.socket).encode() in words:
                found.append(int(name))
        return found

    def wait_for_agent(self) -> int:
        wait_for(lambda: service.read_status(self.socket), "the agent")
        wait_for(lambda: len(self.agents()) == 1, "the end of the others")
        return self.agents()[0]

    def end_agent(self) -> None:
        (pid,) = self.agents()
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not self.agents())
        self.allow()

    def allow(self) -> None:
        """As if the last attempt was long ago."""
        old = time.time() - 2 * autostart.PAUSE
        os.utime(f"{self.socket}.started", (old, old))

    def ended(self) -> int:
        """How many processes the first one has taken over, and waited for."""
        return self.log.read_text().count("took over")


@dataclass(slots=True)
class Call:
    process: subprocess.Popen[bytes]
    stdin: bytes

    def finish(self) -> int:
        """Its exit status, once nobody holds its pipes."""
        self.process.communicate(self.stdin, timeout=PATIENCE)
        return self.process.returncode


both = pytest.mark.parametrize("machine", ["native", "python"], indirect=True)


@pytest.fixture
def machine(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[Machine]:
    if not in_initial_user_namespace():
        pytest.skip("only the root of the machine starts an agent by a call")
    settings = Settings(socket=str(tmp_path / "run" / "agent.sock"), autostart=True)
    try:
        launcher = make_launcher(settings, getattr(request, "param", "auto"))
    except UnsupportedError as reason:
        pytest.skip(str(reason))
    install_plugin(tmp_path / "bin", launcher)
    web = host.container("web")  # later mounts are not seen inside
    log = tmp_path / "first"
    with log.open("w") as output:
        unshared = host.call(
            lambda: subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
                    *(sys.executable, "-c", FIRST_PROCESS),
                ],
                stdout=output,
            )
        )
    try:
        wait_for(log.read_text)
        children = Path(f"/proc/{unshared.pid}/task/{unshared.pid}/children").read_text()
        yield Machine(host, tmp_path, int(children), log, Pod("web", web.path))
    finally:
        unshared.kill()
        unshared.wait()


@both
def test_the_first_call_starts_it_and_the_next_is_served(machine: Machine) -> None:
    pod = machine.pod
    assert machine.start("ADD", pod).finish() == 0
    pid = machine.wait_for_agent()
    process = Path(f"/proc/{pid}")
    parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
    assert parent == machine.pid
    assert os.getsid(pid) == pid
    assert os.readlink(process / "cwd") == "/"
    opened = {int(fd.name): os.readlink(fd) for fd in (process / "fd").iterdir()}
    assert [opened.pop(fd) for fd in (0, 1, 2)] == ["/dev/null"] * 3
    own = ("socket:", "/var/lib/netplug/")  # the rest would be its starter's
    assert all(target.startswith(own) for target in opened.values()), opened
    names = {text.partition(b"=")[0] for text in (process / "environ").read_bytes().split(b"\0")}
    assert names <= {b"PATH", b"LC_CTYPE", b""}  # Python's own, for the C locale
    assert machine.start("DEL", pod).finish() == 0
    assert (service.read_status(machine.socket) or {})["calls"] == 1
    assert machine.ended() == 0


@both
def test_of_fifty_calls_at_once_one_starts_it(machine: Machine) -> None:
    pod = Pod("web", "/proc/self/ns/net")
    calls = [machine.start("ADD", pod, BROKEN) for _ in range(50)]
    assert {call.finish() for call in calls} == {1}
    machine.wait_for_agent()
    assert machine.ended() == 0


def test_losers_end_quietly(machine: Machine) -> None:
    """Agents that are started past the lock, as by several installations."""
    code = "import sys; from netplug.agent import spawn; [spawn.spawn(sys.argv[1:]) for _ in '123']"
    started = spawn.agent_command(machine.socket, "/var/lib/netplug")
    subprocess.run(machine.command(sys.executable, "-c", code, *started), check=True)
    machine.wait_for_agent()
    wait_for(lambda: machine.ended() == 2)


def test_an_agent_that_was_stopped_stays_so(machine: Machine) -> None:
    pod = Pod("web", "/proc/self/ns/net")
    netplug = (Path(sys.executable).with_name("netplug"), "agent")
    at = ("--socket", machine.socket)
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    machine.wait_for_agent()
    subprocess.run(machine.command(*netplug, "stop", *at), check=True)
    machine.allow()
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    assert not machine.agents()
    subprocess.run(machine.command(*netplug, "start", *at), check=True, stdout=subprocess.DEVNULL)
    machine.end_agent()
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    machine.wait_for_agent()


def test_no_attempt_follows_another_at_once(machine: Machine) -> None:
    """An agent that cannot live costs one start in ten seconds, not one for each call."""
    pod = Pod("web", "/proc/self/ns/net")
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    machine.wait_for_agent()
    (pid,) = machine.agents()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not machine.agents())
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    assert not machine.agents()


def test_not_beside_one_that_hangs_or_listens(machine: Machine) -> None:
    pod = Pod("web", "/proc/self/ns/net")
    assert machine.start("ADD", pod, BROKEN).finish() == 1
    pid = machine.wait_for_agent()
    machine.allow()
    os.kill(pid, signal.SIGSTOP)
    assert machine.start("ADD", pod, BROKEN).finish() == 1  # after the two seconds
    assert machine.agents() == [pid]
    assert machine.ended() == 0


@pytest.mark.parametrize("where", ["network", "mount", "pid"])
def test_not_in_other_namespaces(machine: Machine, where: str) -> None:
    pod = Pod("web", "/proc/self/ns/net")
    other = {"network": "--net", "mount": "--mount", "pid": "--pid"}[where]
    plugin = ("unshare", other, "--fork", machine.folder / "bin" / "netplug")
    done = subprocess.run(
        machine.command(*plugin),
        env={"PATH": os.environ["PATH"], **pod.environ("ADD", "/x")},
        input=json.dumps(BROKEN).encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1 and b'"code"' in done.stdout
    assert not machine.agents()
    assert not machine.socket.parent.exists()
