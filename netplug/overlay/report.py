"""What is told of this node's networks: desired against actual, peer by peer."""

from __future__ import annotations

from typing import Any

from netplug.kernel import Kernel
from netplug.kernel.wireguard import Peer as WireguardPeer
from netplug.overlay.member import Member
from netplug.overlay.view import Entries, Peer
from netplug.resources.tunnels import item_words


def describe_member(member: Member, kernel: Kernel, now: float, *, peers: bool) -> dict[str, Any]:
    """One network as JSON-ready values; `peers` adds each peer with what its entries lack."""
    m = member.membership
    actual: Entries = frozenset(member.peer_set.read(kernel) or ())
    wanted = member.view.items()
    counted: dict[str, Any] = {
        "network": m.network,
        "mode": m.record.mode,
        "encrypt": m.record.encrypt,
        "vni": m.record.vni,
        "port": m.record.port,
        "subnets": [str(subnet) for subnet in m.subnets],
        "ranges": [str(whole) for whole in m.record.ranges],
        "address": str(m.address),
        "underlay": m.underlay,
        "tunnel": m.tunnel,
        "mtu": m.mtu,
        "lost": m.lost,
        "problem": member.problem,
        "filter": member.unguarded or "on",
        "peers": len(member.view.peers),
        "quiet": sum(peer.state == "quiet" for peer in member.view.peers.values()),
        "entries": {
            "desired": len(wanted),
            "actual": len(actual),
            "missing": [words_of(item) for item in wanted - actual][:20],
            "unwanted": [words_of(item) for item in actual - wanted][:20],
        },
    }
    if peers:
        counted["peer_list"] = [
            _describe_peer(member, peer, actual, now)
            for _, peer in sorted(member.view.peers.items())
        ]
    return counted


def words_of(item: object) -> str:
    if isinstance(item, WireguardPeer):
        return f"WireGuard peer {item.address}"
    return item_words(item)  # type: ignore[arg-type]


def _describe_peer(member: Member, peer: Peer, actual: Entries, now: float) -> dict[str, Any]:
    advert = peer.advert
    wanted = member.view.items_of(advert.node)
    return {
        "node": advert.node,
        "state": peer.state,
        "seconds": round(now - peer.since, 1),
        "address": str(advert.address),
        "subnets": [str(s) for s in member.membership.record.subnets(advert.slot)],
        "mac": advert.mac,
        "epoch": advert.epoch,
        "desired": len(wanted),
        "actual": len(wanted & actual),
        "missing": [words_of(item) for item in wanted - actual],
        "containers": len(member.view.names.get(advert.node, {})),
    }
