"""The table of held leases; apart, for the state file needs no more of DHCP."""

from __future__ import annotations

import sqlite3

SCHEMA = """
CREATE TABLE IF NOT EXISTS dhcp (
    host TEXT NOT NULL, owner TEXT NOT NULL, identity TEXT NOT NULL,
    address TEXT NOT NULL, server TEXT NOT NULL, lease TEXT NOT NULL,
    next REAL NOT NULL,                      -- when to ask again
    rebind REAL NOT NULL, expire REAL,       -- expire NULL: never
    fault TEXT NOT NULL DEFAULT '',          -- why the last try failed
    PRIMARY KEY (host, owner)) WITHOUT ROWID;
"""


def release(db: sqlite3.Connection, *, host: str, owner: str) -> None:
    """Forgets the lease; the server is told by `ipam.give_back`."""
    db.execute("DELETE FROM dhcp WHERE host=? AND owner=?", (host, owner))
