"""Several processes at once on one state and one kernel: nothing is lost, doubled or left."""

from __future__ import annotations

import os
import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

import pytest
from attaching import V4, V6, Site, dump, gateway_network, make_network

from netplug.errors import Busy, CheckFailed, Conflict, NetplugError
from netplug.model import Attachment, Network, Port

if TYPE_CHECKING:
    from conftest import Host

Work = Callable[[], None]
LAN = gateway_network("lan", V4, V6)
DMZ = gateway_network("dmz", {"subnet": "10.2.0.0/24"}, {"subnet": "fd00:2::/64"}, bridge="br1")


def at_once(*works: Work) -> None:
    """Each in a process of its own, let go at one moment; any unexpected error fails."""
    gate = get_context("fork").Barrier(len(works))
    children = [_fork(work, gate) for work in works]
    states = [os.waitpid(pid, 0)[1] for pid in children]
    assert states == [0] * len(works), states


def _fork(work: Work, gate: Any) -> int:
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        gate.wait()
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def add(site: Site, network: Network, attachment: Attachment) -> None:
    with site.engine() as engine:
        engine.add(network, attachment)


def add_unless_deleted(site: Site, network: Network, attachment: Attachment) -> None:
    try:
        add(site, network, attachment)
    except (Busy, Conflict):
        pass


def test_add_and_del_of_one_attachment(host: Host) -> None:
    """Either the DEL was first and finds nothing, or it removes all that the ADD made."""
    site = Site(host)
    attachment = site.attachment(LAN, host.container("web"), "web", ports=(Port(8080, 80),))
    before = dump(host)
    for _ in range(12):
        at_once(lambda: add_unless_deleted(site, LAN, attachment), lambda: site.delete(attachment))
        if site.record(attachment) is not None:
            site.check(attachment)
            site.delete(attachment)
        site.demand_nothing_left(before)


def test_one_attachment_added_twice_at_once(host: Host) -> None:
    """One of the two is told that it exists; what the other made is whole."""
    site = Site(host)
    attachment = site.attachment(LAN, host.container("web"), "web")
    before = dump(host)
    for _ in range(5):
        at_once(*[lambda: add_unless_deleted(site, LAN, attachment)] * 2)
        site.check(attachment)
        site.delete(attachment)
        site.demand_nothing_left(before)


def test_two_adds_that_both_make_the_bridge(host: Host) -> None:
    site = Site(host)
    two = [site.attachment(LAN, host.container(name), name) for name in ("one", "two")]
    before = dump(host)
    for _ in range(6):
        at_once(*(partial(add, site, LAN, a) for a in two))
        for attachment in two:
            site.check(attachment)
        at_once(*(partial(site.delete, a) for a in two))
        site.demand_nothing_left(before)


def test_the_last_user_leaves_while_another_comes(host: Host) -> None:
    """The newcomer's bridge, gateway and masquerade are there, whoever was first."""
    site = Site(host)
    old, new = (site.attachment(LAN, host.container(name), name) for name in ("old", "new"))
    before = dump(host)
    add(site, LAN, old)
    for _ in range(12):
        at_once(partial(site.delete, old), partial(add, site, LAN, new))
        site.check(new)
        old, new = new, old
    site.delete(old)
    site.demand_nothing_left(before)


def test_one_port_for_two(host: Host) -> None:
    """Of two that want one port, one gets it; the other leaves no trace."""
    site = Site(host)
    two = [
        site.attachment(LAN, host.container(name), name, ports=(Port(8080, 80),))
        for name in ("one", "two")
    ]
    before = dump(host)
    for _ in range(5):
        at_once(*(partial(add_unless_deleted, site, LAN, a) for a in two))
        winners = [a for a in two if site.record(a) is not None]
        assert len(winners) == 1
        site.check(winners[0])
        site.delete(*winners)
        site.demand_nothing_left(before)


# callers that do anything at any time

CALLERS = 8


def act(site: Site, seed: int, rounds: int, networks: list[Network], own: list[Attachment]) -> None:
    """ADD, DEL, CHECK and GC of one's own attachments, in an order that `seed` decides."""
    choice = random.Random(seed)
    for _ in range(rounds):
        attachment = choice.choice(own)
        network = next(n for n in networks if n.name == attachment.network)
        with site.engine() as engine:
            match choice.choice(("add", "add", "del", "check", "gc")):
                case "add":
                    try:
                        result = engine.add(network, attachment)
                        assert len(result.ips) == 2
                    except Conflict:
                        assert engine.state.get(engine.host.id, attachment.owner)
                case "del":
                    engine.delete(attachment)
                case "check":
                    try:
                        engine.check(attachment)
                    except CheckFailed:
                        assert engine.state.get(engine.host.id, attachment.owner) is None
                case "gc":  # no opinion: takes the dead alone, and nobody here is dead
                    engine.gc(network.name, None)


