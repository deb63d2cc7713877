"""Locks between processes: single bytes of one lock file (open file description locks, fcntl(2)).

The kernel frees them when their holder dies, and no file is left for each key.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from netplug.errors import Busy
from netplug.model import digest

LOCK_SECONDS = 30.0


class Locks:
    """The locks of one folder, for one thread: what two objects lock excludes each other."""

    def __init__(self, folder: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(folder / "lock", flags, 0o600)
        self._own: set[int] = set()  # to the kernel, a lock taken twice by one is one lock

    def close(self) -> None:
        """Frees every lock that is held."""
        os.close(self._descriptor)

    @contextmanager
    def held(self, key: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Holds the lock of this key. Raises Busy when another holds it for so long."""
        offset = int(digest("lock", key)[:15], 16)
        self._wait(offset, key, seconds)
        self._own.add(offset)
        try:
            yield
        finally:
            self._own.discard(offset)
            self._set(fcntl.F_UNLCK, offset)

    def _set(self, kind: int, offset: int) -> None:
        request = struct.pack("hhqqi4x", kind, os.SEEK_SET, offset, 1, 0)
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, request)

    def _wait(self, offset: int, key: str, seconds: float) -> None:
        deadline, pause = time.monotonic() + seconds, 0.0005
        while offset in self._own or not self._try(offset):
            if time.monotonic() > deadline:
                raise Busy(
                    f"{key} is in use",
                    f"another netplug process has worked on it for {seconds:.0f} s",
                    "try again; if it persists, look for a hanging netplug process",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    def _try(self, offset: int) -> bool:
        try:
            self._set(fcntl.F_WRLCK, offset)
        except (BlockingIOError, PermissionError):
            return False
        return True


@contextmanager
def locked(folder: Path, key: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds one lock of the folder. Raises Busy when another holds it for so long."""
    locks = Locks(folder)
    try:
        with locks.held(key, seconds=seconds):
            yield
    finally:
        locks.close()
