"""Agents for tests: started, killed at a chosen moment, and spoken to byte by byte.

A `Station` is one socket and one state folder. What stands between a launcher and an agent
(`Relay`) passes the exchange on and can end either of them at each of its steps.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from attaching import STATE

from netplug.agent import protocol, server, service
from netplug.kernel import namespaces, nfnetlink, rtnl, sockdiag

if TYPE_CHECKING:
    from conftest import Host

PATIENCE = 30.0  # seconds for what must come
OWN_KINDS = ("mnt", "user")


def wait_for(done: Callable[[], object], what: str = "it") -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.01)


@dataclass(slots=True)
class Station:
    """One socket and one state folder, with at most one agent, a child of this process."""

    socket: Path
    folder: Path = STATE
    log: Path | None = None
    pid: int = 0

    def start(self) -> None:
        """An agent as `netplug agent start` makes it, ready to serve."""
        with open(self.log or "/dev/null", "ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", "-m", "netplug.agent", str(self.socket), str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        process.returncode = 0  # this class waits for it
        self.adopt(process.pid)

    def fork(self, sabotage: Callable[[], None] = lambda: None) -> None:
        """An agent in a forked child, where `sabotage` may replace parts of it first."""
        pid = os.fork()
        if not pid:
            try:
                sabotage()
                server.serve_forever(self.socket, self.folder)
            finally:
                os._exit(0)
        self.adopt(pid)

    def fork_configured(self, config: Path, sabotage: Callable[[], None]) -> None:
        """As `fork`, with an agent.toml; the child is in the calling thread's namespace."""
        pid = os.fork()
        if not pid:
            try:
                sabotage()
                server.serve_forever(self.socket, self.folder, config)
            finally:
                os._exit(0)
        self.adopt(pid)

    def adopt(self, pid: int) -> None:
        """A child that is becoming the agent; returns once it answers."""
        self.pid = pid
        wait_for(lambda: (self.status() or {}).get("pid") == pid, "the agent")

    def status(self) -> dict[str, object] | None:
        return service.read_status(self.socket)

    def metrics(self) -> dict[str, float]:
        return parse_metrics(str(server.control(self.socket, "metrics")["text"]))

    def counted(self, verb: str, result: str) -> int:
        """How many calls of this verb ended so."""
        name = f'netplug_requests_total{{verb="{verb}",result="{result}"}}'
        return int(self.metrics().get(name, 0))

    def stop(self) -> None:
        if self.pid:
            service.stop(self.socket)
            self.wait()

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)
        self.wait()

    def wait(self) -> int:
        """The wait status of the agent that has ended or is about to."""
        status = os.waitpid(self.pid, 0)[1]
        self.pid = 0
        return status

    def end(self) -> None:
        """Whatever it does: it is gone, and so is its socket."""
        if self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.wait()
        self.socket.unlink(missing_ok=True)

    def descriptors(self) -> list[str]:
        """What the agent has open, without numbers of sockets and namespaces."""
        folder = f"/proc/{self.pid}/fd"
        found = []
        for name in os.listdir(folder):
            with suppress(FileNotFoundError):
                found.append(os.readlink(f"{folder}/{name}").partition("[")[0])
        return sorted(found)

    def resident(self) -> int:
        """KiB of memory."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition("VmRSS:")[2].split()[0])


SAMPLE = re.compile(r'[a-z_]+(\{([a-z]+="[^"\\\n]*",?)+\})? \S+')


def parse_metrics(text: str) -> dict[str, float]:
    """Every sample of a Prometheus text by name with labels; a line of another form fails."""
    samples = {}
    described: dict[str, set[str]] = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# "):
            _, word, metric, _ = line.split(maxsplit=3)
            described.setdefault(metric, set()).add(word)
            continue
        metric = next(reversed(described))  # its samples follow its description
        assert line.startswith(metric) and described[metric] == {"HELP", "TYPE"}, line
        assert SAMPLE.fullmatch(line), line
        name, _, value = line.rpartition(" ")
        assert name not in samples, line
        samples[name] = float(value)
    return samples


# --- an agent that dies while it changes the kernel


def dies_after(number: int) -> Callable[[], None]:
    """The process ends itself right after its n-th netlink request was sent."""

    def sabotage() -> None:
        count = itertools.count(1)

        class Mortal(socket.socket):
            def send(self, *arguments: object) -> int:
                sent = super().send(*arguments)  # type: ignore[arg-type]
                if next(count) == number:
                    os.kill(os.getpid(), signal.SIGKILL)
                return sent

        def make(fd: int, family: int) -> socket.socket:
            kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            return namespaces.in_namespace(fd, lambda: Mortal(socket.AF_NETLINK, kind, family))

        for module in (rtnl, nfnetlink, sockdiag):
            module.netlink_socket = make  # type: ignore[attr-defined]

    return sabotage


# --- callers without a launcher


def render_request(environ: Mapping[str, str], stdin: bytes, flags: int | None = None) -> bytes:
    """The frame of a call; with the flag of a sandbox where CNI_NETNS says one."""
    if flags is None:
        flags = protocol.HAS_SANDBOX if environ.get("CNI_NETNS") else 0
    variables = {"PROGRAM": "netplug", **environ}
    text = b"".join(f"{key}={value}".encode() + b"\0" for key, value in variables.items())
    payload = bytes([flags]) + text + b"\0" + stdin
    return protocol.MAGIC + struct.pack("<I", len(payload)) + payload


@contextmanager
def open_descriptors(*paths: str) -> Iterator[list[int]]:
    fds = [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]
    try:
        yield fds
    finally:
        for fd in fds:
            os.close(fd)


def paths_of(host: Host, netns: str = "") -> list[str]:
    """What a launcher on this host would open."""
    return [host.path, *(f"/proc/self/ns/{kind}" for kind in OWN_KINDS), *filter(None, [netns])]


@contextmanager
def connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        yield connection


def exchange(path: Path, data: bytes, fds: Sequence[int] = (), *, hang_up: bool = False) -> bytes:
    """Everything that the agent says to these bytes; it is told to go where it asks.

    With `hang_up` nothing more comes from us, and the agent can see that.
    """
    with connected(path) as connection:
        said = b""
        with suppress(BrokenPipeError, ConnectionResetError):  # refused before it was all said
            sent = socket.send_fds(connection, [data], list(fds)) if fds else 0
            if rest := data[sent:]:
                connection.sendall(rest)
            if hang_up:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while part := connection.recv(1 << 16):
                said += part
                if said == protocol.BEGIN and not hang_up:
                    connection.sendall(protocol.GO)
        return said


def ask(path: Path, host: Host, environ: Mapping[str, str], stdin: bytes) -> tuple[int, bytes]:
    """Exit status and stdout of a call that the agent serves."""
    with open_descriptors(*paths_of(host, environ.get("CNI_NETNS", ""))) as fds:
        said = exchange(path, render_request(environ, stdin), fds)
    assert said[:2] == b"BR", said
    out = int.from_bytes(said[3:7], "little")
    return said[2], said[11 : 11 + out]


# --- between a launcher and an agent

STEPS = (
    "half of the request",
    "the request",
    "ready",
    "ready was told",
    "go",
    "the answer",
    "half of the answer",
)
# Given the launcher's process id and the connection to the agent, ends somebody
Victim = Callable[[int, socket.socket], None]


def end_launcher(pid: int, agent: socket.socket) -> None:
    """Its connection goes with it, before its parent can know of its end."""
    agent.close()
    os.kill(pid, signal.SIGKILL)


@dataclass(slots=True)
class Relay:
    """Passes one exchange from `front` on to `back`, and at `step` calls `victim`, then hangs up.

    "ready" and "the answer" are the moments before the launcher gets them; "go" is the one
    after the agent has got it.
    """

    front: Path
    back: Path
    step: str
    victim: Victim
    reached: bool = False
    _errors: list[BaseException] = field(default_factory=list)

    @contextmanager
    def running(self) -> Iterator[Relay]:
        self.front.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self.front))
            listener.listen()
            thread = threading.Thread(target=self._serve, args=(listener,))
            thread.start()
            try:
                yield self
            finally:
                with suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                thread.join()
                self.front.unlink()
        assert not self._errors, self._errors

    def _serve(self, listener: socket.socket) -> None:
        try:
            launcher, _ = listener.accept()
            with launcher, connected(self.back) as agent:
                launcher.settimeout(PATIENCE)
                self._pass(launcher, agent)
        except BaseException as error:
            self._errors.append(error)

    def _pass(self, launcher: socket.socket, agent: socket.socket) -> None:
        raw = launcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        pid = server.CREDENTIALS.unpack(raw)[0]

        def end_at(step: str) -> bool:
            if step == self.step:
                self.reached = True
                self.victim(pid, agent)
            return self.reached

        header, fds, _, _ = socket.recv_fds(launcher, protocol.HEADER_BYTES, 16)
        payload = _receive(launcher, protocol.parse_header(header))
        half = len(payload) // 2
        socket.send_fds(agent, [header], fds)
        for fd in fds:
            os.close(fd)
        agent.sendall(payload[:half])
        if end_at("half of the request"):
            return
        agent.sendall(payload[half:])
        if end_at("the request"):
            return
        ready = _receive(agent, 1)
        assert ready == protocol.BEGIN
        if end_at("ready"):
            return
        launcher.sendall(ready)
        go = _receive(launcher, 1)
        assert go == protocol.GO
        if end_at("ready was told"):
            return
        agent.sendall(go)
        if end_at("go"):
            return
        answer = b""
        while part := agent.recv(1 << 16):
            answer += part
        if end_at("the answer"):
            return
        launcher.sendall(answer[: len(answer) // 2])
        end_at("half of the answer")


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = connection.recv(size - len(data))
        assert part
        data += part
    return data
