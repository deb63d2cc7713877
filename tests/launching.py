"""Both launchers as programs, and agents that follow a script: for tests of what they say."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from netplug.agent import build, protocol
from netplug.agent.build import Settings

KINDS = ("native", "python", "sanitized")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ALONE = '#!/bin/sh\nprintf "alone as %s: " "$4"; cat; exit 7\n'  # $1 -IS $2 -c $3 CODE $4 PROGRAM
CALL = {
    "CNI_COMMAND": "ADD",
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/proc/self/ns/net",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin",
}
PATIENCE = 60  # seconds for one launcher, and of those that are not to give up


@dataclass(frozen=True, slots=True)
class Said:
    """What a launcher printed, and its exit status."""

    stdout: bytes
    status: int
    stderr: bytes = b""


def alone(stdin: bytes = b"{}", program: str = "netplug") -> Said:
    """What the stand-in for the one-process plugin says of its stdin."""
    return Said(f"alone as {program}: ".encode() + stdin, 7)


@dataclass(slots=True)
class Workshop:
    """Makes launchers in one folder; all of them look for the same socket there."""

    folder: Path
    _made: dict[tuple[str, Settings], Path] = field(default_factory=dict)

    @property
    def socket(self) -> Path:
        return self.folder / "agent.sock"

    def interpreter(self, name: str = "alone", script: str = ALONE) -> str:
        path = self.folder / name
        if not path.exists():
            path.write_text(script)
            path.chmod(0o755)
        return str(path)

    def make(
        self, kind: str, *, interpreter: str = "", answer_ms: int = 0, work_ms: int = 0
    ) -> Path:
        """The file of a launcher. Raises UnsupportedError where it cannot be made here."""
        settings = Settings(
            interpreter=interpreter or self.interpreter(),
            socket=str(self.socket),
            answer_ms=answer_ms or PATIENCE * 1000,
            work_ms=work_ms or PATIENCE * 1000,
        )
        if (kind, settings) not in self._made:
            path = self.folder / str(len(self._made)) / "netplug"
            path.parent.mkdir()
            path.write_bytes(make_program(kind, settings))
            path.chmod(0o755)
            self._made[kind, settings] = path
        return self._made[kind, settings]


def make_program(kind: str, settings: Settings) -> bytes:
    if kind == "sanitized":
        return build.compile_native(settings, flags=SANITIZERS).program
    return build.make_launcher(settings, kind).program


def run(
    command: Path | Sequence[str | Path],
    environ: Mapping[str, str] | None = None,
    stdin: bytes = b"{}",
) -> Said:
    """Executes a launcher with nothing in its environment but what is given."""
    done = subprocess.run(
        command,
        input=stdin,
        env=dict(CALL if environ is None else environ),
        cwd="/",
        capture_output=True,
        check=False,
        timeout=PATIENCE,
    )
    assert b"runtime error" not in done.stderr and b"Sanitizer" not in done.stderr, done.stderr
    return Said(done.stdout, done.returncode, done.stderr)


class Talk:
    """One connection, seen by the agent. `after` is what came after the request."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.namespaces: list[tuple[int, int]] = []
        self.call: protocol.Call | None = None
        self.after = b""

    def read(self) -> protocol.Call:
        """The request; the descriptors are kept as (device, inode) alone."""
        header, fds, _, _ = socket.recv_fds(self.connection, protocol.HEADER_BYTES, 16)
        for fd in fds:
            found = os.fstat(fd)
            self.namespaces.append((found.st_dev, found.st_ino))
            os.close(fd)
        payload = self._receive(protocol.parse_header(header))
        self.call = protocol.parse_payload(payload)
        assert self.call.descriptors == len(fds)
        return self.call

    def _receive(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            assert part
            data += part
        return bytes(data)

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_for_go(self) -> bool:
        self.after += self.connection.recv(1)
        return self.after == protocol.GO


Script = Callable[[Talk], None]


class ScriptedAgent:
    """Follows its script for each connection, until the end of the `with` statement."""

    def __init__(self, path: Path, script: Script) -> None:
        self.talks: list[Talk] = []
        self._script = script
        self._errors: list[Exception] = []
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> ScriptedAgent:
        self._path.unlink(missing_ok=True)
        self._listener.bind(str(self._path))
        self._listener.listen()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._listener.close()
        self._path.unlink()
        assert not self._errors, self._errors

    @property
    def went(self) -> int:
        """How often a launcher said go."""
        return sum(talk.after.count(protocol.GO) for talk in self.talks)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE)
            talk = Talk(connection)
            self.talks.append(talk)
            with connection:
                try:
                    self._script(talk)
                except OSError:  # the launcher is gone
                    pass
                except Exception as error:
                    self._errors.append(error)
                with suppress(OSError):  # all that it may still say
                    connection.shutdown(socket.SHUT_WR)
                    while part := connection.recv(1 << 16):
                        talk.after += part if talk.call else b""
