"""The records of the state file, as the name server needs them."""

from __future__ import annotations

import functools
import ipaddress
import json
import re
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netplug.cni.naming import parse_names
from netplug.codec import decode
from netplug.dns import wire
from netplug.dns.names import REVERSE, Member, Service
from netplug.errors import NetplugError
from netplug.model import Attachment, IPAddress, Names
from netplug.statefile import FILE

SHORT_ID = 12  # hex digits, as engines print them
# Where /etc/services is missing, as in small images.
COMMON = {"ftp": 21, "ssh": 22, "smtp": 25, "domain": 53, "http": 80, "imap": 143, "https": 443}
SLICE = 500  # rows read in one go
COLUMNS = "host, owner, phase, cookie, since, attachment, config, plan, result"
NAMED = """config LIKE '%"names"%'"""  # a first sieve: most records of most hosts have none

Key = tuple[str, str]  # host id, owner
Mark = tuple[str, float]  # phase and time of ADD: what tells one record from a later one


@dataclass(frozen=True, slots=True)
class Attached:
    """One attachment with names: who it is, and where its questions come from.

    `points` are the addresses of the host on its network, each with its device. `told` are
    the name servers that its result named, "" before it had one.
    """

    member: Member
    mark: Mark
    cookie: int
    sandbox: str
    points: tuple[tuple[str, IPAddress], ...]
    told: tuple[str, ...]
    upstreams: tuple[str, ...]

    @property
    def key(self) -> Key:
        return self.member.host, self.member.owner


class Records:
    """A reading connection to the state file, made anew where that was replaced."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._db: sqlite3.Connection | None = None
        self._inode = 0

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def _open(self) -> sqlite3.Connection:
        inode = self._path.stat().st_ino
        if self._db is None or inode != self._inode:
            self.close()
            self._db = sqlite3.connect(f"file:{self._path}?mode=rw", uri=True, timeout=5.0)
            self._inode = inode
        return self._db

    @property
    def inode(self) -> int:
        return self._path.stat().st_ino

    def version(self) -> tuple[int, int]:
        """Another value when another process has written since, or the file was replaced."""
        found: int = self._open().execute("PRAGMA data_version").fetchone()[0]
        return self._inode, found

    def read(self, host: str, owner: str) -> Attached | None:
        """None where there is no such record, it is leaving, or its network has no names."""
        row = self._open().execute(
            f"SELECT {COLUMNS} FROM records WHERE host=? AND owner=? AND phase<>'leaving'",
            (host, owner),
        )
        found = row.fetchone()
        return parse_row(found) if found else None

    def marks(self) -> Iterator[dict[Key, Mark]]:
        """All records that may have names, in slices: so that reading many keeps nobody waiting."""
        after: Key = ("", "")
        while True:
            rows = self._open().execute(
                "SELECT host, owner, phase, since, " + NAMED + " FROM records"
                " WHERE (host, owner) > (?, ?) ORDER BY host, owner LIMIT ?",
                (*after, SLICE),
            )
            found = rows.fetchall()
            yield {(row[0], row[1]): (row[2], row[3]) for row in found if row[4]}
            if len(found) < SLICE:
                return
            after = (found[-1][0], found[-1][1])


def parse_row(row: tuple[Any, ...]) -> Attached | None:
    """None for a network without names, or a record that cannot be read."""
    host, owner, phase, cookie, since, attachment, config, plan, result = row
    try:
        network = parse_config(config)
        if network is None or result is None:
            return None
        return make_attached(
            (host, owner, cookie),
            (phase, since),
            decode(Attachment, json.loads(attachment)),
            network,
            json.loads(plan),
            json.loads(result),
        )
    except (NetplugError, ValueError, TypeError, KeyError):
        return None


@dataclass(frozen=True, slots=True)
class NamedNetwork:
    """What the name server needs of a network's configuration."""

    names: Names
    upstreams: tuple[str, ...]
    internal: bool


