"""One network that this node takes part in: its plan held right, its containers published."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from netplug import plan as plans
from netplug.codec import decode
from netplug.errors import NetplugError
from netplug.host import Host
from netplug.kernel import Kernel, tunnelguard, wireguard
from netplug.kernel.tunnelguard import Allowed
from netplug.model import Attachment, Result, digest
from netplug.overlay import membership as memberships
from netplug.overlay.claims import Held
from netplug.overlay.keys import Advert, Keys, NameRecord, pack
from netplug.overlay.membership import Membership
from netplug.overlay.plan import compute_mtu, guard_of, peers_of, plan_node, vtep_mac
from netplug.overlay.underlay import Underlay
from netplug.overlay.view import Entries, View
from netplug.plan import Plan
from netplug.plugins.overlay import short_name
from netplug.resources.tunnels import PeerSet
from netplug.resources.wireguard import WireguardPeers
from netplug.state import State, Usage
from netplug.store import Store


class Member:
    """Belongs to one thread. `held` is what the kernel holds for peers, as far as we know."""

    def __init__(
        self,
        state: State,
        host: Host,
        keys: Keys,
        membership: Membership,
        *,
        hold: float,
        names_of: Callable[[Attachment], tuple[str, ...]],
    ) -> None:
        """`names_of`: the names of a container."""
        self._names_of = names_of
        self._state, self._host, self._keys = state, host, keys
        self.membership = membership
        self._hold = hold
        self.view = self._new_view()
        self.held: Entries | None = None
        self._allowed: frozenset[Allowed] = frozenset()
        self.unguarded = tunnelguard.usable(host.fd)  # why there is no filter; "" where there is
        self.problem = ""
        self.public_key = ""  # WireGuard's, once the device is there

    def _new_view(self) -> View:
        m = self.membership
        return View(
            m.network, m.record, self._keys, node=m.node, remembered=m.peers, hold=self._hold
        )

    @property
    def bridge(self) -> str:
        return str(
            self.membership.config.get("bridge") or short_name("np-", self.membership.network)
        )

    @property
    def guarded(self) -> bool:
        return not self.unguarded

    @property
    def plan(self) -> Plan:
        allowed = self.view.allowed() if self.guarded else None
        return plan_node(self.membership, self.bridge, self.view.items(), allowed)

    @property
    def peer_set(self) -> PeerSet | WireguardPeers:
        return peers_of(self.membership, self.bridge, self.view.items())

    @property
    def advert(self) -> Advert:
        m = self.membership
        mac = vtep_mac(m.network, m.node)
        return Advert(m.node, m.instance, m.address, m.slot, m.epoch, mac, self.public_key)

    # --- the kernel

    def reconcile(self, kernel: Kernel) -> list[str]:
        """Compares the whole plan with the kernel and puts right what differs; what did."""
        self._remember_plan()
        usage = Usage(self._state, self._host.id, memberships.owner_of(self.membership))
        found = []
        for step in self.plan:
            words = step.present(kernel)
            if words == "":
                continue
            found.append(f"{step.describe()}: {words or 'missing'}")
            plans.apply(kernel, step, usage)
        self.held, self._allowed = self.view.items(), self.view.allowed()
        if self.membership.record.encrypt:
            self.public_key = wireguard.read(self._host.fd, self.membership.tunnel).public_key
        self.problem = ""
        return found

    def refresh(self, kernel: Kernel) -> None:
        """Brings the kernel from the peers of before to those of now, without reading it."""
        wanted = self.view.items()
        if self.held is None:
            self.reconcile(kernel)
            return
        if wanted == self.held:
            return
        try:
            self._open_guard(kernel)
            change_peers(self.peer_set, kernel, self.held)
            self.held = wanted
        except NetplugError:
            self.held = None
            self.reconcile(kernel)

    def _open_guard(self, kernel: Kernel) -> None:
        """The filter first: what is routed to us is let in."""
        allowed = self.view.allowed()
        if self.guarded and not self.membership.record.encrypt and allowed != self._allowed:
            guard_of(self.membership, allowed).change(kernel, self._allowed)
            self._allowed = allowed

    def remove(self, kernel: Kernel) -> list[NetplugError]:
        """Undoes the plan, and forgets the membership."""
        usage = Usage(self._state, self._host.id, memberships.owner_of(self.membership))
        errors = plans.remove(kernel, self.plan, usage)
        memberships.forget(self._state, self._host.id, self.membership)
        return errors

    def follow(self, underlay: Underlay) -> bool:
        """Takes over the underlay's address and MTU; whether the address changed."""
        m = self.membership
        wanted = m.config.get("mtu", "auto")
        encrypted = bool(m.record.encrypt)
        mtu = compute_mtu(underlay.mtu, underlay.address, wanted, encrypted=encrypted)
        moved = m.address != underlay.address
        if moved or (m.underlay, m.mtu) != (underlay.link, mtu):
            self._become(replace(m, address=underlay.address, underlay=underlay.link, mtu=mtu))
        self.view.on_link = underlay.networks if m.config.get("direct") else ()
        return moved

    # --- what is remembered

    def own(self, held: Held) -> None:
        """The slot is ours, since this epoch."""
        m = self.membership
        if (m.slot, m.epoch, m.lost) != (held.slot, held.epoch, ""):
            self._become(replace(m, slot=held.slot, epoch=held.epoch, lost=""))

    def lose(self, why: str) -> None:
        if self.membership.lost != why:
            self._become(replace(self.membership, lost=why))

    def remember_peers(self) -> None:
        peers = tuple(peer.advert for _, peer in sorted(self.view.peers.items()))
        if peers != self.membership.peers:
            self._become(replace(self.membership, peers=peers))

    def _become(self, membership: Membership) -> None:
        self.membership = membership
        memberships.write(self._state, self._host.id, membership)

    def _remember_plan(self) -> None:
        memberships.write(self._state, self._host.id, self.membership, self.plan)

    # --- names

    def publish(self, store: Store) -> None:
        """Tells the other nodes of this node's containers: what came, changed, went."""
        m = self.membership
        prefix = self._keys.name(m.network, m.node)
        entries = {entry.key: entry for entry in store.list(prefix)[0]}
        for record in read_names(self._state, self._host.id, m, self._names_of):
            key = self._keys.name(m.network, m.node, record.owner)
            entry, value = entries.pop(key, None), pack(record)
            if entry is None:
                store.create(key, value)
            elif entry.value != value:
                store.replace(key, value, entry.revision)
        for entry in entries.values():
            store.delete(entry.key, entry.revision)


