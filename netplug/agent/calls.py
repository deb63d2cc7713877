"""One plugin call inside the agent: whose it is, and the work on it.

Nothing is opened by a path that a caller names: the sandbox comes as a descriptor.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netplug.agent.protocol import OWN_DESCRIPTORS, Call
from netplug.cni.main import serve
from netplug.cni.protocol import Request, parse_request
from netplug.cni.verbs import Log, is_ipam_call, is_names_call
from netplug.config import is_ours
from netplug.dns.service import Supervisor
from netplug.engine import Engine
from netplug.errors import DelegateError, NetplugError, RequestError
from netplug.host import Host
from netplug.kernel import namespaces
from netplug.state import Record, State
from netplug.statefile import FILE

CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
KINDS = (namespaces.CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUSER)  # order of the own descriptors
HOSTS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    stdout: bytes
    stderr: bytes


class Hosts:
    """The host namespaces that were seen, each with its identity and its open sockets.

    A host's descriptor is kept open, so that its inode number cannot mean another one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[tuple[int, int], _Held] = {}
        self.logs: dict[int | None, int | None] = {}  # of state files that were opened, by inode

    @contextmanager
    def use(self, fd: int) -> Iterator[Host]:
        """The host behind `fd`; it stays open meanwhile, even if it is forgotten."""
        key = namespaces.identity(fd)
        with self._lock:
            held = self._held.get(key)
            if held is None:
                while len(self._held) >= HOSTS_KEPT:
                    self._drop(next(iter(self._held)))
                held = self._held[key] = _Held(Host(fd, warm=True))
            held.users += 1
        try:
            yield held.host
        finally:
            with self._lock:
                held.users -= 1
                if not held.users and self._held.get(key) is not held:
                    held.host.close()

    @contextmanager
    def find(self, host_id: str) -> Iterator[Host | None]:
        """The host of that id: the agent's own, or one that has called; else None."""
        own = namespaces.own_namespace()
        try:
            with self._lock:
                known = [held.host.fd for held in self._held.values() if held.host.id == host_id]
                fd = os.dup(known[0]) if known else os.dup(own)
            try:
                with self.use(fd) as host:
                    yield host if host.id == host_id else None
            finally:
                os.close(fd)
        finally:
            os.close(own)

    def forget(self) -> None:
        with self._lock:
            for key in tuple(self._held):
                self._drop(key)

    def _drop(self, key: tuple[int, int]) -> None:
        held = self._held.pop(key)
        if not held.users:
            held.host.close()


@dataclass(slots=True)
class _Held:
    host: Host
    users: int = 0


