"""Leases: order of allocation, requested and static addresses, errors, reclaiming, cost."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from functools import partial
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

import pytest

from netplug import ipam
from netplug.errors import ConfigError, Conflict, Exhausted
from netplug.model import IPAddress, Ipam, IPInterface, Lease

HOST = "boot-1/42"


def connect(path: str | Path = ":memory:") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.executescript(ipam.SCHEMA)
    return connection


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = connect()
    connection.execute("BEGIN IMMEDIATE")
    yield connection
    connection.close()


def network(*subnets: str, **keys: Any) -> Ipam:
    return ipam.parse_ipam({"ranges": [[{"subnet": s, **keys}] for s in subnets]})


def lease(
    db: sqlite3.Connection,
    config: Ipam,
    owner: str,
    *requested: str,
    host: str = HOST,
    boot: str = "boot-1",
    segment: str = "bridge:br0",
) -> Lease:
    return ipam.allocate(
        db,
        host=host,
        boot=boot,
        segment=segment,
        network=owner.split("/")[0],
        owner=owner,
        ipam=config,
        requested=[_request(text) for text in requested],
        now=1000.0,
    )


def _request(text: str) -> IPInterface | IPAddress:
    return ip_interface(text) if "/" in text else ip_address(text)


def got(given: Lease) -> list[str]:
    return [str(one.address) for one in given.addresses]


def test_one_address_for_each_range_set(db: sqlite3.Connection) -> None:
    config = ipam.parse_ipam(
        {
            "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dns": {"nameservers": ["10.1.0.1"]},
        }
    )
    given = lease(db, config, "lan/web/eth0")
    assert got(given) == ["10.1.0.2/24", "fd00::2/64"]
    assert [str(one.gateway) for one in given.addresses] == ["10.1.0.1", "fd00::1"]
    assert given.families == (4, 6)
    assert (given.routes, given.dns, given.static) == (config.routes, config.dns, False)


def test_a_second_range_follows_when_the_first_is_full(db: sqlite3.Connection) -> None:
    config = ipam.parse_ipam(
        {"ranges": [[{"subnet": "10.1.9.0/30"}, {"subnet": "10.1.0.0/24", "gateway": "10.1.0.3"}]]}
    )
    assert [got(lease(db, config, f"lan/{i}/eth0"))[0] for i in range(4)] == [
        "10.1.9.2/30", "10.1.0.1/24", "10.1.0.2/24", "10.1.0.4/24",
    ]  # fmt: skip


def test_subnets_without_room_for_a_network_address(db: sqlite3.Connection) -> None:
    assert got(lease(db, network("10.1.0.0/31"), "a/1/eth0")) == ["10.1.0.1/31"]
    assert got(lease(db, network("fd00::/127"), "b/1/eth0")) == ["fd00::1/127"]
    assert got(lease(db, network("10.9.0.7/32"), "c/1/eth0")) == ["10.9.0.7/32"]


def test_released_addresses_come_back_last_and_in_their_order(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/29")  # .2 to .6
    for name in "abcd":
        lease(db, config, f"lan/{name}/eth0")
    for name in "ca":
        ipam.release(db, host=HOST, owner=f"lan/{name}/eth0")
    again = [got(lease(db, config, f"lan/{name}/eth0"))[0] for name in "xyz"]
    assert again == ["10.1.0.6/29", "10.1.0.4/29", "10.1.0.2/29"]


def test_release_tells_what_it_freed_and_forgives_a_second_call(db: sqlite3.Connection) -> None:
    lease(db, network("10.1.0.0/24", "fd00::/64"), "lan/web/eth0")
    freed = ipam.release(db, host=HOST, owner="lan/web/eth0")
    assert freed == (ip_address("10.1.0.2"), ip_address("fd00::2"))
    assert ipam.release(db, host=HOST, owner="lan/web/eth0") == ()


def test_two_networks_on_one_segment_never_share_an_address(db: sqlite3.Connection) -> None:
    one, two = network("10.1.0.0/29"), network("10.1.0.0/28")
    given = [
        got(lease(db, config, f"{name}/{i}/eth0"))[0].split("/")[0]
        for i in range(5)
        for name, config in (("one", one), ("two", two))
        if name == "two" or i < 2
    ]
    assert len(set(given)) == len(given) == 7


def test_segments_and_hosts_are_apart(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24")
    here = lease(db, config, "lan/a/eth0")
    assert got(lease(db, config, "lan/b/eth0", segment="bridge:br1")) == got(here)
    assert got(lease(db, config, "lan/a/eth0", host="boot-1/43")) == got(here)


def test_requested_addresses(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24", "fd00::/64")
    given = lease(db, config, "lan/a/eth0", "10.1.0.50/8", "fd00::50")
    assert got(given) == ["10.1.0.50/24", "fd00::50/64"]  # the prefix is the subnet's
    assert given.static
    half = lease(db, config, "lan/b/eth0", "fd00::51")
    assert got(half) == ["10.1.0.2/24", "fd00::51/64"]
    assert not half.static  # what is derived from the first address was not asked for


def test_an_address_taken_by_request_is_stepped_over(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/29")
    lease(db, config, "lan/a/eth0", "10.1.0.3")
    lease(db, config, "lan/b/eth0", "10.1.0.6")
    given = [got(lease(db, config, f"lan/{i}/eth0"))[0] for i in range(3)]
    assert given == ["10.1.0.2/29", "10.1.0.4/29", "10.1.0.5/29"]
    ipam.release(db, host=HOST, owner="lan/a/eth0")
    ipam.release(db, host=HOST, owner="lan/b/eth0")
    lease(db, config, "lan/c/eth0", "10.1.0.3")  # so its entry in the queue is stale
    assert got(lease(db, config, "lan/d/eth0")) == ["10.1.0.6/29"]
    with pytest.raises(Exhausted):
        lease(db, config, "lan/e/eth0")


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("10.9.0.5", "outside every range of the network: 10.1.0.0/24 (10.1.0.1-10.1.0.99)"),
        ("10.1.0.200", "outside every range"),
        ("10.1.0.0", "outside every range"),
        ("fd00::5", "outside every range"),
        ("10.1.0.1", "it is the gateway"),
        ("10.1.0.17", "excludes 10.1.0.16/28 from 10.1.0.0/24"),
    ],
)
def test_refused_requests(db: sqlite3.Connection, address: str, reason: str) -> None:
    config = network("10.1.0.0/24", rangeEnd="10.1.0.99", exclude=["10.1.0.16/28"])
    with pytest.raises(ConfigError) as caught:
        lease(db, config, "lan/a/eth0", address)
    assert f"address {address} cannot be given" in str(caught.value)
    assert reason in str(caught.value)


def test_two_requests_for_one_range_set(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24")
    with pytest.raises(ConfigError, match=r"10\.1\.0\.5 is asked for too"):
        lease(db, config, "lan/a/eth0", "10.1.0.5", "10.1.0.6")
    assert got(lease(db, config, "lan/a/eth0", "10.1.0.5", "10.1.0.5/24")) == ["10.1.0.5/24"]


def test_a_held_address_names_its_holder_and_nothing_changes(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24", "fd00::/64")
    lease(db, config, "lan/web/eth0")
    before = ipam.leases(db)
    with pytest.raises(Conflict) as caught:
        lease(db, config, "lan/other/eth0", "10.1.0.9", "fd00::2")
    assert str(caught.value) == "address fd00::2 is taken: lan/web/eth0 holds it"
    assert ipam.leases(db) == before


def test_a_second_allocation_of_one_owner_is_a_conflict(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24")
    lease(db, config, "lan/web/eth0")
    with pytest.raises(Conflict, match=r"lan/web/eth0 has an address already.*10\.1\.0\.2/24"):
        lease(db, config, "lan/web/eth0", "10.1.0.9")
    assert [str(one.address) for one in ipam.leases(db)] == ["10.1.0.2/24"]


def test_static_addresses_are_reserved(db: sqlite3.Connection) -> None:
    config = ipam.parse_ipam({"addresses": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]})
    given = lease(db, config, "lan/a/eth0")
    assert got(given) == ["10.1.0.5/24"]
    assert (str(given.addresses[0].gateway), given.static) == ("10.1.0.1", True)
    with pytest.raises(Conflict, match="lan/a/eth0 holds it"):
        lease(db, config, "lan/b/eth0")
    ipam.release(db, host=HOST, owner="lan/a/eth0")
    assert got(lease(db, config, "lan/b/eth0")) == ["10.1.0.5/24"]


def test_requests_of_a_network_without_ranges(db: sqlite3.Connection) -> None:
    assert got(lease(db, Ipam(), "lan/a/eth0", "10.1.0.5/24")) == ["10.1.0.5/24"]
    with pytest.raises(ConfigError, match="prefix length is unknown"):
        lease(db, Ipam(), "lan/b/eth0", "10.1.0.6")
    with pytest.raises(ConfigError, match="ipam gives no address"):
        lease(db, Ipam(), "lan/b/eth0")


def test_exhaustion_names_range_and_holders(db: sqlite3.Connection) -> None:
    config = network("fd00::/64", "10.1.0.0/28")
    for index in range(13):
        lease(db, config, f"lan/c{index}/eth0")
    before = ipam.leases(db)
    with pytest.raises(Exhausted) as caught:
        lease(db, config, "lan/late/eth0")
    assert str(caught.value) == (
        "network lan has no free address in 10.1.0.0/28 (10.1.0.1-10.1.0.14): all 13 are held:"
        " 10.1.0.2 by lan/c0/eth0, 10.1.0.3 by lan/c1/eth0, 10.1.0.4 by lan/c2/eth0 and 10 more"
    )
    assert "ipam ls" in caught.value.hint
    assert ipam.leases(db) == before  # not even the IPv6 address of the first set
    ipam.release(db, host=HOST, owner="lan/c7/eth0")
    assert got(lease(db, config, "lan/late/eth0"))[1] == "10.1.0.9/28"


def test_usage_and_holders(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24", "fd00::/64")
    lease(db, config, "lan/a/eth0")
    lease(db, network("10.1.0.0/24"), "other/b/eth0")
    four, six = ipam.usage(db, host=HOST, segment="bridge:br0", ipam=config)
    assert (four.range_set, four.size, four.used, four.free) == (0, 253, 2, 251)
    assert (six.range_set, six.used, six.size) == (1, 1, 2**64 - 2)
    found = ipam.holders(db, host=HOST, segment="bridge:br0", ipam=config)
    assert [(str(one.address), one.owner) for one in found] == [
        ("10.1.0.2/24", "lan/a/eth0"),
        ("10.1.0.3/24", "other/b/eth0"),
        ("fd00::2/64", "lan/a/eth0"),
    ]
    assert [one.owner for one in ipam.leases(db, network="other")] == ["other/b/eth0"]
    assert ipam.leases(db, owner="other/b/eth0")[0].since == 1000.0


def test_a_boot_forgets_the_earlier_ones(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/29")
    for index in range(3):
        lease(db, config, f"lan/{index}/eth0")
    ipam.release(db, host=HOST, owner="lan/1/eth0")
    lease(db, config, "lan/0/eth0", host="boot-2/42", boot="boot-2")
    gone = ipam.reclaim_earlier_boots(db, boot="boot-2")
    assert [one.owner for one in gone] == ["lan/0/eth0", "lan/2/eth0"]
    assert [one.host for one in ipam.leases(db)] == ["boot-2/42"]
    for table in ("pools", "released"):
        hosts = db.execute(f"SELECT DISTINCT host FROM {table}").fetchall()
        assert ("boot-1/42",) not in hosts
    assert ipam.reclaim_earlier_boots(db, boot="boot-2") == ()


def test_only_proof_frees_a_lease_within_a_boot(db: sqlite3.Connection) -> None:
    config = network("10.1.0.0/24", "fd00::/64")
    for name in ("dead", "alive"):
        lease(db, config, f"lan/{name}/eth0")
    lease(db, config, "lan/dead/eth0", host="boot-1/43")
    asked: list[str] = []

    def is_dead(owner: str) -> bool:
        asked.append(owner)
        return "dead" in owner

    gone = ipam.reclaim_dead(db, host=HOST, is_dead=is_dead)
    assert sorted(asked) == ["lan/alive/eth0", "lan/dead/eth0"]  # once each
    assert [str(one.address) for one in gone] == ["10.1.0.2/24", "fd00::2/64"]
    assert {one.host for one in ipam.leases(db, owner="lan/dead/eth0")} == {"boot-1/43"}


def test_a_widened_range_finds_addresses_that_its_queue_never_saw(db: sqlite3.Connection) -> None:
    old, new = network("10.1.0.0/29"), network("10.1.0.0/28", rangeEnd="10.1.0.8")
    for index in range(5):
        lease(db, old, f"lan/{index}/eth0")
    assert got(lease(db, new, "lan/x/eth0")) == ["10.1.0.7/28"]
    assert got(lease(db, new, "lan/y/eth0")) == ["10.1.0.8/28"]
    ipam.release(db, host=HOST, owner="lan/3/eth0")  # into the queue of the old range
    assert got(lease(db, new, "lan/z/eth0")) == ["10.1.0.5/28"]


def steps(db: sqlite3.Connection, work: Any) -> int:
    """Instructions of SQLite's virtual machine that `work` takes: a cost without a clock."""
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    db.set_progress_handler(tick, 1)
    try:
        work()
    finally:
        db.set_progress_handler(None, 0)
    return count


