"""What a node believes of the others: every change of the store, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netplug.kernel.tunnels import DirectRoute, Forward, Neighbour, TunnelRoute
from netplug.overlay.keys import Advert, Claim, Keys, NetworkRecord, pack, slot_order, unpack
from netplug.overlay.plan import compute_mtu
from netplug.overlay.view import View
from netplug.store import Deleted, Entry, Put

KEYS = Keys()
RECORD = NetworkRecord((ip_network("10.200.0.0/16"), ip_network("fd00:200::/48")), 24, 4096)
A = Advert("a", "ia", ip_address("192.0.2.1"), slot=3, epoch=10, mac="02:00:00:00:00:0a")
HOLD = 600.0


def claim(slot: int, node: str, revision: int) -> Put:
    return Put(KEYS.claim("web", slot), pack(Claim(node, f"i{node}")), revision)


def advert(one: Advert, revision: int = 99) -> Put:
    return Put(KEYS.advert("web", one.node), pack(one), revision)


def gone(one: Advert) -> Deleted:
    return Deleted(KEYS.advert("web", one.node), 100)


def make_view(**more: Any) -> View:
    return View("web", RECORD, KEYS, node="me", hold=HOLD, **more)


def states(view: View) -> dict[str, str]:
    return {node: peer.state for node, peer in view.peers.items()}


JOINED = [claim(3, "a", 10), advert(A)]
B = replace(A, node="b", instance="ib", epoch=20)

# what happens, at which second of the view's clock; then who is what
HISTORIES: dict[str, tuple[list[tuple[float, Any]], dict[str, str]]] = {
    "joined": ([(0, JOINED)], {"a": "present"}),
    "the advert came first": ([(0, JOINED[::-1])], {"a": "present"}),
    "without a claim": ([(0, [advert(A)])], {}),
    "silent": ([(0, JOINED), (1, [gone(A)])], {"a": "quiet"}),
    "silent for long": ([(0, JOINED), (1, [gone(A)]), (601, [])], {}),
    "silent, almost too long": ([(0, JOINED), (1, [gone(A)]), (600, [])], {"a": "quiet"}),
    "back again": ([(0, JOINED), (1, [gone(A), advert(A)])], {"a": "present"}),
    "goodbye": ([(0, JOINED), (1, [Deleted(KEYS.claim("web", 3), 50), gone(A)])], {}),
    "its subnet is another's": (
        [(0, JOINED), (1, [gone(A), claim(3, "b", 20), advert(B)])],
        {"b": "present"},
    ),
    "the old owner speaks up": (
        [(0, JOINED), (1, [claim(3, "b", 20), advert(B), advert(A)])],
        {"b": "present"},
    ),
    "an older epoch of the same node": (
        [(0, [claim(3, "a", 20), advert(A)])],
        {},
    ),
    "ourselves": ([(0, [claim(5, "me", 10), advert(replace(A, node="me", slot=5))])], {}),
    "rubbish": ([(0, [*JOINED, Put(KEYS.advert("web", "x"), b"{", 9)])], {"a": "present"}),
    "another network": ([(0, [Put(KEYS.advert("lan", "a"), pack(A), 9)])], {}),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_histories(name: str) -> None:
    steps, wanted = HISTORIES[name]
    view = make_view()
    for second, events in steps:
        for event in events:
            view.apply(event, second)
        view.expire(second)
    assert states(view) == wanted
    assert bool(view.items()) == bool(wanted)
    assert {one.vtep for one in view.allowed()} == ({A.address} if wanted else set())


def test_a_list_says_who_has_gone_meanwhile() -> None:
    view = make_view()
    for event in (*JOINED, claim(4, "c", 11), advert(replace(A, node="c", slot=4, epoch=11))):
        view.apply(event, 0)
    view.load([Entry(KEYS.claim("web", 3), pack(Claim("a", "ia")), 10)], 5)
    assert states(view) == {"a": "quiet"}
    assert view.peers["a"].since == 5


def test_after_a_restart_the_remembered_are_quiet_until_they_speak() -> None:
    view = make_view(remembered=[A])
    assert states(view) == {"a": "quiet"}
    assert view.items()
    view.load([Entry(e.key, e.value, e.revision) for e in JOINED], 1)
    assert states(view) == {"a": "present"}


def test_what_leads_to_a_peer() -> None:
    view = make_view()
    for event in JOINED:
        view.apply(event, 0)
    v4, v6 = ip_network("10.200.3.0/24"), ip_network("fd00:200:0:3::/64")
    assert view.items() == {
        Neighbour(v4[0], A.mac),
        TunnelRoute(v4, v4[0]),
        Neighbour(v6[0], A.mac),
        TunnelRoute(v6, v6[0]),
        Forward(A.mac, A.address),
    }


def test_direct_where_the_peer_is_on_the_link_and_of_that_family() -> None:
    view = make_view(on_link=(ip_network("192.0.2.0/24"),))
    for event in JOINED:
        view.apply(event, 0)
    assert DirectRoute(ip_network("10.200.3.0/24"), A.address) in view.items()
    assert (
        TunnelRoute(ip_network("fd00:200:0:3::/64"), ip_address("fd00:200:0:3::")) in view.items()
    )
    other = make_view(on_link=(ip_network("198.51.100.0/24"),))
    for event in JOINED:
        other.apply(event, 0)
    assert not any(isinstance(item, DirectRoute) for item in other.items())


def test_slots_are_subnets_of_every_range() -> None:
    assert RECORD.slots == 256
    assert RECORD.subnets(255) == (ip_network("10.200.255.0/24"), ip_network("fd00:200:0:ff::/64"))
    assert sorted(slot_order("n1", 256)) == list(range(256))
    assert list(slot_order("n1", 256)) != list(slot_order("n2", 256))


def test_records_survive_what_a_newer_version_adds() -> None:
    assert unpack(Advert, pack(A)[:-1] + b', "colour": "red"}') == A
    assert unpack(Advert, b"no json") is None
    assert unpack(Advert, b"[]") is None


def test_mtu_by_underlay() -> None:
    assert compute_mtu(1500, ip_address("192.0.2.1")) == 1450
    assert compute_mtu(1500, ip_address("2001:db8::1")) == 1430
    assert compute_mtu(9000, ip_address("192.0.2.1"), 1400) == 1400
    assert compute_mtu(1400, ip_address("192.0.2.1"), 1500) == 1350
