"""Leases: which address is whose, in SQLite.

Every function takes a connection that is already inside a transaction (BEGIN
IMMEDIATE), so that the lease, the published ports and the pending record are
committed together. What is unique is (host, segment, address): two networks on
one bridge share a segment.

Next free address, at a cost that does not grow with the leases:
  1. the address after the last one given (`pools.last`), while there is one;
  2. then the address that was released longest ago (`released`, a queue), because a
     neighbour may still remember who had it before;
  3. then, once, from the first address again: it finds what no queue remembers.
A candidate that is leased already is stepped over in each case: the table of
leases alone decides, so a stale cursor or queue can cost time but never give an
address twice.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from netplug.errors import Conflict, Exhausted, NetplugError
from netplug.ipam.ranges import (
    Pool,
    compute_pools,
    gateways,
    make_address,
    make_pool,
    render_ranges,
)
from netplug.ipam.requests import compute_choice
from netplug.model import IPAddress, Ipam, IPInterface, Lease, LeasedAddress, Range

# `host` alone must not be a prefix of a primary key that does not serve a query by owner:
# SQLite, without statistics, would prefer it to the index and read every lease of the host.
SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    host TEXT NOT NULL,
    segment TEXT NOT NULL,
    family INTEGER NOT NULL,
    address BLOB NOT NULL,   -- 4 or 16 bytes, big-endian: sorts as numbers do
    prefix INTEGER NOT NULL,
    pool TEXT NOT NULL,      -- '' when the address came from no range set
    network TEXT NOT NULL,
    owner TEXT NOT NULL,
    since REAL NOT NULL,     -- seconds since 1970
    PRIMARY KEY (segment, host, family, address)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS leases_by_owner ON leases (host, owner);
CREATE TABLE IF NOT EXISTS pools (
    host TEXT NOT NULL,
    segment TEXT NOT NULL,
    pool TEXT NOT NULL,
    boot TEXT NOT NULL,
    last BLOB,               -- the address given last; NULL: begin with the first one
    PRIMARY KEY (host, segment, pool)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS released (
    seq INTEGER PRIMARY KEY, -- grows: the queue's order
    host TEXT NOT NULL,
    segment TEXT NOT NULL,
    pool TEXT NOT NULL,
    address BLOB NOT NULL,
    UNIQUE (host, segment, pool, address)
);
CREATE INDEX IF NOT EXISTS released_in_order ON released (host, segment, pool, seq);
"""

# A pool that is larger never comes to its end in practice, and its queue would grow
# with every container that ever ran: each allocation then drops the oldest entry.
_QUEUED_POOL = 1 << 16
_NAMED_HOLDERS = 3


