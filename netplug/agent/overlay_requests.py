"""What others ask of the overlay loop: join, adopt, leave, status. In its thread."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netplug.config import parse_network
from netplug.errors import Conflict, Lost, NetplugError, NotFound, Unavailable
from netplug.kernel.wireguard import demand_wireguard
from netplug.overlay import claims
from netplug.overlay import membership as memberships
from netplug.overlay.keys import NameRecord, NetworkRecord
from netplug.overlay.member import Member
from netplug.overlay.membership import Membership, ranges_of
from netplug.overlay.plan import compute_mtu
from netplug.overlay.report import describe_member
from netplug.overlay.underlay import read_underlay
from netplug.plugins.overlay import OverlayOptions
from netplug.resources.wireguard import ensure_private_key

if TYPE_CHECKING:
    from netplug.agent.overlay_loop import Loop

log = logging.getLogger("netplug.overlay")


def join(loop: Loop, config: dict[str, Any]) -> Membership:
    """Takes part in the network; at once where it does already. Raises NetplugError."""
    network, _ = parse_network(config, OverlayOptions)
    member = loop.members.get(network.name)
    if member is not None and not member.membership.lost:
        return member.membership
    if member is not None:
        raise Conflict(
            f"this node has lost its part of the network {network.name}",
            member.membership.lost,
            f"move its containers, then run: netplug overlay adopt {network.name}",
        )
    _demand_store(loop)
    assert loop.store is not None
    options: OverlayOptions = network.options
    if options.encrypt:
        demand_wireguard(network.name)
    wanted = NetworkRecord(
        ranges_of(network),
        options.node_prefix,
        options.vni,
        options.mode,
        options.tunnel_port,
        options.encrypt,
    )
    with loop.kernel() as kernel:
        underlay = read_underlay(kernel.host, loop.settings)
    record = claims.define(loop.store, loop.keys, network.name, wanted)
    held = claims.claim(loop.store, loop.keys, network.name, record, loop.me)
    membership = Membership(
        network.name,
        loop.me.node,
        loop.me.instance,
        record,
        held.slot,
        held.epoch,
        underlay.address,
        underlay.link,
        compute_mtu(underlay.mtu, underlay.address, options.mtu, encrypted=bool(options.encrypt)),
        config=dict(network.raw),
        key_file=str(loop.folder / f"{network.name}.wireguard") if options.encrypt else "",
    )
    _admit(loop, membership)
    return membership


def _admit(loop: Loop, membership: Membership) -> None:
    """Remembered, in the kernel, advertised: in this order, so that whoever hears of this
    node can reach it."""
    assert loop.store is not None
    if membership.key_file:
        ensure_private_key(Path(membership.key_file))
    memberships.write(loop.state, loop.host.id, membership)
    member = loop.new_member(membership)
    loop.members[membership.network] = member
    entries, _ = loop.store.list(loop.keys.root + "/")
    member.view.load(entries, loop.clock())
    try:
        loop.reconcile()
        if member.problem:
            raise Unavailable(
                f"network {membership.network} cannot be set up", member.problem, "see the log"
            )
        loop.advertise(member)
    except NetplugError:
        _give_up(loop, member)
        raise


def _give_up(loop: Loop, member: Member) -> list[int]:
    """Nothing of the network stays: not here, and not in the store. The slots that it had."""
    assert loop.store is not None
    m = member.membership
    loop.members.pop(m.network, None)
    loop.remote.forget(m.network)
    with loop.kernel() as kernel:
        for error in member.remove(kernel):
            log.error("%s", error)
    slots = claims.release(loop.store, loop.keys, m.network, m.node)
    claims.forget(loop.store, loop.keys, m.network, m.record)
    return slots


def _demand_store(loop: Loop) -> None:
    if loop.reason:
        loop.connect()


def adopt(loop: Loop, network: str) -> dict[str, Any]:
    """After its subnet was lost: this node takes it back where it is free, else another."""
    member = _member(loop, network)
    _demand_store(loop)
    assert loop.store is not None
    m = member.membership
    try:
        held = claims.claim(loop.store, loop.keys, network, m.record, loop.me, hint=m.slot)
    except Lost:
        held = claims.claim(loop.store, loop.keys, network, m.record, loop.me)
    moved = held.slot != m.slot
    with loop.kernel() as kernel:
        if moved:
            member.remove(kernel)
    member.own(held)
    memberships.write(loop.state, loop.host.id, member.membership)
    _admit(loop, member.membership)
    return {"network": network, "moved": moved, "subnets": member.membership.subnets}


def leave(loop: Loop, network: str, node: str = "") -> dict[str, Any]:
    """This node gives its subnet back, or is told that another one is gone for good."""
    _demand_store(loop)
    assert loop.store is not None
    if node and node != loop.me.node:
        slots = claims.release(loop.store, loop.keys, network, node)
        if not slots:
            raise NotFound(f"node {node} has no part in network {network}")
        return {"network": network, "node": node, "slots": slots}
    member = _member(loop, network)
    m = member.membership
    used = loop.state.connection.execute(
        "SELECT count(*) FROM records WHERE host=? AND network=?", (loop.host.id, network)
    ).fetchone()[0]
    if used:
        raise Conflict(
            f"network {network} is in use on this node",
            f"{used} attachments have addresses of its subnet",
            "disconnect them first (netplug ps)",
        )
    return {"network": network, "node": m.node, "slots": _give_up(loop, member)}


def _member(loop: Loop, network: str) -> Member:
    if network not in loop.members:
        raise NotFound(
            f"this node takes no part in an overlay network {network!r}",
            f"it has {', '.join(loop.members) or 'none'}",
        )
    return loop.members[network]


def remote_names(loop: Loop, network: str) -> list[NameRecord]:
    member = loop.members.get(network)
    return member.view.remote_names() if member else []


def status(loop: Loop, *, peers: bool) -> dict[str, Any]:
    with loop.kernel() as kernel:
        found = [
            describe_member(member, kernel, loop.clock(), peers=peers)
            for member in loop.members.values()
        ]
    where = loop.settings.store
    return {
        "node": loop.me.node,
        "store": ", ".join(where.endpoints) or where.path or str(loop.folder / "cluster.db"),
        "connected": not loop.reason,
        "reason": loop.reason,
        "networks": found,
    }