@functools.lru_cache(256)  # many attachments have the same one
def parse_config(text: str) -> NamedNetwork | None:
    """None for a network without names. Raises ConfigError, ValueError."""
    config = json.loads(text)
    names, _ = parse_names(config)
    if names is None:
        return None
    return NamedNetwork(names, tuple(_configured(config)), bool(config.get("internal")))


@functools.lru_cache(1024)  # a gateway is that of many
def parse_interface(text: str) -> ipaddress.IPv4Interface | ipaddress.IPv6Interface:
    return ipaddress.ip_interface(text)


def make_attached(
    where: tuple[str, str, int],
    mark: Mark,
    attachment: Attachment,
    network: NamedNetwork,
    plan: dict[str, Any],
    result: dict[str, Any],
) -> Attached:
    """`plan` and `result` as they are stored: decoding them whole would take most of a sync."""
    host, owner, cookie = where
    points = tuple(host_addresses(plan))
    names = network.names
    addresses = [parse_interface(ip["address"]) for ip in result.get("ips", ())]
    member = Member(
        host=host,
        network=attachment.network,
        owner=owner,
        group=f"{host}/{cookie or attachment.container}",
        names=compute_names(attachment),
        addresses=tuple(address.ip for address in addresses),
        services=tuple(compute_services(attachment, names)),
        domain=names.domain,
        ttl=names.ttl,
        internal=network.internal,
        subnets=tuple(dict.fromkeys(address.network for address in addresses)),
        gateways=tuple(address for _, address in points),
    )
    return Attached(
        member,
        mark,
        cookie,
        attachment.sandbox,
        points,
        tuple(result.get("dns", {}).get("nameservers", ())),
        attachment.dns.nameservers or names.upstreams or network.upstreams,
    )


def host_addresses(plan: dict[str, Any]) -> Iterator[tuple[str, IPAddress]]:
    """Addresses that the plan gives the host on the network: (device, address)."""
    for step in plan.get("steps", ()):
        if step.get("type") == "Addresses" and step.get("place") == "host":
            for text in step.get("addresses", ()):
                yield step["device"], parse_interface(text).ip


def compute_names(attachment: Attachment) -> tuple[str, ...]:
    """The container's name, its aliases, its short id; in lower case, each once.

    What cannot be a name on the wire, or would hide one that everybody relies on, is left out.
    """
    container = attachment.container
    short = container[:SHORT_ID] if re.fullmatch(r"[0-9a-f]{12,}", container) else container
    wanted = (attachment.name, *attachment.aliases, short)
    names = dict.fromkeys(name.lower().rstrip(".") for name in wanted if is_name(name))
    return tuple(names) or (attachment.tag,)


def is_name(name: str) -> bool:
    bare = name.lower().rstrip(".")
    if not re.fullmatch(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", bare):
        return False
    try:
        wire.encode_name(bare)
    except ValueError:
        return False
    return bare != "localhost" and not bare.endswith((".localhost", *REVERSE))


def compute_services(attachment: Attachment, names: Names) -> Iterator[Service]:
    """The container's side of what it publishes, under every name of such a port."""
    for port in attachment.ports:
        own = [name for name, number in names.services if number == port.container_port]
        for name in dict.fromkeys((*own, *_well_known(port.container_port, port.protocol))):
            yield Service(name, port.protocol, port.container_port)


@functools.lru_cache(1024)
def _well_known(port: int, protocol: str) -> tuple[str, ...]:
    try:
        return (socket.getservbyport(port, protocol).lower(),)
    except OSError:
        return tuple(name for name, number in COMMON.items() if number == port)


def _configured(config: dict[str, Any]) -> Iterable[str]:
    """Name servers of the network's own `dns`, else of its `ipam`."""
    for section in (config, config.get("ipam")):
        dns = section.get("dns") if isinstance(section, dict) else None
        if isinstance(dns, dict) and dns.get("nameservers"):
            return [str(server) for server in dns["nameservers"]]
    return ()
