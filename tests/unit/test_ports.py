"""Published ports: the conflict rules of bind(2), all or nothing, cost."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug import ports
from netplug.errors import Conflict
from netplug.model import Family, Port, Protocol
from netplug.ports import HostPort

HOST = "boot-1/42"


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    connection = open_db()
    yield connection
    connection.close()


def open_db() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(ports.SCHEMA)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def port(
    number: int, address: str = "", protocol: Protocol = "tcp", family: Family = 4
) -> HostPort:
    named = ip_address(address) if address else None
    return HostPort(family if named is None else named.version, named, protocol, number)


def reserve(db: sqlite3.Connection, owner: str, *wanted: HostPort, host: str = HOST) -> None:
    ports.reserve(db, host=host, owner=owner, ports=wanted)


def test_each_family_of_the_attachment_is_reserved() -> None:
    asked = [
        Port(8080, 80),
        Port(53, 53, "udp", ip_address("10.0.0.1")),
        Port(9, 9, "sctp", ip_address("::")),
    ]
    assert ports.compute_host_ports(asked, (4, 6)) == (
        port(8080),
        port(8080, family=6),
        port(53, "10.0.0.1", "udp"),
        port(9, "", "sctp", 6),
    )


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (port(80), port(80), True),
        (port(80), port(80, "10.0.0.1"), True),
        (port(80, "10.0.0.1"), port(80), True),
        (port(80, "0.0.0.0"), port(80, "127.0.0.1"), True),
        (port(80, "10.0.0.1"), port(80, "10.0.0.1"), True),
        (port(80, "fd00::1"), port(80, "::"), True),
        (port(80, "10.0.0.1"), port(80, "10.0.0.2"), False),
        (port(80), port(81), False),
        (port(80), port(80, protocol="udp"), False),
        (port(80), port(80, family=6), False),
    ],
)
def test_conflicts(db: sqlite3.Connection, first: HostPort, second: HostPort, clash: bool) -> None:
    reserve(db, "lan/web/eth0", first)
    if not clash:
        reserve(db, "lan/other/eth0", second)
        return
    with pytest.raises(Conflict) as caught:
        reserve(db, "lan/other/eth0", second)
    assert str(caught.value) == f"port {second} is taken: lan/web/eth0 publishes it"
    reserve(db, "lan/other/eth0", second, host="boot-1/43")


def test_a_conflict_leaves_nothing_behind(db: sqlite3.Connection) -> None:
    reserve(db, "lan/web/eth0", port(8080), port(53, "10.0.0.1", "udp"))
    reserve(db, "lan/other/eth0", port(1))
    before = ports.published(db)
    with pytest.raises(Conflict, match=r"port 10\.0\.0\.1:53/udp is taken"):
        reserve(db, "lan/other/eth0", port(2), port(3), port(53, "10.0.0.1", "udp"), port(4))
    assert ports.published(db) == before


def test_one_port_asked_for_twice(db: sqlite3.Connection) -> None:
    with pytest.raises(Conflict, match=r"0\.0\.0\.0:80/tcp is asked for twice: by lan/web/eth0"):
        reserve(db, "lan/web/eth0", port(80, "10.0.0.1"), port(80))
    assert ports.published(db) == ()


def test_release_and_list(db: sqlite3.Connection) -> None:
    mine = (port(443, "10.0.0.1"), port(80, family=6))
    reserve(db, "lan/web/eth0", *mine)
    reserve(db, "lan/other/eth0", port(1, protocol="sctp"))
    assert [str(one.port) for one in ports.published(db, host=HOST)] == [
        "0.0.0.0:1/sctp", "10.0.0.1:443/tcp", "[::]:80/tcp",
    ]  # fmt: skip
    assert {one.port for one in ports.published(db, owner="lan/web/eth0")} == set(mine)
    assert set(ports.release(db, host=HOST, owner="lan/web/eth0")) == set(mine)
    assert ports.release(db, host=HOST, owner="lan/web/eth0") == ()
    reserve(db, "lan/next/eth0", *mine)


def test_hosts_of_the_past_are_forgotten(db: sqlite3.Connection) -> None:
    reserve(db, "lan/web/eth0", port(80))
    reserve(db, "lan/web/eth0", port(80), host="boot-2/42")
    gone = ports.reclaim_hosts(db, is_past=lambda host: host.startswith("boot-1/"))
    assert [(one.host, one.owner) for one in gone] == [(HOST, "lan/web/eth0")]
    assert [one.host for one in ports.published(db)] == ["boot-2/42"]


def test_cost_does_not_grow_with_the_ports(db: sqlite3.Connection) -> None:
    count = 0

    def tick() -> int:
        nonlocal count
        count += 1
        return 0

    def cycle() -> int:
        nonlocal count
        count = 0
        db.set_progress_handler(tick, 1)
        reserve(db, "lan/x/eth0", port(8080))
        ports.release(db, host=HOST, owner="lan/x/eth0")
        db.set_progress_handler(None, 0)
        return count

    reserve(db, "lan/0/eth0", port(10_000))
    few = cycle()
    for number in range(1, 5000):
        reserve(db, f"lan/{number}/eth0", port(10_000 + number))
    assert cycle() <= 1.2 * few


addresses = st.sampled_from(["", "0.0.0.0", "10.0.0.1", "10.0.0.2", "::", "fd00::1"])
wanted_ports = st.builds(
    port,
    st.integers(1, 3),
    addresses,
    st.sampled_from(["tcp", "udp"]),
    st.sampled_from([4, 6]),
)


@given(st.lists(st.lists(wanted_ports, min_size=1, max_size=3), max_size=12))
def test_what_is_reserved_never_meets(requests: list[list[HostPort]]) -> None:
    db = open_db()
    kept: list[HostPort] = []
    for index, request in enumerate(requests):
        together = kept + request
        clash = any(meet(a, b) for i, b in enumerate(together) if i >= len(kept)
                    for a in together[:i])  # fmt: skip
        try:
            reserve(db, f"lan/{index}/eth0", *request)
        except Conflict:
            assert clash
        else:
            assert not clash
            kept += request
    assert len(ports.published(db)) == len(kept)
    db.close()


def meet(a: HostPort, b: HostPort) -> bool:
    wild = any(one.host_ip is None or one.host_ip.is_unspecified for one in (a, b))
    same = (a.family, a.protocol, a.port) == (b.family, b.protocol, b.port)
    return same and (wild or a.host_ip == b.host_ip)
