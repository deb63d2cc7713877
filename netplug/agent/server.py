"""The agent: one warm process for each host that serves plugin calls over a unix socket.

It is only faster than a process for each call, never different: the same engine
works on the same state file, so it may be killed and missed at any time.
"""

from __future__ import annotations

import array
import json
import logging
import os
import select
import signal
import socket
import sqlite3
import struct
import threading
import time
from pathlib import Path
from typing import Any

from netplug import __version__
from netplug.agent import logs
from netplug.agent.calls import Answer, Hosts, Worker
from netplug.agent.gauges import read_state
from netplug.agent.logs import event
from netplug.agent.metrics import COMMAND, Metric, Requests, Source, render_metrics
from netplug.agent.names import read_names
from netplug.agent.overlay import Overlay
from netplug.agent.protocol import (
    ANSWER_MS,
    BEGIN,
    GO,
    HEADER_BYTES,
    OWN_DESCRIPTORS,
    Call,
    parse_header,
    parse_payload,
    render_answer,
    render_frame,
    render_refusal,
)
from netplug.agent.renewal import Renewal, say
from netplug.codec import encode
from netplug.dns.service import Supervisor
from netplug.errors import Conflict, NetplugError, RequestError
from netplug.locks import locked
from netplug.overlay.settings import DEFAULT_FILE

CONTROL = b"NPC1"  # magic of a control request: a line of JSON follows, and answers
BACKLOG = 1024
THREADS = 4  # callers at once: netlink waits, and more only take turns at the interpreter
INHERITED = 3  # the first descriptor that systemd passes (SD_LISTEN_FDS_START)
STOP_SECONDS = 0.2  # how long a request to stop may wait
PATIENCE = 5.0  # seconds for a launcher to finish its part of the exchange
LINE_BYTES = 1 << 20  # of a control request: a network's file may be in it
CREDENTIALS = struct.Struct("iII")
HTTP = "HTTP/1.0 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\r\n"


