"""A fault or a SIGKILL at every step of an ADD: nothing is left, whoever cleans up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_interface
from typing import TYPE_CHECKING, Any, Literal

import driver_cases
import pytest
from attaching import (
    V4,
    V6,
    Site,
    driver_network,
    dump,
    gateway_network,
    in_child,
    make_network,
    settle,
)

from netplug import plan
from netplug.errors import NetplugError
from netplug.kernel import Kernel
from netplug.kernel.rtnl import Rtnl
from netplug.model import (
    Attachment,
    Bandwidth,
    Lease,
    LeasedAddress,
    Network,
    Port,
)
from netplug.plan import Sharing
from netplug.resources import Resource
from netplug.resources.links import Veth
from netplug.state import State

if TYPE_CHECKING:
    from conftest import Host

Moment = Literal["before", "after"]
Break = Callable[[], None]

RICH_KEYS: dict[str, Any] = {
    "macspoofchk": True,
    "hairpinMode": True,
    "sysctl": {"net.ipv4.conf.IFNAME.rp_filter": "0", "net.core.somaxconn": "512"},
}
RICH_WISHES: dict[str, Any] = {
    "ports": (Port(8080, 80), Port(5353, 53, "udp")),
    "bandwidth": Bandwidth(8_000_000, 800_000, 4_000_000, 400_000),
}


@dataclass(frozen=True)
class Case:
    """A network, and what an attachment to it asks for."""

    network: Network
    wishes: dict[str, Any] = field(default_factory=dict)
    moments: tuple[Moment, ...] = ("before", "after")


CASES = {
    "plain": Case(make_network()),
    "rich": Case(gateway_network("lan", V4, V6, **RICH_KEYS), RICH_WISHES),
    # each of its rules is a process of its own, so it is small
    "macvlan": Case(
        driver_network("macvlan", master="eth1", hostAccess=True, ipam=[{"subnet": "10.1.0.0/24"}])
    ),
    "host-device": Case(
        driver_network("host-device", device="dev0", ipam=[V4]), {"mac": "02:00:00:00:00:33"}
    ),
    "ptp": Case(driver_network("ptp", ipMasq=True, ipam=[V4, V6]), {"ports": (Port(8080, 80),)}),
    "iptables": Case(gateway_network(firewall="iptables"), {"ports": (Port(80, 80),)}, ("after",)),
}
SLOW = pytest.param("iptables", marks=pytest.mark.long)


@pytest.fixture(params=["plain", "rich", SLOW])
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@contextmanager
def breaking_at(step: int, moment: Moment, fall: Break) -> Iterator[None]:
    """Calls `fall` before or after the plan's step of this number (0 is the first) is applied."""
    original = plan.apply
    count = -1

    def apply(kernel: Kernel, resource: Resource, sharing: Sharing) -> bool:
        nonlocal count
        count += 1
        if count == step and moment == "before":
            fall()
        created = original(kernel, resource, sharing)
        if count == step and moment == "after":
            fall()
        return created

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "apply", apply)
        yield


@contextmanager
def breaking_at_transaction(number: int, moment: Moment, fall: Break) -> Iterator[None]:
    """Calls `fall` just before or just after the commit of this number (0 is the first)."""
    original = State.transaction
    count = -1

    @contextmanager
    def transaction(self: State) -> Iterator[Any]:
        nonlocal count
        count += 1
        mine = count
        with original(self) as db:
            yield db
            if mine == number and moment == "before":
                fall()
        if mine == number and moment == "after":
            fall()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(State, "transaction", transaction)
        yield


@contextmanager
def breaking_at_change(number: int, moment: Moment, fall: Break) -> Iterator[None]:
    """Calls `fall` before or after the rtnetlink request of this number: in the midst of steps."""
    original = Rtnl.change
    count = -1

    def change(self: Rtnl, *messages: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        mine = count
        if mine == number and moment == "before":
            fall()
        answer = original(self, *messages, **options)
        if mine == number and moment == "after":
            fall()
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rtnl, "change", change)
        yield


class Fault(Exception):
    """Like a bug of ours, or a signal that raises: no NetplugError."""


def fail() -> None:
    raise Fault


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def count_steps(site: Site, case: Case, container: Host) -> int:
    attachment = site.attachment(case.network, container, "web", **case.wishes)
    return len(site.preview(case.network, attachment).plan)


