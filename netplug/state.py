"""What netplug remembers: one SQLite file of records with their applied plans.

A record is written as *pending* before the kernel is touched, turns *ready* after,
and *leaving* when its removal begins: whatever a crash leaves behind has a record
that names it. Leases and ports live in the same file, so that they commit with it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from netplug import ipam, ports
from netplug.codec import decode, encode
from netplug.errors import Busy, Conflict, InputError, PermissionRefused
from netplug.locks import LOCK_SECONDS, locked
from netplug.model import Attachment, Result
from netplug.plan import Plan, from_json, identity, to_json

Phase = Literal["pending", "ready", "leaving"]
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


@dataclass(frozen=True, slots=True)
class Record:
    """One attachment and the plan that was, is being or will be applied for it.

    `cookie` identifies its sandbox within the boot; `config` is the network's
    configuration as it was given; `since` is seconds since the epoch.
    """

    host: str
    attachment: Attachment
    phase: Phase
    boot: str
    cookie: int
    since: float
    plan: Plan
    config: dict[str, Any]
    result: Result | None = None

    @property
    def owner(self) -> str:
        return self.attachment.owner


class State:
    """One connection to the state file; belongs to one thread."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        ensure_private_folder(self.folder)
        self._path = self.folder / FILE
        self.damaged = ""  # where a damaged state file was put that we found
        self._db = self._open()
        self._inode = os.stat(self._path).st_ino

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise InputError(
                    f"the state file {self._path} cannot be opened", str(error), "check the folder"
                ) from error
            self.damaged = set_aside(self.folder)
            return _connect(self._path)

    def close(self) -> None:
        self._db.close()

    @property
    def current(self) -> bool:
        """Is this still the file of that name? Another process may have set it aside."""
        try:
            return os.stat(self._path).st_ino == self._inode
        except FileNotFoundError:
            return False

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All or nothing; other writers wait. Raises Busy after 20 s, InputError where the file
        cannot be written."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise self._unwritable(error) from error
            raise Busy("the state file is in use", str(error), "try again") from error
        try:
            yield self._db
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # SQLite itself rolls back where the disk is full
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                raise self._unwritable(error) from error
            raise

    def _unwritable(self, error: sqlite3.Error) -> InputError:
        return InputError(
            f"the state file {self._path} cannot be written", str(error), "is the disk full?"
        )

    @property
    def connection(self) -> sqlite3.Connection:
        """For single reading statements outside a transaction."""
        return self._db

    # what was found right once (`config.Memory`)

    def recall(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name=?", (key,)).fetchone()
        return row[0] if row else None

    def remember(self, key: str, text: str) -> None:
        """Keeps a thousand; which, is all the same."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, text))
            db.execute(
                "DELETE FROM meta WHERE name<>'boot' AND name NOT IN"
                " (SELECT name FROM meta WHERE name<>'boot' LIMIT 1000)"
            )

    # locks

    @contextmanager
    def locked(self, key: str, *, seconds: float = LOCK_SECONDS) -> Iterator[None]:
        """Holds the lock of this key. Raises Busy when another holds it for so long."""
        with locked(self.folder, key, seconds=seconds):
            yield

    # records

    def put(self, db: sqlite3.Connection, record: Record) -> None:
        """Writes a new record and its use of shared resources. Raises Conflict, see `_use`."""
        attachment = record.attachment
        db.execute(
            "INSERT INTO records VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                record.host,
                record.owner,
                "attachment",
                attachment.network,
                record.phase,
                record.boot,
                record.cookie,
                attachment.via,
                record.since,
                json.dumps(encode(attachment)),
                json.dumps(record.config),
                to_json(record.plan),
                json.dumps(encode(record.result)) if record.result else None,
            ),
        )
        self.use(db, record.host, attachment, record.plan)

    def use(self, db: sqlite3.Connection, host: str, attachment: Attachment, plan: Plan) -> None:
        """Notes that the attachment uses the plan's shared resources.

        Raises Conflict where another network uses one with different values.
        """
        for key, step in plan.keys.items():
            value = identity(step)
            # All users of a key agree on its value and on `ours`, so that one tells of them all.
            other = self._any_user(host, key, leaving=0) or self._any_user(host, key, leaving=1)
            network, known, ours, leaving = other or (attachment.network, value, 0, 0)
            if known != value and not leaving:
                raise _different_values(step.describe(), attachment.network, network)
            db.execute(
                "INSERT OR REPLACE INTO usage VALUES (?,?,?,?,?,?,0)",
                (host, key, attachment.owner, attachment.network, value, ours),
            )

    def ready(self, db: sqlite3.Connection, host: str, owner: str) -> bool:
        """The record's plan is applied; False when the record is gone or leaving."""
        cursor = db.execute(
            "UPDATE records SET phase='ready' WHERE host=? AND owner=? AND phase='pending'",
            (host, owner),
        )
        return cursor.rowcount == 1

    def extend(self, db: sqlite3.Connection, record: Record) -> bool:
        """Stores the plan and result of a pending record; False when it is gone or leaving."""
        cursor = db.execute(
            "UPDATE records SET plan=?, result=? WHERE host=? AND owner=? AND phase='pending'",
            (
                to_json(record.plan),
                json.dumps(encode(record.result)) if record.result else None,
                record.host,
                record.owner,
            ),
        )
        return cursor.rowcount == 1

    def leave(self, db: sqlite3.Connection, host: str, owner: str) -> None:
        """The tombstone: removal has begun, the shared resources are not used by it any more."""
        db.execute("UPDATE records SET phase='leaving' WHERE host=? AND owner=?", (host, owner))
        db.execute("UPDATE usage SET leaving=1 WHERE host=? AND owner=?", (host, owner))

    def drop(self, db: sqlite3.Connection, host: str, owner: str) -> None:
        """Forgets the record, its uses, its leases and its ports."""
        db.execute("DELETE FROM records WHERE host=? AND owner=?", (host, owner))
        db.execute("DELETE FROM usage WHERE host=? AND owner=?", (host, owner))
        ipam.release(db, host=host, owner=owner)
        ports.release(db, host=host, owner=owner)

    def get(self, host: str, owner: str) -> Record | None:
        row = self._db.execute(
            f"SELECT {COLUMNS} FROM records WHERE host=? AND owner=?", (host, owner)
        ).fetchone()
        return _parse_record(row) if row else None

    def records(self, host: str, network: str | None = None) -> list[Record]:
        """Records of this host, oldest first, of one network or all."""
        rows = self._db.execute(
            f"SELECT {COLUMNS} FROM records WHERE host=? AND (? IS NULL OR network=?)"
            " ORDER BY since, owner",
            (host, network, network),
        )
        return [_parse_record(row) for row in rows]

    def _any_user(self, host: str, key: str, *, leaving: int) -> tuple[str, str, int, int] | None:
        found: tuple[str, str, int, int] | None = self._db.execute(
            "SELECT network, value, ours, leaving FROM usage WHERE host=? AND key=? AND leaving=?"
            " LIMIT 1",
            (host, key, leaving),
        ).fetchone()
        return found

    def is_used(self, host: str, key: str) -> bool:
        """Does a living record use the shared resource?"""
        return self._any_user(host, key, leaving=0) is not None

    def users(self, host: str, key: str) -> list[str]:
        """Owners of living records that use the shared resource."""
        rows = self._db.execute(
            "SELECT owner FROM usage WHERE host=? AND key=? AND leaving=0", (host, key)
        )
        return [row[0] for row in rows]

    def used_keys(self, host: str, prefix: str) -> list[tuple[str, str]]:
        """(key, network) of shared resources in use whose key begins so."""
        return list(
            self._db.execute(
                "SELECT key, MIN(network) FROM usage WHERE host=? AND key>=? AND key<?"
                " AND leaving=0 GROUP BY key",
                (host, prefix, prefix + "\uffff"),
            )
        )

    def reclaim(self, boot: str) -> list[str]:
        """Forgets what earlier boots left, whose namespaces are gone for certain; its owners."""
        seen = self._db.execute("SELECT value FROM meta WHERE name='boot'").fetchone()
        if seen and seen[0] == boot:
            return []
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('boot', ?)", (boot,))
            rows = db.execute("SELECT host, owner FROM records WHERE boot<>?", (boot,)).fetchall()
            for host, owner in rows:
                self.drop(db, host, owner)
            orphans = ipam.reclaim_earlier_boots(db, boot=boot)
            ports.reclaim_hosts(db, is_past=lambda host: not host.startswith(boot))
        return sorted({owner for _, owner in rows} | {lease.owner for lease in orphans})


class Usage:
    """`plan.Sharing` for one attachment, answered by the records."""

    def __init__(self, state: State, host: str, owner: str) -> None:
        self._state, self._host, self._owner = state, host, owner

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._state.locked(f"{self._host}/{key}"):
            yield

    def claimed(self, key: str) -> bool:
        held = self._state.connection.execute(
            "SELECT ours FROM usage WHERE host=? AND key=? AND owner=?",
            (self._host, key, self._owner),
        ).fetchone()
        return bool(held and held[0])

    def claim(self, key: str) -> None:
        with self._state.transaction() as db:
            db.execute("UPDATE usage SET ours=1 WHERE host=? AND key=?", (self._host, key))

    def leave(self) -> None:
        with self._state.transaction() as db:
            self._state.leave(db, self._host, self._owner)

    def may_undo(self, key: str) -> bool:
        return self.claimed(key) and not self._state.is_used(self._host, key)


COLUMNS = "host, attachment, phase, boot, cookie, since, plan, config, result"


def _parse_record(row: tuple[Any, ...]) -> Record:
    host, attachment, phase, boot, cookie, since, plan, config, result = row
    return Record(
        host=host,
        attachment=decode(Attachment, json.loads(attachment)),
        phase=phase,
        boot=boot,
        cookie=cookie,
        since=since,
        plan=from_json(json.loads(plan)),
        config=json.loads(config),
        result=decode(Result, json.loads(result)) if result else None,
    )


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    # NORMAL survives SIGKILL; a power cut may lose the last commits, but also every namespace.
    db.execute("PRAGMA synchronous=NORMAL")
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name='usage'").fetchone():
        db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} {ipam.SCHEMA} {ports.SCHEMA} COMMIT;")
        os.chmod(path, 0o600)
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


def _different_values(what: str, network: str, other: str) -> Conflict:
    if other == network:
        return Conflict(
            f"{what} is in use with other values",
            f"the configuration of network {network} changed while containers are attached",
            "detach them first, or restore the former configuration",
        )
    return Conflict(
        f"{what} is in use with other values",
        f"network {other} uses it too, and differently",
        f"make both networks agree, or give {network} a bridge of its own",
    )