def change_peers(peers: PeerSet | WireguardPeers, kernel: Kernel, held: Entries) -> None:
    if isinstance(peers, WireguardPeers):
        peers.change(kernel, {item for item in held if isinstance(item, wireguard.Peer)})
    else:
        peers.change(kernel, {item for item in held if not isinstance(item, wireguard.Peer)})


def read_names(
    state: State,
    host: str,
    membership: Membership,
    names_of: Callable[[Attachment], tuple[str, ...]],
) -> list[NameRecord]:
    """Names and addresses of this node's containers on the network."""
    rows = state.connection.execute(
        "SELECT attachment, result FROM records WHERE host=? AND network=? AND phase='ready'",
        (host, membership.network),
    ).fetchall()
    found = []
    for attachment_text, result_text in rows:
        attachment = decode(Attachment, json.loads(attachment_text))
        result = decode(Result, json.loads(result_text)) if result_text else Result()
        mac = next((i.mac for i in result.interfaces if i.sandbox), "")
        found.append(
            NameRecord(
                membership.node,
                attachment.owner,
                names_of(attachment),
                tuple(ip.address for ip in result.ips),
                mac,
            )
        )
    return found


def fingerprint(state: State, host: str, network: str) -> str:
    """Changes with every attachment that becomes ready or goes."""
    rows: list[Any] = state.connection.execute(
        "SELECT owner, since FROM records WHERE host=? AND network=? AND phase='ready'"
        " ORDER BY owner",
        (host, network),
    ).fetchall()
    return digest(*(f"{owner}@{since}" for owner, since in rows))