@pytest.mark.parametrize("name", CASES)
def test_a_fault_at_any_step_leaves_nothing(host: Host, name: str) -> None:
    case = CASES[name]
    driver_cases.prepare(host)
    host.run("sysctl -qw net.ipv6.conf.all.forwarding=1")  # a router has routes of its own
    site, container = Site(host), host.container("web")
    before, inside = dump(host), dump(container)
    for step in range(count_steps(site, case, container)):
        for moment in case.moments:
            with breaking_at(step, moment, fail), pytest.raises(Fault):
                site.add(case.network, container, "web", **case.wishes)
            site.demand_nothing_left(before)
            # lo stays up inside, as every container has it
            assert dump(container)["links"].keys() == inside["links"].keys(), (step, moment)
    attachment, _ = site.add(case.network, container, "web", **case.wishes)
    site.check(attachment)
    site.delete(attachment)
    site.demand_nothing_left(before)


def test_a_fault_at_any_transaction_leaves_nothing(host: Host, case: Case) -> None:
    site, container = Site(host), host.container("web")
    before = dump(host)
    for number in range(2):  # pending (with the lease), ready
        with breaking_at_transaction(number, "before", fail), pytest.raises(Fault):
            site.add(case.network, container, "web", **case.wishes)
        attachment = site.attachment(case.network, container, "web")
        site.delete(attachment)  # what an engine does after a failed ADD
        site.demand_nothing_left(before)


def test_a_fault_spares_the_other_users(host: Host, case: Case) -> None:
    site = Site(host)
    first, second = host.container("first"), host.container("second")
    wishes = {**case.wishes, "ports": (Port(9999, 99),)}
    attachment, _ = site.add(case.network, first, "first", **wishes)
    settle(host)
    before, rows = dump(host), site.rows()
    for step in range(count_steps(site, case, second)):
        with breaking_at(step, "after", fail), pytest.raises(Fault):
            site.add(case.network, second, "second", **case.wishes)
        assert dump(host) == before
        assert site.rows() == rows
        site.check(attachment)
    site.delete(attachment)


def test_a_fault_leaves_an_admins_bridge_alone(host: Host) -> None:
    host.run("ip link add br0 address 02:00:00:00:00:42 type bridge")
    host.run("ip link set br0 mtu 1400 up && ip addr add 192.0.2.1/24 dev br0")
    host.run("ip addr add 10.1.0.1/24 brd + dev br0")  # our gateway address, but theirs
    case = CASES["rich"]
    site, container = Site(host), host.container("web")
    before = dump(host)
    for step in range(count_steps(site, case, container)):
        for moment in case.moments:
            with breaking_at(step, moment, fail), pytest.raises(Fault):
                site.add(case.network, container, "web", **case.wishes)
            site.demand_nothing_left(before)
    attachment, _ = site.add(case.network, container, "web", **case.wishes)
    site.delete(attachment)
    site.demand_nothing_left(before)


def test_an_error_while_undoing_keeps_the_record(host: Host) -> None:
    """What resists stays recorded, so that DEL can try again."""
    case = CASES["plain"]
    site, container = Site(host), host.container("web")
    before = dump(host)
    with pytest.MonkeyPatch.context() as patch:

        def refuse(self: Veth, kernel: Kernel) -> None:
            raise NetplugError("the kernel is in a bad mood")

        patch.setattr(Veth, "undo", refuse)
        with breaking_at(4, "after", fail), pytest.raises(Fault):
            site.add(case.network, container, "web")
    attachment = site.attachment(case.network, container, "web")
    site.delete(attachment)
    site.demand_nothing_left(before)


class OtherIpam:
    """Somebody else's IPAM plugin, whose memory is `held`."""

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.held = 0
        self.needs_link = False

    def add(self) -> Lease:
        if self.broken:
            raise NetplugError("no address for you")
        self.held += 1
        addresses = (LeasedAddress(ip_interface("10.1.0.5/24"), ip_address("10.1.0.1")),)
        return Lease((*addresses, LeasedAddress(ip_interface("fd00:1::5/64"))))

    def delete(self) -> None:
        self.held = 0

    def of(self, attachment: Attachment, config: dict[str, Any]) -> OtherIpam:
        return self

    def check(self) -> None: ...

    def status(self) -> None: ...

    def gc(self) -> None: ...


FOREIGN = gateway_network("lan", ipam={"type": "theirs"}, **RICH_KEYS)


def test_a_fault_gives_a_foreign_address_back(host: Host) -> None:
    site, container = Site(host), host.container("web")
    before = dump(host)
    attachment = site.attachment(FOREIGN, container, "web", **RICH_WISHES)
    theirs = OtherIpam()

    def add() -> None:
        with site.engine() as engine:
            engine.add(FOREIGN, attachment, theirs)

    add()
    record = site.record(attachment)
    assert record is not None and theirs.held == 1
    site.check(attachment)
    with site.engine() as engine:
        engine.delete(attachment, theirs)
    assert theirs.held == 0
    for step in range(len(record.plan)):
        with breaking_at(step, "after", fail), pytest.raises(Fault):
            add()
        assert theirs.held == 0
        site.demand_nothing_left(before)
    theirs.broken = True
    with pytest.raises(NetplugError, match="no address for you"):
        add()
    site.demand_nothing_left(before)


