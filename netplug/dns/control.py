"""The control socket: what changed, and what people want to know. Root alone may ask."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netplug import __version__
from netplug.dns.loop import WRITE, Timer
from netplug.dns.protocol import DESCRIPTORS, LINE_LIMIT
from netplug.dns.remote import RemoteNames
from netplug.dns.server import NameServer
from netplug.dns.trial import try_query
from netplug.dns.upstream import BOUNDS
from netplug.kernel import namespaces

CREDENTIALS = struct.Struct("iII")
CONNECTIONS = 64
PATIENCE = 10.0
log = logging.getLogger("netplug.dns")


class Control:
    """Serves `listener` in the name server's loop."""

    def __init__(self, server: NameServer, listener: socket.socket) -> None:
        self.server, self._listener = server, listener
        self._remote = RemoteNames(server.registry)
        self.open: set[_Connection] = set()
        self._began = time.time()
        listener.setblocking(False)
        server.loop.register(listener.fileno(), self._accept)

    def close(self) -> None:
        for connection in list(self.open):
            connection.close()
        self.server.loop.unregister(self._listener.fileno())

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size)
        _, uid, _ = CREDENTIALS.unpack(raw)
        if uid not in (0, os.geteuid()):
            connection.close()
            return
        if len(self.open) >= CONNECTIONS:  # who has said nothing for the longest time
            min(self.open, key=lambda one: one.heard).close()
        connection.setblocking(False)
        opened = _Connection(self, connection)
        self.open.add(opened)
        opened.read()  # a caller that has asked already need not wait for the next round

    def answer(self, line: bytes, fds: list[int], done: Callable[[dict[str, Any]], None]) -> None:
        """Calls `done` with the answer, a query's when it is there."""
        try:
            request = json.loads(line)
            command = request["command"]
            work = getattr(self, f"_do_{command}", None)
            if command not in COMMANDS or work is None:
                raise ValueError(f"unknown command {command!r}")
            if command == "query":
                try_query(self.server, request, done)
                return
            done(work(request, fds))
        except (ValueError, KeyError, TypeError) as error:
            done({"error": f"{type(error).__name__}: {error}"})

    def _do_sync(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        for fd in fds:
            if fcntl.ioctl(fd, namespaces.NS_GET_NSTYPE) != namespaces.CLONE_NEWNET:
                raise ValueError("a descriptor is no network namespace")
        if request["state"] != self.server.records.inode:
            return {"error": "the name server serves another state file"}
        told, problem = self.server.sync(str(request["host"]), str(request["owner"]), fds)
        return {"told": told, "problem": problem}

    def _do_remote(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return self._remote.step(request)

    def _do_status(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": round(time.time() - self._began, 3),
            "attachments": len(self.server.registry.clients),
        }

    def _do_stats(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        server = self.server
        upstream = [
            {
                "server": address,
                "queries": health.queries,
                "replies": health.replies,
                "mean_ms": round(health.seconds / max(1, health.replies) * 1e3, 3),
                "healthy": health.rests_until <= time.monotonic(),
            }
            for one in server.sets.values()
            for (address, _), health in one.health.items()
        ]
        return {
            **self._do_status(request, fds),
            "queries": dict(server.counts),
            "forwarding": dict(server.forwarder.counts),
            "latency": [[bound, server.forwarder.latency[bound]] for bound in BOUNDS],
            "latency_seconds": server.forwarder.seconds,
            "latency_count": server.forwarder.latency.total(),
            "in_flight": server.forwarder.flying,
            "cached": sum(len(one.cache) for one in server.sets.values()),
            "cached_bytes": sum(one.cache.bytes for one in server.sets.values()),
            "ready": sum(len(view.ready) for view in server.registry.views.values()),
            "connections": len(server.streams.open),
            "upstream": upstream,
        }

    def _do_records(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        found = []
        for (host, owner), client in self.server.registry.clients.items():
            if host != request.get("host", host):
                continue
            member = client.attached.member
            found.append(
                {
                    "owner": owner,
                    "network": member.network,
                    "name": member.full_name,
                    "names": member.names,
                    "addresses": [str(address) for address in member.addresses],
                    "services": [f"_{s.name}._{s.protocol}:{s.port}" for s in member.services],
                    "asks": "127.0.0.11" if client.inside else "gateway",
                }
            )
        return {"records": found}

    def _do_flush(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        return {"flushed": self.server.flush()}

    def _do_query(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        raise NotImplementedError  # `answer` calls `try_query`

    def _do_stop(self, request: dict[str, Any], fds: list[int]) -> dict[str, Any]:
        self.server.loop.later(0, self.server.loop.stop)
        return {"stopping": True}


COMMANDS = ("sync", "remote", "status", "stats", "records", "flush", "query", "stop")


@dataclass(eq=False)
class _Connection:
    """Requests of one caller, one at a time; agents keep it open between them."""

    control: Control
    socket: socket.socket

    def __post_init__(self) -> None:
        self._in, self._out = b"", b""
        self._fds: list[int] = []
        self._loop = self.control.server.loop
        self._loop.register(self.socket.fileno(), self.read)
        self._timer: Timer | None = None
        self.heard = time.monotonic()

    def read(self) -> None:
        try:
            data, fds, flags, _ = socket.recv_fds(
                self.socket, LINE_LIMIT, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            self.close()
            return
        self._fds += fds
        self._in += data
        self.heard = time.monotonic()
        broken = flags & socket.MSG_CTRUNC or len(self._fds) > DESCRIPTORS
        if not data or broken or len(self._in) > LINE_LIMIT:
            self.close()
        elif self._in.endswith(b"\n"):
            self._stop_timer()
            line, self._in = self._in, b""
            self.control.answer(line, self._fds, self._answer)
        elif self._timer is None:
            self._timer = self._loop.later(PATIENCE, self.close)

    def _answer(self, answer: dict[str, Any]) -> None:
        self._out += json.dumps(answer).encode() + b"\n"
        self._close_fds()
        self._write()

    def _write(self) -> None:
        if self.socket.fileno() < 0:
            return
        try:
            self._out = self._out[self.socket.send(self._out) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._out:
            self._loop.register(self.socket.fileno(), self._write, WRITE)
            if self._timer is None:
                self._timer = self._loop.later(PATIENCE, self.close)
        elif self._timer is not None:
            self._stop_timer()
            self._loop.register(self.socket.fileno(), self.read)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_fds(self) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def close(self) -> None:
        if self.socket.fileno() < 0:
            return
        self._stop_timer()
        self._close_fds()
        self._loop.unregister(self.socket.fileno())
        self.socket.close()
        self.control.open.discard(self)