@dataclass(frozen=True, slots=True)
class Reservation:
    """One leased address as `ipam ls` shows it; `since` in seconds since 1970."""

    address: IPInterface
    network: str
    owner: str
    since: float
    host: str
    segment: str


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a range is: `size` addresses can be leased in all, `used` are."""

    range_set: int  # index into `Ipam.range_sets`
    range: Range
    size: int
    used: int

    @property
    def free(self) -> int:
        return self.size - self.used


def allocate(
    connection: sqlite3.Connection,
    *,
    host: str,
    boot: str,
    segment: str,
    network: str,
    owner: str,
    ipam: Ipam,
    requested: Sequence[IPInterface | IPAddress] = (),
    now: float,
) -> Lease:
    """One address for each range set, and every static address, leased to `owner`.

    Raises Conflict when the owner holds a lease already or another one holds a
    requested address, Exhausted when a range set is full, ConfigError when a
    requested address fits no range. Nothing is leased then.
    """
    choice = compute_choice(ipam, requested)
    held = leases(connection, host=host, owner=owner)
    if held:
        raise Conflict(
            f"{owner} has an address already",
            f"it holds {', '.join(str(one.address) for one in held)}",
            "remove the attachment first (DEL, or netplug disconnect)",
        )
    desk = _Desk(connection, host, boot, segment, network, owner, now)
    given: list[LeasedAddress] = []
    try:
        for fixed in choice.fixed:
            desk.note("")
            desk.take(fixed.address, "")
            given.append(fixed)
        sets = zip(ipam.range_sets, compute_pools(ipam), choice.wanted, strict=True)
        for ranges, pool, wanted in sets:
            if wanted is not None:
                desk.note(pool.key)
            address = wanted if wanted is not None else desk.choose(ranges, pool)
            home = next(one for one in ranges if _covers(one, address))
            leased = LeasedAddress(ip_interface(f"{address}/{home.subnet.prefixlen}"), home.gateway)
            desk.take(leased.address, pool.key)
            given.append(leased)
    except NetplugError:
        release(connection, host=host, owner=owner)
        raise
    return Lease(
        addresses=tuple(given),
        routes=ipam.routes,
        dns=ipam.dns,
        static=bool(choice.fixed) or choice.wanted[0] is not None,
    )


def _covers(one: Range, address: IPAddress) -> bool:
    return one.subnet.version == address.version and int(one.start) <= int(address) <= int(one.end)


@dataclass(frozen=True, slots=True)
class _Desk:
    """One owner's allocation: the values that every statement of it repeats."""

    connection: sqlite3.Connection
    host: str
    boot: str
    segment: str
    network: str
    owner: str
    now: float

    def take(self, address: IPInterface, pool: str) -> None:
        """Leases this very address. Raises Conflict with its holder."""
        try:
            self.connection.execute(
                "INSERT INTO leases (host, segment, family, address, prefix, pool, network, owner,"
                " since) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self.host, self.segment, address.version, address.ip.packed,
                    address.network.prefixlen, pool, self.network, self.owner, self.now,
                ),
            )  # fmt: skip
        except sqlite3.IntegrityError:
            raise Conflict(
                f"address {address.ip} is taken",
                f"{self._holder(address.ip)} holds it",
                "ask for another address, or remove that attachment first",
            ) from None

    def note(self, pool: str, last: IPAddress | None = None) -> None:
        """Makes the pool known, and moves its cursor to `last` where one is given."""
        self.connection.execute(
            "INSERT INTO pools (host, segment, pool, boot, last) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET last = coalesce(excluded.last, last)",
            (self.host, self.segment, pool, self.boot, None if last is None else last.packed),
        )

    def choose(self, ranges: Sequence[Range], pool: Pool) -> IPAddress:
        """The next free address of a pool. Raises Exhausted with range and holders."""
        row = self.connection.execute(
            "SELECT last FROM pools WHERE host = ? AND segment = ? AND pool = ?",
            (self.host, self.segment, pool.key),
        ).fetchone()
        last = None if row is None or row[0] is None else int.from_bytes(row[0], "big")
        found = cursor = self._forward(pool, last)
        if found is None:
            found = self._oldest_released(pool)
            cursor = make_address(pool.family, pool.spans[-1][1]) if pool.spans else None
        elif pool.size > _QUEUED_POOL:
            self._pop(pool)
        if found is None:
            found = cursor = self._forward(pool, None)
        if found is None or cursor is None:
            raise self._exhausted(ranges, pool)
        self.note(pool.key, cursor)
        return found

    def _forward(self, pool: Pool, last: int | None) -> IPAddress | None:
        """The first free address after `last`: reads one row for each leased one in its way."""
        for first, end in pool.after(last):
            rows = self.connection.execute(
                "SELECT address FROM leases WHERE host = ? AND segment = ? AND family = ?"
                " AND address BETWEEN ? AND ? ORDER BY address",
                (self.host, self.segment, pool.family, *_packed(pool, (first, end))),
            )
            candidate = first
            for (taken,) in rows:
                if int.from_bytes(taken, "big") != candidate:
                    break
                candidate += 1
            if candidate <= end:
                return make_address(pool.family, candidate)
        return None

    def _oldest_released(self, pool: Pool) -> IPAddress | None:
        while (address := self._pop(pool)) is not None:
            if self._holder(address) is None:  # else it was asked for by name since
                return address
        return None

    def _pop(self, pool: Pool) -> IPAddress | None:
        row = self.connection.execute(
            "DELETE FROM released WHERE seq = (SELECT seq FROM released WHERE host = ?"
            " AND segment = ? AND pool = ? ORDER BY seq LIMIT 1) RETURNING address",
            (self.host, self.segment, pool.key),
        ).fetchone()
        return None if row is None else make_address(pool.family, int.from_bytes(row[0], "big"))

    def _holder(self, address: IPAddress) -> str | None:
        row = self.connection.execute(
            "SELECT owner FROM leases WHERE host = ? AND segment = ? AND family = ?"
            " AND address = ?",
            (self.host, self.segment, address.version, address.packed),
        ).fetchone()
        return None if row is None else str(row[0])

    def _exhausted(self, ranges: Sequence[Range], pool: Pool) -> Exhausted:
        some = list(_within(self.connection, self.host, self.segment, pool, _NAMED_HOLDERS))
        named = ", ".join(f"{one.address.ip} by {one.owner}" for one in some)
        more = pool.size - len(some)
        return Exhausted(
            f"network {self.network} has no free address in {render_ranges(ranges)}",
            f"all {pool.size} are held: {named}" + (f" and {more} more" if more > 0 else ""),
            "remove attachments that are not needed (netplug ipam ls lists them),"
            " or add a range to the network",
        )


