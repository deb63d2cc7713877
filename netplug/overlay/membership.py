"""This node's part in a network, as it is remembered: one row for each network.

With it, ADD knows its subnet without asking anybody, and an agent that starts while the
store is away goes on with the peers that it knew.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network
from typing import Any

from netplug.codec import decode, encode
from netplug.errors import Impaired, Unavailable
from netplug.ipam.ranges import make_range
from netplug.model import Attachment, IPAddress, IPNetwork, Network, Range, Site
from netplug.overlay.keys import Advert, NetworkRecord
from netplug.plan import Plan
from netplug.plugins.overlay import tunnel_name
from netplug.state import State

SCHEMA = """
CREATE TABLE IF NOT EXISTS memberships (
    host TEXT NOT NULL, network TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (host, network)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS identity (node TEXT PRIMARY KEY, instance TEXT NOT NULL) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Membership:
    """`address` and `underlay`: by what the other nodes reach this one; `mtu` of the tunnel."""

    network: str
    node: str
    instance: str
    record: NetworkRecord
    slot: int
    epoch: int
    address: IPAddress
    underlay: str
    mtu: int
    lost: str = ""  # why the subnet is not ours any more
    peers: tuple[Advert, ...] = ()  # the last that were known
    config: dict[str, Any] = field(default_factory=dict)
    key_file: str = ""  # WireGuard's private key

    @property
    def subnets(self) -> tuple[IPNetwork, ...]:
        return self.record.subnets(self.slot)

    @property
    def tunnel(self) -> str:
        return tunnel_name(self.network)

    @property
    def site(self) -> Site:
        return Site(self.node, self.subnets, self.record.ranges, self.tunnel, self.mtu)


def read_all(state: State, host: str) -> list[Membership]:
    """What this host takes part in."""
    _ensure(state)
    rows = state.connection.execute(
        "SELECT value FROM memberships WHERE host=? ORDER BY network", (host,)
    )
    return [_parse(row[0]) for row in rows]


def read_earlier(state: State, node: str, boot: str) -> list[Membership]:
    """What the node of this name took part in before the last boot."""
    _ensure(state)
    rows = state.connection.execute("SELECT host, value FROM memberships")
    found = [_parse(value) for host, value in rows if not host.startswith(boot)]
    return [one for one in found if one.node == node]


def read(state: State, host: str, network: str) -> Membership | None:
    _ensure(state)
    row = state.connection.execute(
        "SELECT value FROM memberships WHERE host=? AND network=?", (host, network)
    ).fetchone()
    return _parse(row[0]) if row else None


def write(state: State, host: str, membership: Membership, plan: Plan | None = None) -> None:
    """Remembers it, and where a plan is given also which shared resources that uses."""
    _ensure(state)
    text = json.dumps(encode(membership))
    with state.transaction() as db:
        db.execute(
            "INSERT OR REPLACE INTO memberships VALUES (?,?,?)", (host, membership.network, text)
        )
        if plan is not None:
            owner = Attachment(membership.network, NODE, membership.tunnel)
            state.use(db, host, owner, plan)


def forget(state: State, host: str, membership: Membership) -> None:
    _ensure(state)
    with state.transaction() as db:
        db.execute("DELETE FROM memberships WHERE host=? AND network=?", (host, membership.network))
        db.execute("DELETE FROM usage WHERE host=? AND owner=?", (host, owner_of(membership)))


def forget_earlier(state: State, boot: str) -> None:
    """Rows of earlier boots, once their networks were joined again."""
    _ensure(state)
    with state.transaction() as db:
        db.execute("DELETE FROM memberships WHERE host NOT LIKE ?", (f"{boot}:%",))


NODE = "@node"  # in the place of a container: no container's name begins so


def owner_of(membership: Membership) -> str:
    return f"{membership.network}/{NODE}/{membership.tunnel}"


def instance_of(state: State, node: str) -> str:
    """The number that tells this installation from another one of the same name."""
    _ensure(state)
    with state.transaction() as db:
        db.execute("INSERT OR IGNORE INTO identity VALUES (?,?)", (node, secrets.token_hex(8)))
        row = db.execute("SELECT instance FROM identity WHERE node=?", (node,)).fetchone()
    return str(row[0])


def _ensure(state: State) -> None:
    known = "SELECT 1 FROM sqlite_master WHERE name='memberships'"
    if not state.connection.execute(known).fetchone():
        with state.transaction() as db:
            for statement in SCHEMA.split(";"):
                db.execute(statement)


def _parse(text: str) -> Membership:
    return decode(Membership, json.loads(text))


def localize(network: Network, membership: Membership | None) -> Network:
    """The network as this node serves it: its own subnets to lease from, and its site.

    Raises Unavailable where this node has not joined, Impaired where it has lost its subnet.
    """
    if membership is None:
        raise Unavailable(
            f"this node has not joined the overlay network {network.name}",
            "its subnet is not known yet",
            "is the agent running? see: netplug agent status, netplug overlay status",
        )
    if membership.lost:
        raise Impaired(
            f"this node has lost its part of the network {network.name}",
            membership.lost,
            f"move its containers, then run: netplug overlay adopt {network.name}",
        )
    assert network.ipam is not None
    record = membership.record
    sets = tuple(
        (_block(whole, subnet, membership) if record.mode == "bridged" else make_range(subnet),)
        for whole, subnet in zip(record.ranges, membership.subnets, strict=True)
    )
    return replace(network, site=membership.site, ipam=replace(network.ipam, range_sets=sets))


def _block(whole: IPNetwork, block: IPNetwork, membership: Membership) -> Range:
    """Of a subnet that all nodes share, the part from which this one leases."""
    return make_range(
        whole,
        start=block.network_address,
        end=ip_address(int(block.network_address) + block.num_addresses - 1),
    )


def ranges_of(network: Network) -> tuple[IPNetwork, ...]:
    """The ranges of the whole network, as its file names them."""
    if network.ipam is None:
        return ()
    return tuple(ip_network(sets[0].subnet) for sets in network.ipam.range_sets)


def exists(state: State) -> bool:
    """Has any host of this state joined a network?"""
    _ensure(state)
    return state.connection.execute("SELECT 1 FROM memberships").fetchone() is not None
