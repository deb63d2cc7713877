"""A command line handed to the agent, so that none of its code must be loaded here.

The agent parses it by the same grammar and works by the same engine. This process opens the
files that the command names, for the agent opens nothing by a caller's path, and prints
what the agent says. Where the agent does not take it, or there is none, nothing has happened.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time
from collections.abc import Sequence

from netplug import __version__
from netplug.agent import launcher, wire

PATIENCE = 3600.0  # seconds for the whole command
LOST = (
    "error: the agent ended while it worked on this command: it may be done or half done\n"
    "       see: netplug ps; what was begun is on record, and netplug gc removes it\n"
)
BUSY, BROKEN_PIPE = 7, 141  # exit statuses


def agent_socket() -> str:
    folder = posix.environ.get(b"NETPLUG_RUN", b"").decode(errors="surrogateescape")
    return f"{folder}/agent.sock" if folder else wire.SOCKET


def hand_over(arguments: Sequence[str]) -> int | None:
    """The exit status of the command; None where no agent has taken it."""
    completing = b"_NETPLUG_COMPLETE" in posix.environ  # a shell asks what could follow
    if completing or not arguments or arguments[0] not in wire.SERVED or not _is_plain():
        return None
    launcher.SOCKET, launcher.MAGIC = agent_socket(), wire.MAGIC
    launcher.ANSWER_MS = wire.ANSWER_MS
    words = b"\0".join(word.encode(errors="surrogateescape") for word in arguments)
    agent = _begin(_render_variables() + words)
    if agent is None:
        return None
    try:
        return _follow(agent)
    except OSError:
        launcher.put(2, LOST.encode())
        return BUSY


def _is_plain() -> bool:
    """Both streams are there and take UTF-8, as the agent writes it."""
    streams = (sys.stdout, sys.stderr)
    return all(stream is not None and stream.encoding == "utf-8" for stream in streams)


def _begin(command: bytes) -> _socket.socket | None:
    fds: list[int] = []
    try:
        fds += [posix.open(path, posix.O_RDONLY) for path in launcher.OWN]
        return launcher.begin(command, wire.COMMAND, fds)
    except OSError:
        return None
    finally:
        for fd in fds:
            posix.close(fd)


def _render_variables() -> bytes:
    found = {
        name: posix.environ[name.encode()]
        for name in (*wire.SETTINGS, *wire.TERMINAL)
        if name.encode() in posix.environ
    }
    found[wire.FOLDER] = posix.getcwd().encode(errors="surrogateescape")
    found[wire.TERMINALS] = b"".join(b"%d" % fd for fd in (1, 2) if posix.isatty(fd))
    found[wire.VERSION] = __version__.encode()
    if "COLUMNS" not in found and b"1" in found[wire.TERMINALS]:
        found["COLUMNS"] = b"%d" % (posix.get_terminal_size(1).columns or 80)
    return b"".join(
        [b"PROGRAM=netplug\0"]
        + [name.encode() + b"=" + value + b"\0" for name, value in found.items()]
        + [b"\0"]
    )


def _follow(agent: _socket.socket) -> int | None:
    """Does what the agent asks for until it says the exit status, or that nothing was done."""
    deadline = time.monotonic() + PATIENCE
    while True:
        head = launcher.receive(agent, 5, deadline)
        data = launcher.receive(agent, int.from_bytes(head[1:], "little"), deadline)
        kind = head[:1]
        if kind == b"O":
            _open_for(agent, data)
        elif kind in (b"1", b"2"):
            if not launcher.put(int(kind), data):
                return BROKEN_PIPE
        elif kind == b"E":
            return data[0]
        elif kind == b"N":
            return None
        else:
            raise ConnectionError


def _open_for(agent: _socket.socket, path: bytes) -> None:
    """Passes a file's descriptor, or says why there is none."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK)
    except OSError as error:
        agent.sendall((error.errno or 1).to_bytes(4, "little"))
        return
    rights = fd.to_bytes(4, sys.byteorder)
    agent.sendmsg([bytes(4)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)])
    posix.close(fd)