class Worker:
    """What one thread of the agent keeps between calls: its connection to the state file."""

    def __init__(
        self,
        hosts: Hosts,
        folder: Path,
        names: Supervisor,
        join: Callable[[dict[str, Any]], None] = lambda config: None,
    ) -> None:
        """`join`: makes this node a member of the overlay network of that configuration."""
        self.hosts, self.folder, self.names, self.join = hosts, folder, names, join
        self._state: State | None = None
        self._own = tuple(
            namespaces.identity_of(f"/proc/self/ns/{name}") for name in ("mnt", "user")
        )

    @property
    def state(self) -> State:
        if self._state is not None and not self._state.current:
            self._state.close()
            self._state = None
        if self._state is None:
            self._state = State(self.folder)
            self.hosts.logs.setdefault(_inode(self.folder / FILE), self._log())
        return self._state

    def _log(self) -> int | None:
        """SQLite's write-ahead log: as long as any thread has the file open, it stays."""
        return _inode(self.folder / f"{FILE}-wal")

    def lost_state(self) -> bool:
        """Has somebody taken the log away under us, as whoever puts an older file in place may?

        The connections of all threads then disagree with the file, and each new one joins them:
        nothing but a new process can read it.
        """
        known = self.hosts.logs.get(_inode(self.folder / FILE))
        return known is not None and known != self._log()

    def parse(self, call: Call) -> Request | None:
        """None for a wrong call: the answer will be an error, and needs no kernel."""
        try:
            return parse_request(call.environ, lambda: call.stdin)
        except NetplugError:
            return None

    def refusal(self, call: Call, request: Request | None, descriptors: list[int]) -> str:
        """Why the call is not ours to serve; "" when it is. Raises RequestError for a false one."""
        for fd, kind in zip(descriptors, KINDS, strict=False):
            _demand_kind(fd, kind)
        if call.has_sandbox and fcntl.fcntl(descriptors[OWN_DESCRIPTORS], fcntl.F_GETFD) < 0:
            raise RequestError("the sandbox's descriptor is closed")
        theirs = tuple(namespaces.identity(fd) for fd in descriptors[1:OWN_DESCRIPTORS])
        if theirs != self._own:
            return "the caller lives in another mount or user namespace"
        if request is None or call.is_command:
            return ""
        if is_names_call(request, call.program):  # it never executes a plugin
            return ""
        configs = [] if is_ipam_call(request, call.program) else [request.config]
        for config in configs + self._recorded(request, descriptors[0]):
            if not is_ours(plugin := _ipam_plugin(config)):
                return f"the foreign plugin {plugin} must be executed by the caller"
        section = request.config.get("ipam")
        if isinstance(section, dict) and section.get("resolvConf"):
            return "the file that ipam.resolvConf names must be opened by the caller"
        return ""

    def _recorded(self, request: Request, host_fd: int) -> list[dict[str, object]]:
        """Configurations of what the call may remove; where they cannot be read, the work fails."""
        name = str(request.config.get("name"))
        column, key = "owner", f"{name}/{request.container}/{request.ifname}"
        if request.command == "GC":
            column, key = "network", name
        elif request.command not in ("ADD", "DEL"):
            return []
        try:
            with self.hosts.use(host_fd) as host:
                rows = self.state.connection.execute(
                    f"SELECT config FROM records WHERE host=? AND {column}=?", (host.id, key)
                ).fetchall()
        except (NetplugError, sqlite3.Error):
            return []
        return [json.loads(config) for (config,) in rows]

    def work(
        self,
        call: Call,
        request: Request | None,
        descriptors: list[int],
        awaited: Callable[[], bool],
    ) -> Answer:
        """Serves the call. The answer is what a plugin prints, and its exit status.

        `awaited`: does the launcher still wait for it?
        """
        lines: list[str] = []
        around = _Handed(self, call, descriptors, awaited)
        # this thread is on the caller's host meanwhile, and so need not enter it for each look
        stdout, failed = namespaces.in_namespace(
            descriptors[0],
            lambda: serve(
                call.environ,
                lambda: call.stdin,
                program=call.program,
                log=lines.append,
                around=around,
                request=request,
            ),
        )
        stderr = "".join(f"{line}\n" for line in lines)
        return Answer(int(failed), stdout.encode(), stderr.encode(errors="replace"))


class _Handed:
    """`cni.verbs.Surroundings` out of the descriptors that came with a call."""

    def __init__(
        self, worker: Worker, call: Call, descriptors: list[int], awaited: Callable[[], bool]
    ) -> None:
        self._worker, self._call, self._descriptors = worker, call, descriptors
        self._awaited = awaited

    @contextmanager
    def engine(self, request: Request, log: Log) -> Iterator[Engine]:
        with self._worker.hosts.use(self._descriptors[0]) as host:
            yield Engine(
                self._worker.state,
                host,
                log,
                self.open_sandbox,
                demand_own_ipam,
                self._awaited,
                self._worker.names.client(log),
                lambda network: self._worker.join(network.raw),
            )

    def open_sandbox(self, path: str) -> int | None:
        """The handed descriptor for the path of this call; a record's own path is opened anew
        (the engine then compares the namespace's cookie)."""
        if path != self._call.environ.get("CNI_NETNS", ""):
            return namespaces.open_namespace(path)
        if not self._call.has_sandbox:
            return None
        return namespaces.demand_namespace(os.dup(self._descriptors[OWN_DESCRIPTORS]), path)

    def own_namespace(self) -> int:
        return os.dup(self._descriptors[0])

    def state_folder(self) -> Path:
        return self._worker.folder


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _ipam_plugin(config: Mapping[str, object]) -> str:
    """The IPAM plugin's type; ours where there is none."""
    section = config.get("ipam")
    return str(section.get("type") or "netplug") if isinstance(section, dict) else "netplug"


def demand_own_ipam(record: Record) -> None:
    """`refusal` finds these beforehand, but for what an ADD clears away where addresses run out."""
    if not is_ours(plugin := _ipam_plugin(record.config)):
        raise DelegateError(
            f"the address of {record.owner} is not given back",
            f"that takes the plugin {plugin}, and the agent executes none",
            "run: netplug gc",
            started=False,
        )


def _demand_kind(fd: int, kind: int) -> None:
    try:
        found = fcntl.ioctl(fd, namespaces.NS_GET_NSTYPE)
    except OSError as error:
        what = "a descriptor of the call is no namespace"
        raise RequestError(what, error.strerror or "") from error
    if found != kind:
        raise RequestError("a descriptor of the call is a namespace of another kind")
