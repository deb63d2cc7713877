"""Reservations of published ports, in SQLite: who publishes what on which host.

Two reservations conflict as two sockets would (bind(2)): same family, protocol and
port, and the same address or a wildcard on either side. Like leases, they are made
inside a transaction of the caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from netplug.errors import Conflict
from netplug.model import Family, IPAddress, Port, Protocol

SCHEMA = """
CREATE TABLE IF NOT EXISTS ports (
    host TEXT NOT NULL,
    family INTEGER NOT NULL,
    protocol TEXT NOT NULL,
    port INTEGER NOT NULL,
    address TEXT NOT NULL,   -- '' is the wildcard
    owner TEXT NOT NULL,
    PRIMARY KEY (port, protocol, family, host, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS ports_by_owner ON ports (host, owner);
"""


class HostPort(NamedTuple):
    """A port of the host, in one family; `host_ip` None means each address of the host."""

    family: Family
    host_ip: IPAddress | None
    protocol: Protocol
    port: int

    def __str__(self) -> str:
        wildcard = "0.0.0.0" if self.family == 4 else "::"
        address = wildcard if self.host_ip is None else str(self.host_ip)
        return f"{f'[{address}]' if self.family == 6 else address}:{self.port}/{self.protocol}"


@dataclass(frozen=True, slots=True)
class Published:
    """A reservation and its owner (NETWORK/CONTAINER/IFNAME)."""

    host: str
    owner: str
    port: HostPort


def compute_host_ports(ports: Iterable[Port], families: Sequence[Family]) -> tuple[HostPort, ...]:
    """What publishing these ports takes: without a host address, one entry for each family."""
    found = []
    for port in ports:
        address = port.host_ip
        named = None if address is None or address.is_unspecified else address
        for family in families if address is None else (address.version,):
            found.append(HostPort(family, named, port.protocol, port.host_port))
    return tuple(found)


def reserve(
    connection: sqlite3.Connection, *, host: str, owner: str, ports: Sequence[HostPort]
) -> None:
    """Reserves all of these ports for `owner`, or raises Conflict with the holder and none."""
    rows = [(host, p.family, p.protocol, p.port, _stored(p.host_ip), owner) for p in ports]
    for index, row in enumerate(rows):
        if connection.execute(_RESERVE, row).rowcount:
            continue
        (holder,) = connection.execute(_HOLDER, row[:5]).fetchone()
        connection.executemany(
            "DELETE FROM ports WHERE host = ? AND family = ? AND protocol = ? AND port = ?"
            " AND address = ?",
            [done[:5] for done in rows[:index]],
        )
        raise _conflict(ports[index], owner=owner, holder=holder)


_CLASH = (
    "FROM ports WHERE host = ?1 AND family = ?2 AND protocol = ?3 AND port = ?4"
    " AND (?5 = '' OR address IN ('', ?5))"
)
_RESERVE = (
    "INSERT INTO ports (host, family, protocol, port, address, owner)"
    f" SELECT ?1, ?2, ?3, ?4, ?5, ?6 WHERE NOT EXISTS (SELECT 1 {_CLASH})"
)
_HOLDER = f"SELECT owner {_CLASH} LIMIT 1"


def _stored(address: IPAddress | None) -> str:
    return "" if address is None or address.is_unspecified else str(address)


def _conflict(port: HostPort, *, owner: str, holder: str) -> Conflict:
    if holder == owner:
        return Conflict(
            f"port {port} is asked for twice", f"by {owner}", "publish each port of the host once"
        )
    return Conflict(
        f"port {port} is taken",
        f"{holder} publishes it",
        "publish another port of the host, or disconnect that container first",
    )


def unclaimed(
    connection: sqlite3.Connection, *, host: str, owner: str, ports: Sequence[Port]
) -> tuple[Port, ...]:
    """The ports that no other attachment of the same container publishes already.

    Engines ask for a container's ports on each of its networks; the first one serves them.
    """
    container = owner.split("/")[1]

    def claimed(port: Port) -> bool:
        rows = connection.execute(
            "SELECT owner, address FROM ports WHERE port = ? AND protocol = ? AND host = ?",
            (port.host_port, port.protocol, host),
        )
        stored = _stored(port.host_ip)
        return any(
            holder != owner and holder.split("/")[1] == container and address in ("", stored)
            for holder, address in rows
        )

    return tuple(port for port in ports if not claimed(port))


def release(connection: sqlite3.Connection, *, host: str, owner: str) -> tuple[HostPort, ...]:
    """Frees what the owner publishes; the freed ports, none for an unknown owner."""
    rows = connection.execute(
        f"DELETE FROM ports WHERE host = ? AND owner = ? RETURNING {_COLUMNS}", (host, owner)
    ).fetchall()
    return tuple(_published(row).port for row in sorted(rows))


def published(
    connection: sqlite3.Connection, *, host: str | None = None, owner: str | None = None
) -> tuple[Published, ...]:
    """Reservations in order of host, family, protocol and port; each filter given narrows them."""
    chosen = {k: v for k, v in {"host": host, "owner": owner}.items() if v is not None}
    where = " AND ".join(f"{name} = :{name}" for name in chosen) or "TRUE"
    rows = connection.execute(f"SELECT {_COLUMNS} FROM ports WHERE {where}", chosen)
    return tuple(_published(row) for row in sorted(rows))


def publishers(connection: sqlite3.Connection, *, host: str, port: int) -> tuple[Published, ...]:
    """Reservations of one port number, of every protocol and address."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM ports WHERE host=? AND port=?", (host, port))
    return tuple(_published(row) for row in sorted(rows))


def reclaim_hosts(
    connection: sqlite3.Connection, *, is_past: Callable[[str], bool]
) -> tuple[Published, ...]:
    """Forgets every port of hosts that `is_past` tells gone (an earlier boot); what it forgot."""
    hosts = [row[0] for row in connection.execute("SELECT DISTINCT host FROM ports")]
    past = [host for host in hosts if is_past(host)]
    found = [one for host in past for one in published(connection, host=host)]
    connection.executemany("DELETE FROM ports WHERE host = ?", [(host,) for host in past])
    return tuple(found)


_COLUMNS = "host, family, protocol, port, address, owner"


def _published(row: tuple[str, Family, Protocol, int, str, str]) -> Published:
    host, family, protocol, port, address, owner = row
    named = ip_address(address) if address else None
    return Published(host, owner, HostPort(family, named, protocol, port))
