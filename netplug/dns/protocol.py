"""What is said over the name server's control socket: one line of JSON each way.

    {"command": "sync", "state": INODE, "host": ID, "owner": OWNER}   and descriptors: the
        host's network namespace, then the sandbox's where it is alive
    {"command": "status" | "stats" | "flush" | "stop"}
    {"command": "records", "host": ID}
    {"command": "query", "host": ID, "owner": OWNER, "name": NAME, "type": TYPE}

Errors come as {"error": TEXT}.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

RUN_FOLDER = Path("/run/netplug")
NAME = "dns.sock"  # beside the agent's socket
LINE_LIMIT = 64 << 10  # bytes of a request
DESCRIPTORS = 2
PATIENCE = 10.0  # seconds; a sync takes a fraction of a millisecond


def ask(
    path: Path, request: dict[str, Any], fds: tuple[int, ...] = (), *, magic: bytes = b""
) -> dict[str, Any]:
    """The answer. Raises OSError where nobody answers, ValueError for what is no answer."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        line = magic + json.dumps(request).encode() + b"\n"
        if fds:
            socket.send_fds(connection, [line], fds)
        else:
            connection.sendall(line)
        parts = []
        while part := connection.recv(1 << 16):
            parts.append(part)
            if part.endswith(b"\n"):
                break
    answer = json.loads(b"".join(parts))
    if not isinstance(answer, dict):
        raise ValueError("no object")
    return answer
