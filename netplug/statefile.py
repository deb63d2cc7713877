"""The SQLite file behind `state`: its tables, its folder, and what is done with a damaged one."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from contextlib import closing, suppress
from pathlib import Path

from netplug import ipam, ports
from netplug.dhcp import schema as dhcp
from netplug.errors import PermissionRefused
from netplug.locks import locked

FILE = "state.db"
BUSY_MILLISECONDS = 20_000
SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    host TEXT NOT NULL, owner TEXT NOT NULL, kind TEXT NOT NULL,
    network TEXT NOT NULL, phase TEXT NOT NULL, boot TEXT NOT NULL,
    cookie INTEGER NOT NULL, via TEXT NOT NULL, since REAL NOT NULL,
    attachment TEXT NOT NULL, config TEXT NOT NULL, plan TEXT NOT NULL, result TEXT,
    PRIMARY KEY (host, owner)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_network ON records (host, network);
CREATE TABLE IF NOT EXISTS usage (
    host TEXT NOT NULL, key TEXT NOT NULL, owner TEXT NOT NULL, network TEXT NOT NULL,
    value TEXT NOT NULL, ours INTEGER NOT NULL, leaving INTEGER NOT NULL,
    PRIMARY KEY (host, key, owner)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS usage_owner ON usage (host, owner);
"""


def _use_wal(db: sqlite3.Connection) -> None:
    """Of two processes that make a new file at once SQLite refuses one, without the wait that
    it was told to have patience for."""
    deadline = time.monotonic() + BUSY_MILLISECONDS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def connect(path: Path) -> sqlite3.Connection:
    """The open file, with its tables. Raises sqlite3.DatabaseError."""
    db = sqlite3.connect(path, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None)
    try:
        _use_wal(db)
        # NORMAL survives SIGKILL; a power cut may lose the last commits, but also every namespace.
        db.execute("PRAGMA synchronous=NORMAL")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name='dhcp'").fetchone():
            tables = SCHEMA + ipam.SCHEMA + ports.SCHEMA + dhcp.SCHEMA
            db.executescript(f"BEGIN IMMEDIATE; {tables} COMMIT;")
            os.chmod(path, 0o600)
    except BaseException:
        db.close()
        raise
    return db


def ensure_private_folder(folder: Path) -> None:
    """The folder exists, is ours, and nobody else may enter it. Raises PermissionRefused."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.lstat(folder)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o077:
            os.chmod(folder, 0o700)
    except OSError as error:
        raise PermissionRefused(
            f"the state folder {folder} cannot be made",
            error.strerror or "",
            "run as root, or inside a user namespace of your own",
        ) from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionRefused(
            f"the state folder {folder} is not ours",
            "it must be a folder, owned by the user who runs netplug",
            "remove it, or make it yours",
        )


def set_aside(folder: Path) -> str:
    """Renames a damaged state file, so that DEL and GC work on by the marks in the kernel; its
    new path. "" where it is sound, for then another process has been here before us."""
    path = folder / FILE
    with locked(folder, FILE):
        if _is_sound(path):
            return ""
        kept = f"{path}.damaged-{time.time_ns()}"
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{kept}{suffix}")
    return kept


def is_damage(error: sqlite3.Error) -> bool:
    """Is it the file that is wrong, not what we asked or the moment?"""
    return type(error) is sqlite3.DatabaseError


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path)) as db:
            return bool(db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
    except sqlite3.DatabaseError:
        return False
