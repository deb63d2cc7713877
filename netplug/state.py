"""What netplug remembers: one SQLite file of records with their applied plans.

A record is written as *pending* before the kernel is touched, turns *ready* after,
and *leaving* when its removal begins: whatever a crash leaves behind has a record
that names it. Leases and ports live in the same file, so that they commit with it.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from netplug import ipam, ports
from netplug.codec import decode, encode
from netplug.dhcp import schema as dhcp_leases
from netplug.errors import Busy, Conflict, InputError
from netplug.locks import LOCK_SECONDS, Locks
from netplug.model import Attachment, Result
from netplug.plan import Plan, from_json, identity, to_json
from netplug.statefile import FILE, connect, ensure_private_folder, is_damage, set_aside

T = TypeVar("T")
Phase = Literal["pending", "ready", "leaving"]


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
        self._file = os.stat(self._path)
        self._locks: Locks | None = None  # opened when first needed: the disk may be full

    def _open(self) -> sqlite3.Connection:
        try:
            return connect(self._path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise InputError(
                    f"the state file {self._path} cannot be opened", str(error), "check the folder"
                ) from error
            self.damaged = set_aside(self.folder)
            return connect(self._path)

    def close(self) -> None:
        self._db.close()
        if self._locks:
            self._locks.close()

    @property
    def current(self) -> bool:
        """Is this still the file of that name? Another process may have set it aside."""
        try:
            return os.path.samestat(os.stat(self._path), self._file)
        except FileNotFoundError:
            return False

    @property
    def inode(self) -> int:
        """Tells this state file from every other on this machine."""
        return self._file.st_ino

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
        self._locks = self._locks or Locks(self.folder)
        with self._locks.held(key, seconds=seconds):
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
                _written(attachment, json.dumps(encode(attachment))),
                json.dumps(record.config),
                _written(record.plan, to_json(record.plan)),
                _result_text(record.result),
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

    def ready(
        self, db: sqlite3.Connection, host: str, owner: str, result: Result | None = None
    ) -> bool:
        """The record's plan is applied; False when the record is gone or leaving.

        `result` replaces the one that was foreseen.
        """
        text = json.dumps(encode(result)) if result else None
        cursor = db.execute(
            "UPDATE records SET phase='ready', result=COALESCE(?, result)"
            " WHERE host=? AND owner=? AND phase='pending'",
            (text, host, owner),
        )
        return cursor.rowcount == 1

    def tell(self, db: sqlite3.Connection, host: str, owner: str, result: Result) -> None:
        """What the engine is told in the end, where that is known after the record is ready."""
        text = json.dumps(encode(result))
        db.execute("UPDATE records SET result=? WHERE host=? AND owner=?", (text, host, owner))

    def replan(self, db: sqlite3.Connection, record: Record) -> None:
        """Stores another plan and result of a ready record, which uses what that plan says."""
        db.execute(
            "UPDATE records SET plan=?, result=? WHERE host=? AND owner=?",
            (
                to_json(record.plan),
                _result_text(record.result),
                record.host,
                record.owner,
            ),
        )
        self.use(db, record.host, record.attachment, record.plan)

    def disuse(self, db: sqlite3.Connection, host: str, owner: str, key: str) -> None:
        """The owner uses the shared resource no longer. `ours` is told by its other users."""
        db.execute(
            "UPDATE usage SET leaving=1 WHERE host=? AND owner=? AND key=?", (host, owner, key)
        )

    def extend(self, db: sqlite3.Connection, record: Record) -> bool:
        """Stores the plan and result of a pending record; False when it is gone or leaving."""
        cursor = db.execute(
            "UPDATE records SET plan=?, result=? WHERE host=? AND owner=? AND phase='pending'",
            (
                _written(record.plan, to_json(record.plan)),
                _result_text(record.result),
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
        dhcp_leases.release(db, host=host, owner=owner)
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
        self._claimed: set[str] | None = None

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        with self._state.locked(f"{self._host}/{key}"):
            yield

    def claimed(self, key: str) -> bool:
        """Read once for all keys: what is ours stays ours while it is used."""
        if self._claimed is None:
            rows = self._state.connection.execute(
                "SELECT key FROM usage INDEXED BY usage_owner WHERE host=? AND owner=? AND ours=1",
                (self._host, self._owner),
            )
            self._claimed = {key for (key,) in rows}
        return key in self._claimed

    def claim(self, key: str) -> None:
        self._claimed = None
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
        attachment=_read(Attachment, attachment),
        phase=phase,
        boot=boot,
        cookie=cookie,
        since=since,
        plan=_read(Plan, plan),
        config=json.loads(config),
        result=_read(Result, result) if result else None,
    )


# What an agent wrote, by type and text: most of it is asked for once more, by DEL.
_recent: dict[tuple[type, str], Any] = {}
RECENT = 3000


def _written(value: object, text: str) -> str:
    if len(_recent) >= RECENT:
        _recent.clear()
    _recent[type(value), text] = value
    return text


def _result_text(result: Result | None) -> str | None:
    return _written(result, json.dumps(encode(result))) if result else None


def _read(kind: type[T], text: str) -> T:
    found: T | None = _recent.get((kind, text))
    if found is not None:
        return found
    data = json.loads(text)
    return from_json(data) if kind is Plan else decode(kind, data)  # type: ignore[return-value]


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
