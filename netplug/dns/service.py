"""Starting, finding and ending the name server, which outlives those who start it."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from netplug import __version__
from netplug.dns.client import NameService
from netplug.dns.protocol import NAME, Channel, ask
from netplug.dns.records import NAMED
from netplug.statefile import FILE

START_SECONDS = 10.0
EXTERNAL_SECONDS = 2.0  # for systemd, which starts its unit together with the agent
LOOK_SECONDS = 1.0  # between two looks whether it lives
log = logging.getLogger("netplug.agent")


def read_status(folder: Path) -> dict[str, Any] | None:
    """What the name server with its socket in `folder` says of itself; None when none answers."""
    try:
        status = ask(folder / NAME, {"command": "status"})
    except (OSError, ValueError):
        return None
    return status if "pid" in status else None


def stop(folder: Path) -> None:
    """Ends the name server and waits until it has; silent where none answers."""
    status = read_status(folder)
    if status is None:
        return
    try:
        ask(folder / NAME, {"command": "stop"})
    except (OSError, ValueError):
        pass
    _wait(lambda: not Path(f"/proc/{status['pid']}/ns/net").exists())


def _wait(done: Callable[[], object], seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.01)


def has_names(state_folder: Path) -> bool:
    """Does any record want a name server?"""
    path = state_folder / FILE
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
            return db.execute(f"SELECT 1 FROM records WHERE {NAMED} LIMIT 1").fetchone() is not None
    except sqlite3.Error:  # no state yet
        return False


class Supervisor:
    """Keeps a name server of this version running once one is wanted.

    It is a session of its own, with its descriptors closed and cwd /, and lives on when the
    agent ends; the next agent finds it by its socket. `external`: systemd should start it.
    """

    def __init__(self, folder: Path, state_folder: Path, *, external: bool = False) -> None:
        self._folder, self._state_folder, self._external = folder, state_folder, external
        self._lock = threading.Lock()
        self._of_thread = threading.local()
        self._looked = 0.0
        self.wanted = has_names(state_folder)

    def client(self, log: Callable[[str], None]) -> NameService:
        """The engine's way to it, which starts it when it is first needed.

        Each thread has a connection of its own that stays open.
        """
        channel: Channel | None = getattr(self._of_thread, "channel", None)
        if channel is None:
            channel = self._of_thread.channel = Channel(self._folder / NAME)
        return NameService(self._folder, log, self.ensure, channel)

    def ensure(self) -> bool:
        """Whether one of this version answers now; it is started where none does."""
        self.wanted = True
        with self._lock:
            status = read_status(self._folder)
            if status is not None and status["version"] == __version__:
                return True
            if status is not None:
                log.info("the name server is of version %s: it is replaced", status["version"])
                stop(self._folder)
            if self._external:
                _wait(lambda: read_status(self._folder), EXTERNAL_SECONDS)
            return read_status(self._folder) is not None or start(self._folder, self._state_folder)

    def watch(self) -> None:
        """To be called often: starts it anew where it was wanted and has ended."""
        if not self.wanted or time.monotonic() - self._looked < LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        if self._lock.locked():  # somebody is at it
            return
        if read_status(self._folder) is None:
            log.warning("no name server answers: it is started anew")
            self.ensure()

    def stop(self) -> None:
        """Ends it for good."""
        self.wanted = False
        with self._lock:
            stop(self._folder)


def start(folder: Path, state_folder: Path, *, while_used: bool = False) -> bool:
    """Starts one in the background; whether it answers.

    Its log goes where ours goes. `while_used`: without a log, and it ends by itself when no
    container has names any more.
    """
    options = ["--detach", *(["--while-used"] if while_used else [])]
    words = [str(folder / NAME), str(state_folder), *options]
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", "netplug.dns", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if while_used else None,
        start_new_session=True,
        cwd="/",
        env={key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ},
    )
    try:
        process.wait(START_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return read_status(folder) is not None  # ours, or that of somebody who was faster
