"""Command lines inside the agent: parsed by the grammar of `netplug.cli`, printed by its client.

Only what reads or changes attachments is served. A path that the caller names is opened by
the caller, who passes the descriptor; nothing is executed. Whatever else a command needs
is refused before anything is changed, and the caller's own process does it.
"""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

from netplug import __version__
from netplug.agent import wire
from netplug.agent.calls import Worker, demand_own_ipam
from netplug.agent.protocol import Call, render_frame
from netplug.agent.streams import Said, directed
from netplug.cli import run
from netplug.cli.context import Context
from netplug.cli.output import warn
from netplug.cni.conflist import Conflist
from netplug.config import is_ours
from netplug.engine import Engine
from netplug.kernel import namespaces

REMOVING = ("connect", "disconnect", "gc", "repair")  # what meets records of foreign IPAM plugins
FOREIGN = (
    "SELECT json_extract(config, '$.ipam.type') AS type FROM records"
    " WHERE host=? AND type != '' AND type != 'netplug' AND type NOT LIKE 'netplug-%' LIMIT 1"
)


class NotMine(BaseException):
    """Nothing was changed, and the caller must do it; no error of the command's own."""


class Desk:
    """One command of one caller: its words, its output, and the files that the caller opens."""

    def __init__(self, connection: socket.socket, call: Call) -> None:
        self.environ: Mapping[str, str] = call.environ
        self.words = [os.fsdecode(word) for word in call.stdin.split(b"\0")]
        self.opened: dict[str, int] = {}
        self.said = Said(self.environ, self.environ.get(wire.TERMINALS, ""))
        self._connection = connection

    def open(self, path: str) -> None:
        """Has the caller open this file; the descriptor is `opened`. Raises OSError."""
        if path not in self.opened:
            self._connection.sendall(render_frame(b"O", os.fsencode(path)))
            self.opened[path] = _receive_descriptor(self._connection)

    def close(self) -> None:
        for fd in self.opened.values():
            os.close(fd)


def _receive_descriptor(connection: socket.socket) -> int:
    """Raises OSError: the caller's own; ConnectionError where it breaks the protocol."""
    room = socket.CMSG_SPACE(4)
    data, ancillary, flags, _ = connection.recvmsg(4, room, socket.MSG_CMSG_CLOEXEC)
    numbers = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers.frombytes(payload[: len(payload) // 4 * 4])
    error = int.from_bytes(data, "little")
    if len(data) == 4 and not error and len(numbers) == 1 and not flags & socket.MSG_CTRUNC:
        return numbers[0]
    for fd in numbers:
        os.close(fd)
    if len(data) == 4 and error:
        raise OSError(error, os.strerror(error))
    raise ConnectionError("the caller passed no descriptor")


class HandedContext(Context):
    """A command's surroundings out of what its caller handed over."""

    def __init__(
        self,
        conf_dir: str | None,
        *,
        worker: Worker,
        desk: Desk,
        host_fd: int,
        awaited: Callable[[], bool],
    ) -> None:
        super().__init__(conf_dir, desk.environ)
        self._worker, self._desk, self._host_fd = worker, desk, host_fd
        self._awaited = awaited
        self._removes = desk.words[0] in REMOVING
        if conf_dir or self.environ.get("NETCONFPATH"):
            raise NotMine("the folder of network files is the caller's")
        if self.state_folder != worker.folder:
            raise NotMine("the state folder is another one")

    @contextmanager
    def engine(self) -> Iterator[Engine]:
        state = self._worker.state
        with self._worker.hosts.use(self._host_fd) as host:
            foreign = state.connection.execute(FOREIGN, (host.id,)).fetchone()
            if foreign and self._removes:
                raise NotMine(f"the foreign plugin {foreign[0]} must be executed by the caller")
            yield Engine(
                state,
                host,
                warn,
                self._open_sandbox,
                demand_own_ipam,
                self._awaited,
                self._worker.names.client(warn),
                lambda network: self._worker.join(network.raw),
            )

    def _open_sandbox(self, path: str) -> int | None:
        """What the command has named, by the caller's descriptor; a record's own path is opened
        here (the engine then compares the namespace's cookie)."""
        fd = self._desk.opened.get(path)
        if fd is None:
            return namespaces.open_namespace(path)
        return namespaces.demand_namespace(os.dup(fd), path)

    @property
    def folder(self) -> str:
        return self.environ.get(wire.FOLDER, "/")

    def exists(self, path: str) -> bool:
        try:
            self._desk.open(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:
            raise NotMine(f"{path} cannot be opened") from error
        return True

    def execute(self, program: str, *words: str) -> NoReturn:
        raise NotMine(f"{program} must be executed by the caller")

    def networks(self) -> list[Conflist]:
        found = super().networks()
        for conflist in found:
            _demand_servable(conflist)
        return found

    def network(self, name: str) -> Conflist:
        found = super().network(name)
        _demand_servable(found)
        return found


def _demand_servable(conflist: Conflist) -> None:
    """The same that a plugin call is refused for."""
    for plugin in conflist.plugins:
        section = plugin.get("ipam")
        if not isinstance(section, dict):
            continue
        if not is_ours(str(section.get("type") or "netplug")) or section.get("resolvConf"):
            raise NotMine("the network's addresses must be got by the caller")


def run_command(
    worker: Worker,
    connection: socket.socket,
    call: Call,
    *,
    host_fd: int,
    awaited: Callable[[], bool],
) -> tuple[int, bytes]:
    """The exit status, and the frames that tell of it. Raises NotMine, and has done nothing."""
    if call.environ.get(wire.VERSION) != __version__:
        raise NotMine("the caller is of another version")
    desk = Desk(connection, call)
    if desk.words[0] not in wire.SERVED:
        raise NotMine("the agent serves commands about attachments alone")

    def make_context(conf_dir: str | None) -> Context:
        return HandedContext(conf_dir, worker=worker, desk=desk, host_fd=host_fd, awaited=awaited)

    try:
        with directed(desk.said):
            status = run(desk.words, make_context, width=_help_width(desk.environ))
    finally:
        desk.close()
    frames = [
        render_frame(stream.encode(), text.encode("utf-8", "surrogateescape"))
        for stream, text in desk.said.parts
    ]
    return status, b"".join([*frames, render_frame(b"E", bytes([status & 255]))])


def _help_width(environ: Mapping[str, str]) -> int:
    """Columns of help texts, as they are computed for a terminal of one's own."""
    columns = environ.get("COLUMNS", "")
    return max(min(int(columns) if columns.isdigit() else 80, 80) - 2, 50)