# SIGKILL


Clean = Callable[[Site, Case, Attachment], None]


def by_del(site: Site, case: Case, attachment: Attachment) -> None:
    site.delete(attachment)


def by_gc(site: Site, case: Case, attachment: Attachment) -> None:
    site.gc(case.network)


def by_adding_again(site: Site, case: Case, attachment: Attachment) -> None:
    with site.engine() as engine:
        record = engine.state.get(engine.host.id, attachment.owner)
        if record is not None and record.phase == "ready":
            engine.delete(attachment)  # the kill came after all was done
        engine.add(case.network, attachment)
        engine.check(attachment)
        engine.delete(attachment)


CLEANERS = (by_del, by_gc, by_adding_again)


def killed(site: Site, case: Case, attachment: Attachment, breaking: Any) -> bool:
    """An ADD in a child; whether it was killed on the way."""

    def work() -> None:
        with breaking, site.engine() as engine:
            engine.add(case.network, attachment)

    status = in_child(work)
    assert status in (0, signal.SIGKILL), status
    return status != 0


def kill_everywhere(site: Site, case: Case, container: Host, cleaners: tuple[Clean, ...]) -> None:
    attachment = site.attachment(case.network, container, "web", **case.wishes)
    before = dump(site.host)
    steps = count_steps(site, case, container)
    # to die before a step is to die after the one before it
    places: list[tuple[Any, int, Moment]] = [(breaking_at, n, "before") for n in range(steps)]
    for n in range(9):  # most of them claims of shared resources
        places += [(breaking_at_transaction, n, "before"), (breaking_at_transaction, n, "after")]
    places += [(breaking_at_change, n, "after") for n in range(12)]
    deaths = 0
    for number, (breaking, n, moment) in enumerate(places):
        for clean in cleaners if len(cleaners) < 3 else (cleaners[number % 3],):
            deaths += killed(site, case, attachment, breaking(n, moment, die))
            clean(site, case, attachment)
            site.demand_nothing_left(before)
    assert deaths >= steps + 4


def test_a_kill_at_any_place_leaves_nothing(host: Host, case: Case) -> None:
    """Each place, cleaned by one of the three in turn."""
    kill_everywhere(Site(host), case, host.container("web"), CLEANERS)


@pytest.mark.parametrize("name", ["macvlan", "host-device"])
def test_a_kill_leaves_nothing_of_links_inside(host: Host, name: str) -> None:
    driver_cases.prepare(host)
    kill_everywhere(Site(host), CASES[name], host.container("web"), CLEANERS)
    assert "02:00:00:00:00:0d" in host.run("ip link show dev0")


@pytest.mark.long
@pytest.mark.parametrize("clean", CLEANERS)
def test_a_kill_at_any_place_with_each_cleaner(host: Host, case: Case, clean: Clean) -> None:
    kill_everywhere(Site(host), case, host.container("web"), (clean,))


def test_a_kill_while_deleting_leaves_nothing(host: Host, case: Case) -> None:
    site, container = Site(host), host.container("web")
    before = dump(host)
    steps = count_steps(site, case, container)
    for number in range(steps + 4):
        attachment, _ = site.add(case.network, container, "web", **case.wishes)

        def work(number: int = number, attachment: Attachment = attachment) -> None:
            with dying_at_undo(number), site.engine() as engine:
                engine.delete(attachment)

        assert in_child(work) in (0, signal.SIGKILL)
        CLEANERS[number % 3](site, case, attachment)
        site.demand_nothing_left(before)


@contextmanager
def dying_at_undo(number: int) -> Iterator[None]:
    """Death at the undo of this number, counted from the plan's end; after it, at a commit."""
    count = -1

    def wrap(kind: type) -> None:
        undo = kind.undo  # type: ignore[attr-defined]

        def dying(self: Any, kernel: Kernel) -> None:
            nonlocal count
            count += 1
            if count == number:
                die()
            undo(self, kernel)

        patch.setattr(kind, "undo", dying)

    with pytest.MonkeyPatch.context() as patch:
        for kind in plan.KINDS.values():
            wrap(kind)
        yield


def test_a_ready_add_may_lose_its_answer(host: Host) -> None:
    """Killed after the last commit: the engine saw no result, and deletes."""
    case = CASES["rich"]
    site, container = Site(host), host.container("web")
    before = dump(host)
    attachment, _ = site.add(case.network, container, "web", **case.wishes)
    host_side = attachment.host_name
    assert host_side in dump(host)["links"]
    assert site.gc(case.network, ("web", "eth0")) == []
    assert host_side in dump(host)["links"]
    assert site.gc(case.network) == [attachment.owner]
    site.demand_nothing_left(before)