class Agent:
    """Listens on `path` until `stop`. `folder` is the state's."""

    def __init__(self, path: Path, folder: Path, config: Path = DEFAULT_FILE) -> None:
        self.path, self._folder = path, folder
        self._hosts = Hosts()
        self._name_server = Supervisor(path.parent, folder, external=_is_inherited())
        self.overlay = Overlay(folder, path.parent, config)
        self._stopping = False
        self.requests = Requests()
        self.sources: list[Source] = [
            self.requests.read,
            lambda: read_state(folder),
            lambda: read_names(path.parent),
        ]
        self.started = time.time()

    def run(self, listener: socket.socket) -> None:
        """Serves until a signal or `stop`; the calls that have begun are finished first."""
        event("listening", socket=self.path, version=__version__, pid=os.getpid())
        threads = [
            threading.Thread(target=self._serve_calls, args=(listener,), name=f"call-{n}")
            for n in range(THREADS)
        ]
        renewal = Renewal(self._folder, self._hosts.find, lambda: self._name_server.client(say))
        renewal.start()
        for thread in threads:
            thread.start()
        self.overlay.start()
        while not self._stopping:  # a signal's handler runs between two sleeps
            time.sleep(STOP_SECONDS)
            self._name_server.watch()
        renewal.stop()
        _wake(listener, len(threads), str(self.path))
        for thread in threads:
            thread.join()
        self.overlay.stop()
        listener.close()
        event("stopped")

    def stop(self) -> None:
        self._stopping = True

    def _serve_calls(self, listener: socket.socket) -> None:
        """One thread: takes a call, serves it, takes the next."""
        worker = Worker(self._hosts, self._folder, self._name_server, self.overlay.join)
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                if self._stopping:
                    return
                raise
            with connection:
                if self._stopping:  # whoever it is works in one process
                    return
                connection.settimeout(PATIENCE)
                with logs.request():
                    self._serve(worker, connection)

    def _serve(self, worker: Worker, connection: socket.socket) -> None:
        """One request; whatever goes wrong with it does not end the agent."""
        try:
            _demand_trusted(connection)
            header, descriptors = _receive_header(connection)
            if header:
                self._serve_request(worker, connection, header, descriptors)
        except (OSError, NetplugError) as error:
            event("ended early", logging.WARNING, why=error)
        except Exception:
            event("failed", logging.ERROR)

    def _serve_request(
        self, worker: Worker, connection: socket.socket, header: bytes, descriptors: list[int]
    ) -> None:
        try:
            if header[:4] == b"GET ":
                _receive_http(connection, header)
                connection.sendall(f"{HTTP}{self._render_metrics()}".encode())
                return
            if header[:4] == CONTROL:
                self._control(connection, header[4:])
                return
            payload = _receive(connection, parse_header(header))
            call = parse_payload(payload)
            if len(descriptors) != call.descriptors:
                raise RequestError(f"{len(descriptors)} descriptors came, not {call.descriptors}")
            self._serve_call(worker, connection, call, descriptors)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _serve_call(
        self, worker: Worker, connection: socket.socket, call: Call, descriptors: list[int]
    ) -> None:
        names = _names(call)
        verb = names["verb"]
        request = worker.parse(call)
        refusal = worker.refusal(call, request, descriptors)
        if not refusal and worker.lost_state():
            refusal = "the state file's log was taken away; this agent ends"
            self.stop()
        if refusal:
            self.requests.count(verb, "refused")
            event("refused", **names, why=refusal)
            connection.sendall(render_refusal(refusal))
            return
        connection.sendall(BEGIN)
        if connection.recv(1) != GO:  # the launcher has given up and works itself
            self.requests.count(verb, "abandoned")
            event("abandoned", **names)
            return
        if call.is_command:
            self._serve_command(worker, connection, call, descriptors[0])
            return
        began = time.perf_counter()
        answer = worker.work(call, request, descriptors, lambda: _is_open(connection))
        seconds = time.perf_counter() - began
        self.requests.count(verb, "error" if answer.status else "ok", seconds)
        connection.sendall(render_answer(answer.status, answer.stdout, answer.stderr))
        for line in answer.stderr.decode(errors="replace").splitlines():
            event("said", logging.WARNING, **names, text=line)
        event("served", **names, status=answer.status, code=_code(answer), ms=_ms(seconds))

    def _serve_command(
        self, worker: Worker, connection: socket.socket, call: Call, host_fd: int
    ) -> None:
        from netplug.agent import commands  # with typer and all commands: not in every agent

        names = _names(call)
        began = time.perf_counter()
        try:
            status, frames = commands.run_command(
                worker, connection, call, host_fd=host_fd, awaited=lambda: _is_open(connection)
            )
        except commands.NotMine as refusal:
            self.requests.count(COMMAND, "refused")
            event("refused", **names, why=refusal)
            connection.sendall(render_frame(b"N", str(refusal).encode(errors="replace")))
            return
        seconds = time.perf_counter() - began
        self.requests.count(COMMAND, "error" if status else "ok", seconds)
        connection.sendall(frames)
        event("served", **names, status=status, ms=_ms(seconds))

    def _control(self, connection: socket.socket, head: bytes) -> None:
        """status, metrics, reload, names, stop: one line of JSON each way."""
        line = head + _receive_line(connection)
        request = json.loads(line)
        command = request.get("command") if isinstance(request, dict) else None
        if command == "status":
            answer: object = self._status()
        elif command == "metrics":
            answer = {"text": self._render_metrics()}
        elif command == "reload":
            self._hosts.forget()
            answer = {"reloaded": True}
        elif command == "names":
            answer = {"running": self._name_server.ensure()}
        elif command == "stop":  # a signal ends the agent alone: names are answered on
            self._name_server.stop()
            self.stop()
            answer = {"stopping": True}
        elif isinstance(command, str) and command.startswith("overlay-"):
            answer = self._control_overlay(request)
        else:
            answer = {"error": f"unknown command {command!r}"}
        event("control", command=command)
        connection.sendall(json.dumps(answer).encode() + b"\n")

    def _render_metrics(self) -> str:
        """Of every source that can be read: one that is gone takes no other numbers away."""
        found: list[Metric] = []
        for source in self.sources:
            try:
                found += source()
            except (sqlite3.Error, NetplugError) as error:
                event("no metrics", logging.WARNING, why=error)
        return render_metrics(found)

    def _control_overlay(self, request: dict[str, Any]) -> object:
        try:
            return encode(self.overlay.control(request))
        except NetplugError as error:
            return {"refused": [type(error).__name__, error.what, error.why, error.hint]}

    def _status(self) -> dict[str, object]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self.started, 3),
            "socket": str(self.path),
            "state": str(self._folder),
            "calls": self.requests.total,
        }