def release(connection: sqlite3.Connection, *, host: str, owner: str) -> tuple[IPAddress, ...]:
    """Frees what the owner holds; the freed addresses, none for an unknown owner."""
    rows = connection.execute(
        "DELETE FROM leases WHERE host = ? AND owner = ? RETURNING segment, pool, address, family",
        (host, owner),
    ).fetchall()
    connection.executemany(
        "INSERT OR REPLACE INTO released (host, segment, pool, address) VALUES (?, ?, ?, ?)",
        [(host, segment, pool, address) for segment, pool, address, _ in rows if pool],
    )
    return tuple(
        make_address(family, int.from_bytes(address, "big")) for _, _, address, family in rows
    )


def leases(
    connection: sqlite3.Connection,
    *,
    host: str | None = None,
    network: str | None = None,
    owner: str | None = None,
) -> tuple[Reservation, ...]:
    """Leases by host, segment and address; every filter that is given narrows them."""
    filters = {"host": host, "network": network, "owner": owner}
    chosen = {name: value for name, value in filters.items() if value is not None}
    where = " AND ".join(f"{name} = :{name}" for name in chosen) or "TRUE"
    rows = connection.execute(f"SELECT {_COLUMNS} FROM leases WHERE {where}", chosen)
    return tuple(_reservation(row) for row in sorted(rows))


def holders(
    connection: sqlite3.Connection, *, host: str, segment: str, ipam: Ipam
) -> tuple[Reservation, ...]:
    """Who holds addresses of this network's range sets, whatever network they belong to."""
    return tuple(
        one for pool in compute_pools(ipam) for one in _within(connection, host, segment, pool, -1)
    )


def usage(
    connection: sqlite3.Connection, *, host: str, segment: str, ipam: Ipam
) -> tuple[Usage, ...]:
    """How full each range is, in the order of the configuration."""
    reserved = frozenset(gateways(ipam))
    found = []
    for index, range_set in enumerate(ipam.range_sets):
        for one in range_set:
            pool = make_pool([one], reserved)
            used = sum(
                connection.execute(
                    "SELECT count(*) FROM leases WHERE host = ? AND segment = ? AND family = ?"
                    " AND address BETWEEN ? AND ?",
                    (host, segment, pool.family, *_packed(pool, span)),
                ).fetchone()[0]
                for span in pool.spans
            )
            found.append(Usage(index, one, pool.size, used))
    return tuple(found)


def reclaim_earlier_boots(connection: sqlite3.Connection, *, boot: str) -> tuple[Reservation, ...]:
    """Forgets leases, cursors and queues of every boot but `boot`; the leases, for the log."""
    query = "SELECT DISTINCT host FROM pools WHERE boot <> ?"
    hosts = [row[0] for row in connection.execute(query, (boot,))]
    found = [one for host in hosts for one in leases(connection, host=host)]
    for table in ("leases", "released", "pools"):
        connection.executemany(f"DELETE FROM {table} WHERE host = ?", [(host,) for host in hosts])
    return tuple(found)


def reclaim_dead(
    connection: sqlite3.Connection, *, host: str, is_dead: Callable[[str], bool]
) -> tuple[Reservation, ...]:
    """Frees the leases of owners that `is_dead` proves gone; the freed leases, for the log.

    Leases are listed before the first question is asked, and the transaction keeps new
    ones out: an owner that comes to life in between cannot lose its address. So
    `is_dead` must look at the world when it is called, not earlier.
    """
    listed = leases(connection, host=host)
    dead = {owner for owner in {one.owner: None for one in listed} if is_dead(owner)}
    for owner in dead:
        release(connection, host=host, owner=owner)
    return tuple(one for one in listed if one.owner in dead)


_COLUMNS = "host, segment, family, address, prefix, network, owner, since"


def _reservation(row: tuple[str, str, int, bytes, int, str, str, float]) -> Reservation:
    host, segment, family, address, prefix, network, owner, since = row
    number = int.from_bytes(address, "big")
    text = f"{make_address(6 if family == 6 else 4, number)}/{prefix}"
    return Reservation(ip_interface(text), network, owner, since, host, segment)


def _packed(pool: Pool, span: tuple[int, int]) -> tuple[bytes, bytes]:
    first, last = span
    return make_address(pool.family, first).packed, make_address(pool.family, last).packed


def _within(
    connection: sqlite3.Connection, host: str, segment: str, pool: Pool, limit: int
) -> Iterator[Reservation]:
    """Leases inside a pool in order of address; at most `limit`, all for a negative one."""
    for span in pool.spans:
        if limit == 0:
            return
        rows = connection.execute(
            f"SELECT {_COLUMNS} FROM leases WHERE host = ? AND segment = ? AND family = ?"
            " AND address BETWEEN ? AND ? ORDER BY address LIMIT ?",
            (host, segment, pool.family, *_packed(pool, span), limit),
        ).fetchall()
        limit -= len(rows) if limit > 0 else 0
        yield from (_reservation(row) for row in rows)
