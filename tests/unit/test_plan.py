"""The rules of add, remove, check: who is undone, in which order, whatever fails."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netplug import plan
from netplug.errors import KernelRefused
from netplug.kernel import Kernel
from netplug.plan import Plan
from netplug.resources import Resource, Shell
from netplug.resources.addresses import Addresses, Sysctl
from netplug.resources.links import Bridge, Veth


@dataclass
class World:
    """What exists, by name, and what was done to it; stands in for the kernel."""

    things: set[str] = field(default_factory=set)
    deeds: list[str] = field(default_factory=list)

    @property
    def kernel(self) -> Kernel:
        return cast(Kernel, self)


@dataclass(frozen=True)
class Thing:
    """A resource that exists or not; `apply_fails` may still have half made it."""

    name: str
    key: str | None = None
    apply_fails: bool = False
    undo_fails: bool = False

    def describe(self) -> str:
        return f"thing {self.name}"

    def present(self, kernel: Any) -> str | None:
        return "" if self.name in kernel.things else None

    def apply(self, kernel: Any) -> bool:
        kernel.deeds.append(f"+{self.name}")
        absent = self.name not in kernel.things
        kernel.things.add(self.name)
        if self.apply_fails:
            raise KernelRefused(f"{self.name} half made")
        return absent

    def undo(self, kernel: Any) -> None:
        kernel.deeds.append(f"-{self.name}")
        if self.undo_fails:
            raise KernelRefused(f"{self.name} stays")
        kernel.things.discard(self.name)

    def shell(self, shell: Shell) -> list[str]:
        return [f"make {self.name}"]


class Others:
    """Sharing with keys that other records use, and keys that were there before us."""

    def __init__(self, *used: str) -> None:
        self.used = used
        self.held: list[str] = []
        self.ours: set[str] = set()
        self.left = False

    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        self.held.append(key)
        yield

    def claimed(self, key: str) -> bool:
        return key in self.ours

    def claim(self, key: str) -> None:
        self.ours.add(key)

    def leave(self) -> None:
        self.left = True

    def may_undo(self, key: str) -> bool:
        assert self.left, "asked before it said that it leaves"
        return key in self.ours and key not in self.used


def make(*names: str) -> Plan:
    return Plan(tuple(Thing(name) for name in names))


def test_add_applies_in_order_and_names_what_was_absent() -> None:
    world = World({"b"})
    made = plan.add(world.kernel, make("a", "b", "c"))
    assert world.deeds == ["+a", "+b", "+c"]
    assert [cast(Thing, step).name for step in made] == ["a", "c"]


def test_a_failure_undoes_what_was_begun_in_reverse() -> None:
    world = World()
    steps = Plan((Thing("a"), Thing("b"), Thing("c", apply_fails=True), Thing("d")))
    with pytest.raises(KernelRefused, match="c half made"):
        plan.add(world.kernel, steps)
    assert world.deeds == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert world.things == set()


def test_an_interrupt_undoes_too() -> None:
    world = World()

    @dataclass(frozen=True)
    class Interrupted(Thing):
        def apply(self, kernel: Any) -> bool:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan.add(world.kernel, Plan((Thing("a"), cast(Resource, Interrupted("b")))))
    assert world.things == set()


def test_remove_goes_on_after_errors_and_returns_them() -> None:
    world = World({"a", "b", "c"})
    steps = Plan((Thing("a"), Thing("b", undo_fails=True), Thing("c")))
    errors = plan.remove(world.kernel, steps)
    assert [str(error) for error in errors] == ["b stays"]
    assert world.deeds == ["-c", "-b", "-a"]
    assert world.things == {"b"}


def test_a_shared_thing_of_others_stays() -> None:
    world = World()
    steps = Plan((Thing("bridge", key="k1"), Thing("own"), Thing("rules", key="k2")))
    sharing = Others("k1")
    plan.add(world.kernel, steps, sharing)
    assert sharing.ours == {"k1", "k2"}
    plan.remove(world.kernel, steps, sharing)
    assert world.things == {"bridge"}
    assert sharing.held == ["k1", "k2", "k2", "k1"]


def test_an_adopted_thing_is_never_claimed_nor_undone() -> None:
    world = World({"bridge"})
    steps = Plan((Thing("bridge", key="k1"), Thing("own", apply_fails=True)))
    sharing = Others()
    with pytest.raises(KernelRefused):
        plan.add(world.kernel, steps, sharing)
    assert sharing.ours == set()
    assert world.things == {"bridge"}


def test_check_names_what_is_absent_in_order() -> None:
    found = plan.check(World({"b"}).kernel, make("a", "b", "c"))
    assert [(d.index, str(d), d.absent) for d in found] == [
        (0, "thing a: missing", True),
        (2, "thing c: missing", True),
    ]


def test_what_lives_on_a_link_of_the_plan_goes_with_it() -> None:
    """And is never taken from a link of that name which somebody else made."""
    veth = Veth("veth0", "02::", "br0", "eth0", "02::", 1500, "netplug/a/b/eth0")
    inside = Addresses("sandbox", "eth0", (ip_interface("10.1.0.2/24"),))

    class Gone(World):
        rtnl: Callable[..., None] = lambda *_: None

        @property
        def host(self) -> Any:
            return self

        def link(self, name: str) -> None:
            return None

        def links(self) -> tuple[()]:
            return ()

    # nothing of the sandbox is asked for: it would answer None, which has no attributes
    assert plan.remove(Gone().kernel, Plan((veth, inside))) == []


def test_commands_come_in_the_order_of_the_steps() -> None:
    assert plan.to_shell(make("a", "b"), Shell("web")) == ["make a", "make b"]


def test_steps_of_an_unknown_kind_are_left_out() -> None:
    """A record of a newer netplug must not block DEL."""
    data = {
        "schema": 99,
        "steps": [
            {"type": "Quantum", "name": "x"},
            {"type": "Bridge", "name": "br0", "mac": "02::", "colour": "green"},
            {"type": "Rules", "backend": "nft", "intent": {"type": "Wormhole"}},
        ],
    }
    assert plan.from_json(data) == Plan((Bridge("br0", "02::"),))


def test_loose_fields_do_not_part_two_users() -> None:
    same = Bridge("br0", "02::"), Bridge("br0", "06::", mtu=1400, promisc=True)
    assert plan.identity(same[0]) == plan.identity(same[1])
    assert plan.identity(same[0]) != plan.identity(Bridge("br1", "02::"))
    gateway = Addresses("host", "br0", (ip_interface("10.1.0.1/24"),), shared=True)
    other = Addresses("host", "br0", (ip_interface("10.1.0.2/24"),), shared=True)
    assert plan.identity(gateway) != plan.identity(other)


@given(st.lists(st.tuples(st.text(), st.text())), st.sampled_from(["host", "sandbox"]))
def test_any_sysctl_survives_storage(values: list[tuple[str, str]], place: Any) -> None:
    steps = Plan((Sysctl(place, tuple(values)),))
    assert plan.from_json(json.loads(plan.to_json(steps))) == steps


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(NAMES, st.sets(st.sampled_from("abcdef")), st.integers(0, 5))
def test_a_failed_add_changes_nothing(names: list[str], there: set[str], broken: int) -> None:
    """With every step shared, so that what was there is known to be adopted."""
    world = World(set(there))
    steps = Plan(tuple(Thing(n, key=n, apply_fails=i == broken) for i, n in enumerate(names)))
    try:
        plan.add(world.kernel, steps, Others())
    except KernelRefused:
        assert world.things == there
    else:
        assert world.things == there | set(names)
