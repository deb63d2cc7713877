"""Leases of DHCP servers that attachments of this boot hold, in the state file.

Times are seconds of CLOCK_BOOTTIME: the same for all processes of one boot, going on in
suspend, deaf to changes of the wall clock.
"""

from __future__ import annotations

import json
import sqlite3
import time
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface

from netplug.codec import decode, encode
from netplug.dhcp.client import Identity
from netplug.dhcp.packet import Terms
from netplug.model import Lease

COLUMNS = "host, owner, identity, address, server, lease, next, rebind, expire, fault"
FOREVER = 1e12


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that an attachment holds; `lost`: it has ended, and no other was to be had yet."""

    host: str
    owner: str
    identity: Identity
    address: IPv4Interface
    server: IPv4Address
    lease: Lease
    next: float
    rebind: float
    expire: float | None
    fault: str = ""

    @property
    def lost(self) -> bool:
        return self.expire is not None and self.expire <= now()


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def make_held(host: str, owner: str, identity: Identity, terms: Terms, asked: float) -> Held:
    """`asked`: when the request went out, from which a lease's times count."""
    return Held(
        host,
        owner,
        identity,
        terms.address,
        terms.server,
        terms.lease,
        next=asked + terms.t1 if terms.seconds is not None else FOREVER,
        rebind=asked + terms.t2 if terms.seconds is not None else FOREVER,
        expire=asked + terms.seconds if terms.seconds is not None else None,
    )


def put(db: sqlite3.Connection, held: Held) -> None:
    said = held.identity
    identity = {
        "mac": said.mac,
        "client_id": said.client_id.hex(),
        "hostname": said.hostname,
        "request": list(said.request),
        "provide": [[code, value.hex()] for code, value in said.provide],
        "broadcast": said.broadcast,
        "priority": said.priority,
    }
    db.execute(
        f"INSERT OR REPLACE INTO dhcp ({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)",
        (
            held.host,
            held.owner,
            json.dumps(identity),
            str(held.address),
            str(held.server),
            json.dumps(encode(held.lease)),
            held.next,
            held.rebind,
            held.expire,
            held.fault,
        ),
    )


def get(db: sqlite3.Connection, host: str, owner: str) -> Held | None:
    row = db.execute(
        f"SELECT {COLUMNS} FROM dhcp WHERE host=? AND owner=?", (host, owner)
    ).fetchone()
    return _parse(row) if row else None


def held_by(db: sqlite3.Connection, host: str) -> list[Held]:
    rows = db.execute(f"SELECT {COLUMNS} FROM dhcp WHERE host=? ORDER BY owner", (host,))
    return [_parse(row) for row in rows]


def due(db: sqlite3.Connection, until: float) -> list[tuple[str, str]]:
    """(host, owner) of leases that are to be renewed by then, the most urgent first."""
    return list(
        db.execute("SELECT host, owner FROM dhcp WHERE next<=? ORDER BY next LIMIT 64", (until,))
    )


def _parse(row: tuple[object, ...]) -> Held:
    host, owner, identity, address, server, lease, soon, rebind, expire, fault = row
    said = json.loads(str(identity))
    return Held(
        str(host),
        str(owner),
        Identity(
            mac=said["mac"],
            client_id=bytes.fromhex(said["client_id"]),
            hostname=said["hostname"],
            request=tuple(said["request"]),
            provide=tuple((code, bytes.fromhex(value)) for code, value in said["provide"]),
            broadcast=said["broadcast"],
            priority=said["priority"],
        ),
        IPv4Interface(str(address)),
        IPv4Address(str(server)),
        decode(Lease, json.loads(str(lease))),
        float(soon),  # type: ignore[arg-type]
        float(rebind),  # type: ignore[arg-type]
        None if expire is None else float(expire),  # type: ignore[arg-type]
        str(fault),
    )