def storm(host: Host, rounds: int, seed: int) -> None:
    site = Site(host)
    networks = [LAN, DMZ]
    before = dump(host)
    everyone: list[list[Attachment]] = []
    for number in range(CALLERS):
        container = host.container(f"c{number}")
        everyone.append(
            [
                site.attachment(network, container, f"c{number}", ifname=f"eth{index}")
                for index, network in enumerate(networks)
            ]
        )
    at_once(
        *(
            partial(act, site, seed * 100 + n, rounds, networks, own)
            for n, own in enumerate(everyone)
        )
    )
    held = [row[3:5] for row in site.rows()["leases"]]
    assert len(held) == len({*held})
    alive = [a for own in everyone for a in own if site.record(a) is not None]
    addresses = []
    for attachment in alive:
        site.check(attachment)
        record = site.record(attachment)
        assert record is not None and record.result is not None
        addresses += [(attachment.network, ip.address) for ip in record.result.ips]
    assert len(addresses) == len({*addresses}) == 2 * len(alive)
    site.delete(*(attachment for own in everyone for attachment in own))
    site.demand_nothing_left(before)


def test_eight_callers_who_do_anything(host: Host) -> None:
    storm(host, rounds=6, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
def test_eight_callers_for_long(host: Host, seed: int) -> None:
    storm(host, rounds=40, seed=seed)


def test_twenty_at_once_get_addresses_of_their_own(host: Host) -> None:
    network = make_network("lan", {"subnet": "10.1.0.0/27"})
    site = Site(host)
    before = dump(host)
    everyone = [site.attachment(network, host.container(f"c{n}"), f"c{n}") for n in range(20)]
    at_once(*(partial(add, site, network, a) for a in everyone))
    addresses = {record.result.ips[0].address for record in _records(site)}
    assert len(addresses) == 20
    at_once(*(partial(site.delete, a) for a in everyone))
    site.demand_nothing_left(before)


def _records(site: Site) -> list[Any]:
    with site.engine() as engine:
        return engine.records()


def test_gc_spares_an_add_that_is_running(host: Host) -> None:
    """GC waits for the ADD's lock; what it then finds unlisted, it removes whole."""
    site = Site(host)
    attachment = site.attachment(LAN, host.container("web"), "web")
    before = dump(host)
    for _ in range(6):

        def collect() -> None:
            with site.engine() as engine:
                engine.gc(LAN.name, [("web", "eth0")])

        at_once(lambda: add(site, LAN, attachment), collect)
        site.check(attachment)
        site.delete(attachment)
        site.demand_nothing_left(before)


def test_a_hanging_process_makes_others_busy_not_wrong(host: Host) -> None:
    site = Site(host)
    attachment, _ = site.add(LAN, host.container("web"), "web")
    with (
        site.engine() as holder,
        holder.state.locked(holder.lock_name(attachment.owner)),
        site.engine() as other,
        pytest.raises(Busy),
        other.state.locked(other.lock_name(attachment.owner), seconds=0.01),
    ):
        raise NetplugError("both hold the lock")
    site.check(attachment)
    site.delete(attachment)


def test_gc_decides_by_the_record_of_now(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What GC listed as half made, or did not list, may have become an attachment since."""
    site = Site(host)
    attachment, _ = site.add(LAN, host.container("web"), "web")
    record = site.record(attachment)
    assert record is not None
    for listed in ([replace(record, phase="pending")], []):
        with site.engine() as engine, monkeypatch.context() as patch:
            patch.setattr(engine, "records", lambda *_, listed=listed: listed)
            assert engine.gc(LAN.name, None) == []
        site.check(attachment)
    site.delete(attachment)


def test_gc_takes_what_has_a_mark_and_no_record(host: Host) -> None:
    site = Site(host)
    before = dump(host)
    attachment = site.attachment(LAN, None, "lost")
    name = attachment.host_name
    host.run(f"ip link add {name} type veth peer name other")
    host.run(f"ip link set {name} alias {attachment.mark}")
    assert site.gc(DMZ) == []
    assert site.gc(LAN, ("lost", "eth0")) == []
    assert site.gc(LAN) == [attachment.owner]
    site.demand_nothing_left(before)