def fill(db: sqlite3.Connection, config: Ipam, first: int, last: int) -> None:
    for index in range(first, last):
        lease(db, config, f"lan/{index}/eth0")


@pytest.mark.parametrize("subnet", ["10.0.0.0/16", "10.0.0.0/8", "fd00::/64"])
def test_cost_does_not_grow_with_the_leases(db: sqlite3.Connection, subnet: str) -> None:
    config = network(subnet)

    def cycle() -> None:
        lease(db, config, "lan/x/eth0")
        ipam.release(db, host=HOST, owner="lan/x/eth0")

    fill(db, config, 0, 10)
    few = steps(db, cycle)
    fill(db, config, 10, 60_000 if subnet == "10.0.0.0/16" else 3_000)
    assert steps(db, cycle) <= 1.2 * few


def test_cost_stays_flat_after_the_first_lap() -> None:
    """A full pool in which one container after the other is replaced."""
    costs = []
    for subnet in ("10.0.0.0/28", "10.0.0.0/20"):
        db, config = connect(), network(subnet)
        size = ipam.usage(db, host=HOST, segment="bridge:br0", ipam=config)[0].size
        fill(db, config, 0, size)
        with pytest.raises(Exhausted):
            lease(db, config, "lan/late/eth0")
        replaced = (3, size // 2, size - 1)
        for index in replaced:
            ipam.release(db, host=HOST, owner=f"lan/{index}/eth0")
        costs.append([steps(db, partial(fill, db, config, i, i + 1)) for i in replaced])
        db.close()
    small, large = costs
    assert max(large) <= 1.2 * min(small)


def test_the_queue_of_a_large_pool_stays_as_short_as_its_leases(db: sqlite3.Connection) -> None:
    config = network("fd00::/64")
    for index in range(500):
        lease(db, config, f"lan/{index}/eth0")
        if index >= 10:
            ipam.release(db, host=HOST, owner=f"lan/{index - 10}/eth0")
    (queued,) = db.execute("SELECT count(*) FROM released").fetchone()
    assert queued <= 11


def _allocate_many(path: str, worker: int, count: int) -> None:
    db = connect(path)
    config = network("10.1.0.0/22")
    for index in range(count):
        db.execute("BEGIN IMMEDIATE")
        lease(db, config, f"lan/{worker}-{index}/eth0")
        if index % 3 == 2:
            ipam.release(db, host=HOST, owner=f"lan/{worker}-{index - 1}/eth0")
        db.execute("COMMIT")
    db.close()


def test_twenty_processes_never_get_one_address_twice(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    connect(path).close()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_allocate_many, args=(path, n, 60)) for n in range(20)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 20
    held = ipam.leases(connect(path))
    assert len(held) == 20 * 40
    assert len({one.address.ip for one in held}) == len({one.owner for one in held}) == 800
