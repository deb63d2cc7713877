"""What one node believes of one network's other nodes: a pure state machine over the store.

    present   advertised, and the owner of its subnet: entries are installed
    quiet     silent, its subnet still its own: entries stay for the hold-down
    (gone)    it gave its subnet up, another node owns it, or the hold-down is over

A store that does not answer moves nothing: `now` counts only the seconds for which it
answered. A node that died keeps harmless routes for a while; one that was merely cut off
from the store loses no packet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from netplug.kernel.tunnelguard import Allowed
from netplug.kernel.tunnels import Bridged, DirectRoute, Forward, Item, Neighbour, TunnelRoute
from netplug.kernel.wireguard import Peer as WireguardPeer
from netplug.model import IPNetwork
from netplug.overlay.keys import Advert, Claim, Keys, NameRecord, NetworkRecord, unpack
from netplug.store import Deleted, Entry, Put

HOLD_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Peer:
    advert: Advert
    state: Literal["present", "quiet"]
    since: float  # on the clock of the view


Entries = frozenset[Item | WireguardPeer]


class View:
    """`remembered` are the peers that were known before a restart: quiet until they speak.

    `on_link` are the networks of the underlay's link, empty where routes are never direct.
    """

    def __init__(
        self,
        network: str,
        record: NetworkRecord,
        keys: Keys,
        *,
        node: str,
        remembered: Iterable[Advert] = (),
        on_link: tuple[IPNetwork, ...] = (),
        hold: float = HOLD_SECONDS,
    ) -> None:
        self._network, self._record, self._keys = network, record, keys
        self._node, self._hold = node, hold
        self.on_link = on_link
        self.claims: dict[int, tuple[Claim, int]] = {}
        self.adverts: dict[str, Advert] = {}
        self.peers: dict[str, Peer] = {a.node: Peer(a, "quiet", 0.0) for a in remembered}
        self.names: dict[str, dict[str, NameRecord]] = {}
        self._items: dict[str, Entries] = {}
        self.version = 0  # grows with every change of a peer or a name
        self._allowed: dict[str, frozenset[Allowed]] = {}
        self._all_items: Entries | None = None
        self._all_allowed: frozenset[Allowed] | None = None
        for name in self.peers:
            self._derive(name)

    # --- what the store says

    def load(self, entries: Iterable[Entry], now: float) -> None:
        """The whole truth of this moment: what is not in it has gone meanwhile."""
        self.claims.clear()
        self.adverts.clear()
        self.names.clear()
        for entry in entries:
            self._take(entry.key, entry.value, entry.revision)
        for node in {*self.adverts, *self.peers}:
            self._settle(node, now)

    def apply(self, event: Put | Deleted, now: float) -> None:
        """One change."""
        value = event.value if isinstance(event, Put) else None
        for node in self._take(event.key, value, event.revision):
            self._settle(node, now)

    def expire(self, now: float) -> bool:
        """Removes those whose hold-down is over; whether there were any."""
        late = [
            node
            for node, peer in self.peers.items()
            if peer.state == "quiet" and now - peer.since >= self._hold
        ]
        for node in late:
            self._settle(node, now)
        return bool(late)

    def _take(self, key: str, value: bytes | None, revision: int) -> set[str]:
        """Notes a key's value; the nodes that it may concern."""
        kind, network, rest = self._keys.split(key)
        if network != self._network:
            return set()
        if kind == "own" and rest.isdigit():
            return self._take_claim(int(rest), value, revision)
        if kind == "node":
            self.adverts.pop(rest, None)
            advert = unpack(Advert, value) if value else None
            if advert is not None and advert.node == rest:
                self.adverts[rest] = advert
            return {rest}
        if kind == "name":
            node, _, number = rest.partition("/")
            held = self.names.setdefault(node, {})
            held.pop(number, None)
            record = unpack(NameRecord, value) if value else None
            if record is not None:
                held[number] = record
            return {node}
        return set()

    def _take_claim(self, slot: int, value: bytes | None, revision: int) -> set[str]:
        self.claims.pop(slot, None)
        claim = unpack(Claim, value) if value else None
        if claim is not None:
            self.claims[slot] = claim, revision
        return {advert.node for advert in self.adverts.values() if advert.slot == slot} | {
            node for node, peer in self.peers.items() if peer.advert.slot == slot
        }

    # --- what follows from it

    def _settle(self, node: str, now: float) -> None:
        if node == self._node:
            return
        advert, known = self.adverts.get(node), self.peers.get(node)
        if advert is not None and self._owns(advert):
            if known is None or (known.advert, known.state) != (advert, "present"):
                self.peers[node] = Peer(advert, "present", now)
        elif known is not None and self._owns(known.advert):
            if known.state == "present":
                self.peers[node] = Peer(known.advert, "quiet", now)
            elif now - known.since >= self._hold:
                del self.peers[node]
        else:
            self.peers.pop(node, None)
        self._derive(node)

    def _derive(self, node: str) -> None:
        """What follows for the kernel. Kept for each node: a change must not cost all of them."""
        peer = self.peers.get(node)
        self._all_items = self._all_allowed = None
        self.version += 1
        if peer is None:
            self._items.pop(node, None)
            self._allowed.pop(node, None)
            return
        advert = peer.advert
        self._items[node] = frozenset(self._compute_items(advert))
        subnets = self._record.subnets(advert.slot)
        self._allowed[node] = frozenset(Allowed(advert.address, subnet) for subnet in subnets)

    def _owns(self, advert: Advert) -> bool:
        """Does the advert speak for the claim that stands? One of an older epoch does not."""
        claim, epoch = self.claims.get(advert.slot, (None, 0))
        return claim is not None and claim.node == advert.node and epoch == advert.epoch

    def _compute_items(self, advert: Advert) -> Iterable[Item | WireguardPeer]:
        """What leads to a peer; see `resources.tunnels.PeerSet`."""
        record = self._record
        if record.mode == "bridged":
            for entry in self.names.get(advert.node, {}).values():
                if entry.mac:
                    yield Bridged(entry.mac)
                    yield Forward(entry.mac, advert.address)
                    for address in entry.addresses:
                        yield Neighbour(address.ip, entry.mac)
            return
        if record.encrypt:
            if advert.key:
                subnets = record.subnets(advert.slot)
                yield WireguardPeer(advert.key, advert.address, record.port, subnets)
            return
        tunnelled = False
        for subnet in record.subnets(advert.slot):
            if self._is_direct(advert, subnet):
                yield DirectRoute(subnet, advert.address)
                continue
            tunnelled = True
            yield Neighbour(subnet.network_address, advert.mac)
            yield TunnelRoute(subnet, subnet.network_address)
        if tunnelled:
            yield Forward(advert.mac, advert.address)

    def _is_direct(self, advert: Advert, subnet: IPNetwork) -> bool:
        same = advert.address.version == subnet.version
        return same and any(advert.address in network for network in self.on_link)

    def items(self) -> Entries:
        """What the kernel should hold for all peers."""
        if self._all_items is None:
            self._all_items = frozenset[Item | WireguardPeer]().union(*self._items.values())
        return self._all_items

    def allowed(self) -> frozenset[Allowed]:
        """Which node may send from which addresses."""
        if self._all_allowed is None:
            self._all_allowed = frozenset[Allowed]().union(*self._allowed.values())
        return self._all_allowed

    def items_of(self, node: str) -> Entries:
        return self._items.get(node, frozenset())

    def remote_names(self) -> list[NameRecord]:
        """Containers of the other nodes that are believed to live."""
        return [
            record
            for node, records in self.names.items()
            if node in self.peers
            for record in records.values()
        ]

    def owner(self, slot: int) -> tuple[Claim, int] | None:
        """Who owns a slot, and since which epoch."""
        return self.claims.get(slot)