def _demand_trusted(connection: socket.socket) -> None:
    """Root, or the user whose agent this is (inside a user namespace)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
    pid, uid, _ = CREDENTIALS.unpack(raw)
    if uid not in (0, os.geteuid()):
        raise RequestError(f"process {pid} of user {uid} may not call", "only root may")


def _receive_header(connection: socket.socket) -> tuple[bytes, list[int]]:
    """The first bytes and the descriptors that came with them, closed on exec."""
    room = socket.CMSG_SPACE(4 * (OWN_DESCRIPTORS + 1))
    data, ancillary, flags, _ = connection.recvmsg(HEADER_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptors: list[int] = []
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) // 4 * 4])
            descriptors += numbers
    try:
        if flags & socket.MSG_CTRUNC:
            raise RequestError("more descriptors came than a call has")
        if not data:
            return data, descriptors  # somebody wanted to know whether we are there
        return data + _receive(connection, HEADER_BYTES - len(data)), descriptors
    except BaseException:
        for fd in descriptors:
            os.close(fd)
        raise


def _receive(connection: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = connection.recv(min(size, 1 << 16))
        if not part:
            raise RequestError("the caller closed in the middle of its request")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _is_open(connection: socket.socket) -> bool:
    """Is the other end still there? A process that was killed has closed it."""
    poll = select.poll()
    poll.register(connection, 0)  # a hang-up is told unasked
    return not poll.poll(0)


def _receive_line(connection: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_BYTES:
        part = connection.recv(4096)
        if not part:
            break
        line += part
    return line


def _receive_http(connection: socket.socket, head: bytes) -> None:
    """The rest of a GET: whatever is asked for over HTTP, it is the metrics."""
    while b"\r\n\r\n" not in head and len(head) < 1 << 16:
        if not (part := connection.recv(4096)):
            return
        head += part


def _names(call: Call) -> dict[str, str]:
    """What the log tells of a call: its own names, and the trace that it belongs to."""
    if call.is_command:
        return {"verb": COMMAND, "command": call.stdin.partition(b"\0")[0].decode(errors="replace")}
    keys = {"verb": "COMMAND", "container": "CONTAINERID", "ifname": "IFNAME"}
    names = {name: call.environ.get(f"CNI_{key}", "") for name, key in keys.items()}
    return {**names, "trace": call.environ.get("TRACEPARENT", "")}


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 1)


def _code(answer: Answer) -> int | None:
    """The CNI error code; the text may quote a configuration, which is not for the log."""
    return json.loads(answer.stdout).get("code") if answer.status else None


# --- starting and stopping


def _wake(listener: socket.socket, threads: int, path: str) -> None:
    """Wakes every thread that waits in accept(2).

    Our own socket is shut down; systemd's must live on for the next agent, so there each
    thread gets a caller that says nothing.
    """
    try:
        for _ in range(threads if _is_inherited() else 0):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nobody:
                nobody.connect(path)
            threads -= 1
    except OSError:  # somebody has removed the path
        pass
    if threads:
        listener.shutdown(socket.SHUT_RDWR)


def listen(path: Path) -> socket.socket:
    """The listening socket: systemd's where it passed one, else a new one at `path`.

    Raises Conflict when another agent answers there.
    """
    if _is_inherited():
        return socket.socket(fileno=INHERITED)
    if not path.parent.is_dir():  # an existing folder's mode is somebody else's choice
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(path.parent, path.name):  # of two that start at once, one finds the other
        _demand_vacant(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        listener.bind(str(path))
        os.chmod(path, 0o600)
        listener.listen(BACKLOG)
    return listener


def _demand_vacant(path: Path) -> None:
    """Nobody answers at `path`; what a killed agent left there is removed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            path.unlink(missing_ok=True)
            return
    raise Conflict(f"an agent runs already on {path}", "it answers", "see: netplug agent status")


def _is_inherited() -> bool:
    """Has systemd passed the listening socket (sd_listen_fds(3))?"""
    ours = os.environ.get("LISTEN_PID") == str(os.getpid())
    return ours and os.environ.get("LISTEN_FDS") == "1"


def serve_forever(path: Path, folder: Path, config: Path = DEFAULT_FILE) -> None:
    """Runs the agent in this process until SIGTERM or SIGINT."""
    listener = listen(path)
    inode = os.stat(path).st_ino
    agent = Agent(path, folder, config)
    _warm_up()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.stop())
    try:
        agent.run(listener)
    finally:
        if not _is_inherited() and path.exists() and os.stat(path).st_ino == inode:
            path.unlink()


def _warm_up() -> None:
    """Imports what the first call would wait for, and keeps it out of every later collection."""
    import gc

    import pydantic  # noqa: F401

    from netplug import engine  # noqa: F401
    from netplug.firewall import nft  # noqa: F401
    from netplug.plugins import bridge  # noqa: F401

    gc.collect()
    gc.freeze()


def control(
    path: Path, command: str, *, patience: float = ANSWER_MS / 1000, **more: object
) -> dict[str, object]:
    """Asks the running agent. Raises ConnectionError or FileNotFoundError when there is none,
    TimeoutError when it hangs."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(patience)
        connection.connect(str(path))
        request = {"command": command, **more}
        connection.sendall(CONTROL + json.dumps(request).encode() + b"\n")
        answer = b""
        while part := connection.recv(1 << 16):
            answer += part
    found: dict[str, object] = json.loads(answer)
    return found
