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


@contextmanager
def locked(folder: Path, key: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock of this key. Raises Busy when another holds it for so long."""
    offset = int(digest("lock", key)[:15], 16)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / "lock", flags, 0o600)
    try:
        _wait_for_lock(descriptor, offset, key, seconds)
        yield
    finally:
        os.close(descriptor)  # frees the lock as well


def _wait_for_lock(descriptor: int, offset: int, key: str, seconds: float) -> None:
    request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0)
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
            return
        except (BlockingIOError, PermissionError):
            if time.monotonic() > deadline:
                raise Busy(
                    f"{key} is in use",
                    f"another netplug process has worked on it for {seconds:.0f} s",
                    "try again; if it persists, look for a hanging netplug process",
                ) from None
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)
