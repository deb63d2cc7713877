"""The allocator against a model: random networks on one segment, random orders of calls."""

from __future__ import annotations

import sqlite3
from ipaddress import ip_address
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from netplug import ipam
from netplug.errors import ConfigError, Conflict, Exhausted
from netplug.model import IPAddress, Ipam

BASE = int(ip_address("10.1.0.0"))
HOST = "boot/1"


@st.composite
def configurations(draw: st.DrawFn) -> tuple[Ipam, list[int]]:
    """An `Ipam` of one range set inside 10.1.0.0/27, and its usable addresses in order."""
    gateway = draw(st.integers(1, 30))
    cut = draw(st.integers(2, 29))
    bounds = [(draw(st.integers(1, cut)), cut)]
    if draw(st.booleans()):
        bounds.insert(draw(st.integers(0, 1)), (cut + 1, draw(st.integers(cut + 1, 30))))
    excluded = draw(st.lists(st.integers(1, 30), max_size=3))
    ranges: list[dict[str, Any]] = [
        {
            "subnet": "10.1.0.0/27",
            "gateway": str(ip_address(BASE + gateway)),
            "rangeStart": str(ip_address(BASE + low)),
            "rangeEnd": str(ip_address(BASE + high)),
            "exclude": [str(ip_address(BASE + one)) for one in excluded],
        }
        for low, high in bounds
    ]
    usable = [
        n for low, high in bounds for n in range(low, high + 1) if n not in (gateway, *excluded)
    ]
    try:
        return ipam.parse_ipam({"ranges": [ranges]}), [BASE + n for n in usable]
    except ConfigError:
        return ipam.parse_ipam({"subnet": "10.1.0.0/27"}), [BASE + n for n in range(2, 31)]


class Pool:
    """What one range set should do: fresh addresses first, then the longest released one."""

    def __init__(self, usable: list[int]) -> None:
        self.usable = usable
        self.cursor = -1
        self.queue: list[int] = []

    def next(self, taken: set[int]) -> int | None:
        found = self.forward(taken)
        while found is None and self.queue:
            if (address := self.queue.pop(0)) not in taken:
                found, self.cursor = address, len(self.usable) - 1
        if found is None:
            before, self.cursor = self.cursor, -1
            found = self.forward(taken)
            self.cursor = before if found is None else self.cursor
        return found

    def forward(self, taken: set[int]) -> int | None:
        for index in range(self.cursor + 1, len(self.usable)):
            if self.usable[index] not in taken:
                self.cursor = index
                return self.usable[index]
        return None

    def release(self, address: int) -> None:
        self.queue = [one for one in self.queue if one != address] + [address]


class Allocator(RuleBasedStateMachine):
    """Two networks, whose ranges may overlap, on one segment."""

    def __init__(self) -> None:
        super().__init__()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.executescript(ipam.SCHEMA)
        self.db.execute("BEGIN IMMEDIATE")
        self.held: dict[str, int] = {}
        self.owners_pool: dict[str, Pool] = {}
        self.count = 0

    @initialize(networks=st.tuples(configurations(), configurations()))
    def configure(self, networks: tuple[tuple[Ipam, list[int]], ...]) -> None:
        self.networks = networks
        shared = {tuple(usable): Pool(usable) for _, usable in networks}
        self.pools = [shared[tuple(usable)] for _, usable in networks]

    def allocate(self, which: int, owner: str, *requested: IPAddress) -> int:
        lease = ipam.allocate(
            self.db, host=HOST, boot="boot", segment="s", network=f"n{which}", owner=owner,
            ipam=self.networks[which][0], requested=requested, now=0.0,
        )  # fmt: skip
        (one,) = lease.addresses
        return int(one.address.ip)

    @rule(which=st.integers(0, 1))
    def take(self, which: int) -> None:
        self.count += 1
        owner = f"n{which}/{self.count}/eth0"
        expected = self.pools[which].next(set(self.held.values()))
        try:
            address = self.allocate(which, owner)
        except Exhausted:
            assert expected is None
            return
        assert address == expected
        self.hold(owner, which, address)

    def hold(self, owner: str, which: int, address: int) -> None:
        assert address in self.networks[which][1]
        assert address not in self.held.values()
        self.held[owner] = address
        self.owners_pool[owner] = self.pools[which]

    @rule(which=st.integers(0, 1), offset=st.integers(0, 31))
    def take_by_name(self, which: int, offset: int) -> None:
        self.count += 1
        owner, wanted = f"n{which}/{self.count}/eth0", BASE + offset
        try:
            address = self.allocate(which, owner, ip_address(wanted))
        except ConfigError:
            assert wanted not in self.networks[which][1]
        except Conflict:
            assert wanted in self.held.values()
        else:
            assert address == wanted
            self.hold(owner, which, address)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        freed = ipam.release(self.db, host=HOST, owner=owner)
        assert [int(one) for one in freed] == [self.held[owner]]
        self.owners_pool.pop(owner).release(self.held.pop(owner))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), which=st.integers(0, 1))
    def take_twice(self, data: st.DataObject, which: int) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        try:
            self.allocate(which, owner)
        except Conflict:
            return
        raise AssertionError("one owner has two leases")

    @invariant()
    def the_table_says_the_same(self) -> None:
        stored = {one.owner: int(one.address.ip) for one in ipam.leases(self.db)}
        assert stored == self.held
        assert len(set(stored.values())) == len(stored)

    def teardown(self) -> None:
        self.db.close()


TestAllocator = Allocator.TestCase
TestAllocator.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
