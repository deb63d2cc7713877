"""What is said over the name server's control socket: one line of JSON each way, again and again.

    {"command": "sync", "state": INODE, "host": ID, "owner": OWNER}   and descriptors: the
        host's network namespace, then the sandbox's where it is alive
    {"command": "status" | "stats" | "flush" | "stop"}
    {"command": "records", "host": ID}
    {"command": "query", "host": ID, "owner": OWNER, "name": NAME, "type": TYPE}

Errors come as {"error": TEXT}.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

NAME = "dns.sock"  # beside the agent's socket
LINE_LIMIT = 64 << 10  # bytes of a request
DESCRIPTORS = 2
PATIENCE = 10.0  # seconds; a sync takes a fraction of a millisecond


def ask(
    path: Path, request: dict[str, Any], fds: tuple[int, ...] = (), *, magic: bytes = b""
) -> dict[str, Any]:
    """The answer. Raises OSError where nobody answers, ValueError for what is no answer."""
    with _connect(path) as connection:
        return _exchange(connection, magic + render(request), fds)


def render(request: dict[str, Any]) -> bytes:
    return json.dumps(request).encode() + b"\n"


class Channel:
    """A connection that stays open between requests. Belongs to one thread.

    It is made anew where the name server has ended since, and after a fork.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: socket.socket | None = None
        self._process = 0

    def ask(self, request: dict[str, Any], fds: tuple[int, ...] = ()) -> dict[str, Any]:
        """As `ask`. What is asked may reach the name server twice: it must not matter."""
        line = render(request)
        if self._connection is not None and self._process == os.getpid():
            try:
                return _exchange(self._connection, line, fds)
            except ConnectionError:  # it has ended, or hung up on us
                pass
            except BaseException:  # what comes later is no answer to the next request
                self.close()
                raise
        self.close()
        self._connection, self._process = _connect(self.path), os.getpid()
        try:
            return _exchange(self._connection, line, fds)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _exchange(connection: socket.socket, line: bytes, fds: tuple[int, ...]) -> dict[str, Any]:
    if fds:
        socket.send_fds(connection, [line], fds)
    else:
        connection.sendall(line)
    said = connection.recv(1 << 16)
    while not said.endswith(b"\n"):
        part = connection.recv(1 << 16)
        if not part:
            raise ConnectionResetError("it hung up")
        said += part
    answer = json.loads(said)
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return answer
