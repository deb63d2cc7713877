"""Joining a network: its record, its VNI, and the subnet that becomes this node's.

Every step is one compare-and-set, so that of many nodes at once each gets its own, and a
step that was done before (a crash, a restart) is found done.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from netplug.errors import Conflict, Exhausted, Lost
from netplug.overlay.keys import (
    Advert,
    Claim,
    Keys,
    NetworkRecord,
    demand_equal,
    pack,
    slot_order,
    unpack,
    vni_order,
)
from netplug.store import Store


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is: its name, and a number that only this installation knows."""

    node: str
    instance: str


@dataclass(frozen=True, slots=True)
class Held:
    """A slot that is ours, since the revision `epoch`."""

    slot: int
    epoch: int


def define(store: Store, keys: Keys, network: str, wanted: NetworkRecord) -> NetworkRecord:
    """The network's record: made by the first node, agreed with by all others.

    Raises Conflict where this node's file says otherwise.
    """
    entry = store.get(keys.network(network))
    if entry is None:
        made = replace(wanted, vni=_take_vni(store, keys, network, wanted.vni))
        if store.create(keys.network(network), pack(made)) is not None:
            return made
        entry = store.get(keys.network(network))
    known = unpack(NetworkRecord, entry.value) if entry else None
    if known is None:
        raise Conflict(
            f"the record of network {network} cannot be read",
            f"the key {keys.network(network)} holds something else",
            "delete it from the store",
        )
    demand_equal(network, wanted, known)
    return known


def _take_vni(store: Store, keys: Keys, network: str, wanted: int) -> int:
    """A VNI that no other network has. One that was taken before a crash is found again."""
    for number in (wanted,) if wanted else vni_order(network):
        if store.create(keys.vni(number), network.encode()) is not None:
            return number
        entry = store.get(keys.vni(number))
        if entry is not None and entry.value == network.encode():
            return number
        if wanted:
            holder = entry.value.decode() if entry else "another network"
            raise Conflict(
                f"VNI {wanted} is taken", f"network {holder} has it", "remove the key 'vni'"
            )
    raise Exhausted("no VNI is free", "all 16 million are taken", "delete networks")


def claim(
    store: Store,
    keys: Keys,
    network: str,
    record: NetworkRecord,
    me: Identity,
    hint: int | None = None,
) -> Held:
    """The slot of this node: the one it has, else `hint`, else a free one.

    With a hint this node has containers there already, and so takes no other one: raises
    Lost where that slot is another node's. Raises Exhausted when all are taken, Conflict
    where another living machine has this node's name.
    """
    if hint is not None:
        return _reclaim(store, keys, network, me, hint)
    for entry in store.list(keys.claim(network, ""))[0]:
        known = unpack(Claim, entry.value)
        if known is not None and known.node == me.node:
            slot = int(keys.split(entry.key)[2])
            return _take_over(store, keys, network, me, slot=slot)
    for slot in slot_order(me.node, record.slots):
        epoch = store.create(keys.claim(network, slot), _packed(me))
        if epoch is not None:
            return Held(slot, epoch)
    raise Exhausted(
        f"network {network} has no subnet left for this node",
        f"all {record.slots} are taken",
        "remove nodes that are gone: netplug overlay leave NETWORK --node NODE",
    )


def _packed(me: Identity) -> bytes:
    return pack(Claim(me.node, me.instance, round(time.time(), 3)))


def _reclaim(store: Store, keys: Keys, network: str, me: Identity, slot: int) -> Held:
    epoch = store.create(keys.claim(network, slot), _packed(me))
    if epoch is not None:
        return Held(slot, epoch)
    return _take_over(store, keys, network, me, slot=slot)


def _take_over(store: Store, keys: Keys, network: str, me: Identity, *, slot: int) -> Held:
    """The slot if it is this node's: held by this very machine, or by one of its name that
    does not live any more (an installation made anew)."""
    entry = store.get(keys.claim(network, slot))
    known = unpack(Claim, entry.value) if entry else None
    if entry is None or known is None or known.node != me.node:
        raise Lost(
            f"subnet {slot} of network {network} is not this node's any more",
            f"node {known.node} has it" if known else "its owner is unknown",
            "running containers cannot be reached from other nodes;"
            f" move them and run: netplug overlay adopt {network}",
        )
    if known.instance == me.instance:
        return Held(slot, entry.revision)
    advert = store.get(keys.advert(network, me.node))
    other = unpack(Advert, advert.value) if advert else None
    if other is not None and other.instance != me.instance:
        raise Conflict(
            f"another machine is called {me.node}",
            f"it is at {other.address} and takes part in network {network}",
            "give one of them another name: key 'node' of agent.toml",
        )
    epoch = store.replace(keys.claim(network, slot), _packed(me), entry.revision)
    if epoch is None:
        raise Conflict(f"subnet {slot} of network {network} changed hands", "", "try again")
    return Held(slot, epoch)


def release(store: Store, keys: Keys, network: str, node: str) -> list[int]:
    """Gives up all that a node has in the network: its slots. What it advertised goes first,
    so that no peer sees a subnet without an owner as a quiet node."""
    slots = []
    for entry in store.list(keys.claim(network, ""))[0]:
        known = unpack(Claim, entry.value)
        if known is not None and known.node == node and store.delete(entry.key, entry.revision):
            slots.append(int(keys.split(entry.key)[2]))
    store.delete(keys.advert(network, node))
    for entry in store.list(keys.name(network, node))[0]:
        store.delete(entry.key)
    return slots


def forget(store: Store, keys: Keys, network: str, record: NetworkRecord) -> bool:
    """Removes a network that no node owns a part of; whether it was removed."""
    if store.list(keys.claim(network, ""))[0]:
        return False
    store.delete(keys.network(network))
    entry = store.get(keys.vni(record.vni))
    if entry is not None and entry.value == network.encode():
        store.delete(entry.key, entry.revision)
    return True
