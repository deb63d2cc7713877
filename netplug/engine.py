"""The use cases: what ADD, DEL, CHECK, GC, STATUS, repair and a dry run do, step by step.

One ADD: the edge parses a request; here a lease is taken, the driver plans
(pure), record and lease commit together, the plan is applied to the kernel, the
record turns ready, the edge prints the result. All other verbs start from the record.
"""

from __future__ import annotations

import time
from contextlib import suppress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_network
from sqlite3 import Connection
from typing import Protocol

from netplug import ipam, plan, plugins, ports
from netplug.errors import (
    Busy,
    CheckFailed,
    Conflict,
    NetplugError,
    SandboxError,
    Unavailable,
    collect,
)
from netplug.host import Host
from netplug.kernel import Kernel, namespaces, sockdiag
from netplug.model import (
    Attachment,
    Facts,
    Lease,
    Network,
    Result,
    ResultAddress,
    overlaps,
)
from netplug.plan import Difference, Plan
from netplug.plugins import Driver
from netplug.reconcile import compute_expected, find_owned, is_dead, remove_owned
from netplug.state import Record, State, Usage


class ForeignIpam(Protocol):
    """Somebody else's IPAM plugin, called by the edge that knows how to execute it."""

    def add(self) -> Lease: ...

    def delete(self) -> None: ...

    def check(self) -> None: ...

    def status(self) -> None: ...

    def gc(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Preview:
    """What an ADD would do: the plan, and which of its steps are there already."""

    plan: Plan
    present: tuple[bool, ...]
    result: Result


@dataclass(frozen=True, slots=True)
class Repair:
    """What one attachment lacked, and what could not be put back."""

    record: Record
    found: tuple[Difference, ...]
    failed: tuple[NetplugError, ...] = ()


class Engine:
    """The use cases on one host, over one state. Belongs to one thread."""

    def __init__(self, state: State, host: Host, log: Callable[[str], None] = lambda line: None):
        self.state = state
        self.host = host
        self.log = log
        for owner in state.reclaim(host.boot):
            log(f"reclaimed what {owner} held before the last boot")

    # ADD

    def add(
        self, network: Network, attachment: Attachment, foreign: ForeignIpam | None = None
    ) -> Result:
        """Attaches one interface. Raises and leaves nothing behind, or returns the result."""
        with self.state.locked(self._lock(attachment.owner)):
            self._make_way(attachment, foreign)
            with self._open(attachment) as kernel:
                driver = plugins.get_driver(network.driver)
                facts = self._read_facts(kernel, driver, network)
                links = driver.plan_link(network, attachment, facts)
                self._demand_free_ports(attachment)
                sandbox = kernel.fd("sandbox")
                record = Record(
                    host=self.host.id,
                    attachment=attachment,
                    phase="pending",
                    boot=self.host.boot,
                    cookie=namespaces.cookie(sandbox) if sandbox is not None else 0,
                    since=time.time(),
                    plan=links,
                    config=network.raw,
                )
                if foreign is None:
                    return self._add(kernel, driver, network, record, facts)
                return self._add_foreign(kernel, driver, network, record, facts, foreign)

    def _add(
        self, kernel: Kernel, driver: Driver, network: Network, record: Record, facts: Facts
    ) -> Result:
        """With our own IPAM: lease, ports and record commit at once, then one plan is applied."""
        record = self._commit(driver, network, record, facts)
        plan.add(kernel, record.plan, self._usage(record))
        return self._finish(kernel, record)

    def _add_foreign(
        self,
        kernel: Kernel,
        driver: Driver,
        network: Network,
        record: Record,
        facts: Facts,
        foreign: ForeignIpam,
    ) -> Result:
        """With a foreign IPAM plugin between the links and the rest."""
        with self.state.transaction() as db:
            self.state.put(db, record)
        try:
            plan.add(kernel, record.plan, self._usage(record))
            lease = foreign.add()
            more = driver.plan_network(network, record.attachment, lease, facts)
            result = compute_result(driver, network, record.attachment, lease, facts)
            record = replace(record, plan=record.plan + more, result=result)
            with self.state.transaction() as db:
                self._reserve(db, record, lease)
                self.state.update(db, record)
                self.state.use(db, self.host.id, record.attachment, record.plan)
            plan.add(kernel, more, self._usage(record))
            return self._finish(kernel, record)
        except BaseException:
            self._undo(kernel, record, foreign)
            raise

    def _commit(
        self, driver: Driver, network: Network, record: Record, facts: Facts
    ) -> Record:
        """Lease, ports and pending record in one transaction. Raises Conflict, Exhausted."""
        with self.state.transaction() as db:
            lease, record = self._describe(db, driver, network, record, facts)
            self._demand_no_overlap(record.plan, network)
            self._reserve(db, record, lease)
            self.state.put(db, record)
        return record

    def _describe(
        self, db: Connection, driver: Driver, network: Network, record: Record, facts: Facts
    ) -> tuple[Lease, Record]:
        lease = self._allocate(db, network, record) if network.ipam is not None else Lease()
        more = driver.plan_network(network, record.attachment, lease, facts)
        result = compute_result(driver, network, record.attachment, lease, facts)
        return lease, replace(record, plan=record.plan + more, result=result)

    def _allocate(self, db: Connection, network: Network, record: Record) -> Lease:
        assert network.ipam is not None
        return ipam.allocate(
            db,
            host=self.host.id,
            boot=self.host.boot,
            segment=network.segment,
            network=network.name,
            owner=record.owner,
            ipam=network.ipam,
            requested=record.attachment.addresses,
            now=record.since,
        )

    def _reserve(self, db: Connection, record: Record, lease: Lease) -> None:
        wanted = ports.compute_host_ports(record.attachment.ports, lease.families)
        if wanted:
            ports.reserve(db, host=self.host.id, owner=record.owner, ports=wanted)

    def _finish(self, kernel: Kernel, record: Record) -> Result:
        """The record turns ready; if a DEL has passed meanwhile, all is undone."""
        with self.state.transaction() as db:
            ready = self.state.update(db, replace(record, phase="ready"))
        if not ready:
            self._undo(kernel, record)
            raise Busy(
                f"{record.owner} was deleted while it was added",
                "a DEL came before the ADD had ended",
                "add it again if it is still wanted",
            )
        assert record.result is not None
        return record.result

    def _undo(self, kernel: Kernel, record: Record, foreign: ForeignIpam | None = None) -> None:
        """Removes what a failed ADD began, and its record; what resists stays recorded."""
        errors = plan.remove(kernel, record.plan, self._usage(record))
        if foreign is not None:
            try:
                foreign.delete()
            except NetplugError as error:
                errors.append(error)
        for error in errors:
            self.log(f"while undoing {record.owner}: {error}")
        if not errors:
            with self.state.transaction() as db:
                self.state.drop(db, self.host.id, record.owner)

    def _make_way(self, attachment: Attachment, foreign: ForeignIpam | None) -> None:
        """Leftovers of a crash are removed; a living attachment is an error (CNI spec, ADD)."""
        record = self.state.get(self.host.id, attachment.owner)
        if record is None:
            return
        if record.phase == "ready" and not self._dead(record):
            raise Conflict(
                f"{attachment.container} is attached to network {attachment.network}"
                f" as {attachment.ifname} already",
                "an attachment is added once",
                "delete it first (CNI DEL, netplug disconnect)",
            )
        self.log(f"removing what an earlier ADD of {attachment.owner} left ({record.phase})")
        self._delete(record, foreign)

    def _demand_free_ports(self, attachment: Attachment) -> None:
        """No process of the host listens on a port to publish (bind(2) rules)."""
        if attachment.ports:
            wanted = ports.compute_host_ports(attachment.ports, (4, 6))
            sockdiag.check_free(self.host.fd, wanted)

    def _demand_no_overlap(self, wanted: Plan, network: Network) -> None:
        """Overlapping subnets cannot be told apart by one host's routes and rules."""
        for key, step in wanted.keys.items():
            if not key.startswith("subnet:") or self.state.users(self.host.id, key):
                continue
            subnet = step.intent.subnet  # type: ignore[attr-defined]
            for other_key, other in self.state.used_keys(self.host.id, "subnet:"):
                if overlaps(subnet, ip_network(other_key.removeprefix("subnet:"))):
                    raise Conflict(
                        f"subnet {subnet} of network {network.name} overlaps"
                        f" {other_key.removeprefix('subnet:')} of network {other}",
                        "one host cannot route both",
                        "choose another subnet",
                    )

    # DEL

    def delete(self, attachment: Attachment, foreign: ForeignIpam | None = None) -> None:
        """Detaches; succeeds when nothing is left, also the second time.

        Raises Busy when an ADD is still running; that ADD will then undo itself.
        """
        try:
            with self.state.locked(self._lock(attachment.owner)):
                record = self.state.get(self.host.id, attachment.owner)
                if record is not None:
                    self._delete(record, foreign)
                else:
                    self._delete_unrecorded(attachment, foreign)
        except Busy:
            with self.state.transaction() as db:
                self.state.leave(db, self.host.id, attachment.owner)
            raise

    def _delete(self, record: Record, foreign: ForeignIpam | None) -> None:
        with self.host.kernel(self._sandbox_of(record)) as kernel:
            errors = plan.remove(kernel, record.plan, self._usage(record))
        # The address goes last: it is never free while its link or rules can carry traffic.
        if foreign is not None:
            try:
                foreign.delete()
            except NetplugError as error:
                errors.append(error)
        collect(f"{record.owner} could not be removed whole", errors)
        with self.state.transaction() as db:
            self.state.drop(db, self.host.id, record.owner)

    def _delete_unrecorded(self, attachment: Attachment, foreign: ForeignIpam | None) -> None:
        with self.host.kernel() as kernel:
            remove_owned(kernel, attachment)
        if foreign is not None:
            foreign.delete()
        with self.state.transaction() as db:
            self.state.drop(db, self.host.id, attachment.owner)

    # CHECK, repair

    def check(
        self,
        attachment: Attachment,
        previous: Result | None = None,
        foreign: ForeignIpam | None = None,
    ) -> None:
        """Raises CheckFailed that names every difference between the plan and the kernel."""
        differences = self.differences(attachment, previous)
        if foreign is not None:
            foreign.check()
        if differences:
            raise CheckFailed(
                f"{attachment.owner} is not as it was made",
                "; ".join(str(difference) for difference in differences),
                "run: netplug repair",
            )

    def differences(
        self, attachment: Attachment, previous: Result | None = None
    ) -> list[Difference]:
        record = self.state.get(self.host.id, attachment.owner)
        if record is None or record.phase != "ready":
            raise CheckFailed(
                f"{attachment.owner} is not attached",
                "there is no record of it" if record is None else f"its record is {record.phase}",
                "add it (again)",
            )
        expected = compute_expected(record.plan, attachment, previous) if previous else record.plan
        with self.host.kernel(self._sandbox_of(record)) as kernel:
            return plan.check(kernel, expected)

    def repair(self, record: Record, *, dry_run: bool = False) -> Repair:
        """Compares one attachment with the kernel and puts back what is missing."""
        with self.state.locked(self._lock(record.owner)):
            if self.state.get(self.host.id, record.owner) is None:
                return Repair(record, ())
            if record.phase != "ready":
                if not dry_run:
                    self._delete(record, None)
                return Repair(record, ())
            with self.host.kernel(self._sandbox_of(record)) as kernel:
                found = plan.check(kernel, record.plan)
                failed = [] if dry_run else self._put_back(kernel, record, found)
        return Repair(record, tuple(found), tuple(failed))

    def _put_back(
        self, kernel: Kernel, record: Record, found: list[Difference]
    ) -> list[NetplugError]:
        """Applies, in the plan's order, what differs; steps that hang on it follow by themselves."""
        failed: list[NetplugError] = []
        usage = self._usage(record)
        while found:
            try:
                plan.apply(kernel, found[0].resource, usage)
            except NetplugError as error:
                failed.append(error)
            # A step may bring back or take away what later steps need: look again behind it.
            found = [d for d in plan.check(kernel, record.plan) if d.index > found[0].index]
        return failed

    # GC, STATUS

    def gc(
        self,
        network: str,
        valid: Iterable[tuple[str, str]] | None,
        foreign: ForeignIpam | None = None,
    ) -> list[str]:
        """Removes attachments of the network that are not in `valid`; their owners.

        `valid` None: the caller has no opinion, only what is provably dead goes.
        Attachments made by `netplug connect` go only when dead.
        """
        keep = None if valid is None else set(valid)
        gone: list[str] = []
        errors: list[NetplugError] = []
        for record in self.state.list(self.host.id, network):
            a = record.attachment
            listed = keep is not None and (a.container, a.ifname) in keep
            if listed or ((keep is None or a.via == "cli") and not self._dead(record)):
                continue
            try:
                self.delete(a)
                gone.append(record.owner)
            except NetplugError as error:
                errors.append(error)
        gone += self._gc_unrecorded(network, keep)
        if foreign is not None:
            foreign.gc()
        collect(f"network {network} could not be cleaned whole", errors)
        return gone

    def _gc_unrecorded(self, network: str | None, keep: set[tuple[str, str]] | None) -> list[str]:
        """Objects with our mark but without a record: links by alias, rules by owner."""
        known = {record.attachment.mark for record in self.state.list(self.host.id)}
        with self.host.kernel() as kernel:
            return find_owned(kernel, network, known, keep or set(), remove=True)

    def status(self, network: Network, foreign: ForeignIpam | None = None) -> list[str]:
        """Warnings. Raises Unavailable when an ADD on this network could not succeed now."""
        driver = plugins.get_driver(network.driver)
        self.host.choose_firewall(network.firewall)
        with self.host.kernel() as kernel:
            for name in driver.facts(network).links:
                link = kernel.host.link(name)
                if link is not None and link.kind != network.driver and network.driver == "bridge":
                    raise Unavailable(
                        f"link {name} is no bridge",
                        f"it is of kind {link.kind or 'device'}",
                        "remove it, or set the key 'bridge' to another name",
                    )
        self.demand_free_addresses(network)
        if foreign is not None:
            foreign.status()
        return []

    def demand_free_addresses(self, network: Network) -> None:
        """Every range set, which gives one address to each attachment, has one left."""
        if network.ipam is None or network.ipam.foreign:
            return
        usage = ipam.usage(
            self.state.connection, host=self.host.id, segment=network.segment, ipam=network.ipam
        )
        for number, range_set in enumerate(network.ipam.range_sets):
            if not any(one.free for one in usage if one.range_set == number):
                text = ipam.render_ranges(range_set)
                raise Unavailable(
                    f"network {network.name} has no free address",
                    f"all of {text} is leased (netplug ipam ls {network.name})",
                    "detach containers, run netplug gc, or widen the range",
                )

    # as an IPAM plugin of foreign main plugins

    def lease(self, network: Network, attachment: Attachment) -> Result:
        """Leases addresses only; the record has an empty plan."""
        sandbox = namespaces.open_namespace(attachment.sandbox)
        cookie = namespaces.cookie(sandbox) if sandbox is not None else 0
        if sandbox is not None:
            namespaces.close(sandbox)
        with self.state.transaction() as db:
            record = Record(
                self.host.id, attachment, "ready", self.host.boot, cookie, time.time(), Plan(), {}
            )
            lease = self._allocate(db, network, record)
            result = Result(
                ips=tuple(ResultAddress(a.address, a.gateway) for a in lease.addresses),
                routes=lease.routes,
                dns=lease.dns,
            )
            self.state.put(db, replace(record, result=result))
        return result

    def check_lease(self, attachment: Attachment) -> None:
        """Raises CheckFailed when the attachment holds no address."""
        held = ipam.leases(
            self.state.connection, host=self.host.id, owner=attachment.owner
        )
        if not held:
            raise CheckFailed(
                f"{attachment.owner} holds no address", "its lease is gone", "add it again"
            )

    # dry run

    def preview(self, network: Network, attachment: Attachment) -> Preview:
        """What `add` would do. Takes no lease: its transaction is rolled back."""
        driver = plugins.get_driver(network.driver)
        with self._open(attachment) as kernel:
            facts = self._read_facts(kernel, driver, network)
            links = driver.plan_link(network, attachment, facts)
            record = Record(
                self.host.id, attachment, "pending", self.host.boot, 0, time.time(), links, {}
            )
            with suppress(_Rollback), self.state.transaction() as db:
                _, record = self._describe(db, driver, network, record, facts)
                raise _Rollback
            present = tuple(step.present(kernel) == "" for step in record.plan)
        assert record.result is not None
        return Preview(record.plan, present, record.result)

    # common

    def _lock(self, owner: str) -> str:
        return f"{self.host.id}/{owner}"

    def _usage(self, record: Record) -> Usage:
        return Usage(self.state, self.host.id, record.owner)

    def _open(self, attachment: Attachment) -> Kernel:
        sandbox = namespaces.open_namespace(attachment.sandbox)
        if sandbox is None:
            raise SandboxError(
                f"network namespace {attachment.sandbox!r} does not exist",
                "the path cannot be opened",
                "pass the path of a living network namespace, such as /run/netns/NAME",
            )
        return self.host.kernel(sandbox)

    def _sandbox_of(self, record: Record) -> int | None:
        """The sandbox, if its path still leads to the namespace that was attached."""
        fd = namespaces.open_namespace(record.attachment.sandbox)
        if fd is None or namespaces.cookie(fd) == record.cookie:
            return fd
        namespaces.close(fd)
        return None

    def _dead(self, record: Record) -> bool:
        with self.host.kernel() as kernel:
            return is_dead(kernel, record)

    def _read_facts(self, kernel: Kernel, driver: Driver, network: Network) -> Facts:
        return kernel.read_facts(
            driver.facts(network), self.host.choose_firewall(network.firewall)
        )


class _Rollback(Exception):
    """Ends a transaction that was only asked what it would do."""


def compute_result(
    driver: Driver, network: Network, attachment: Attachment, lease: Lease, facts: Facts
) -> Result:
    """The driver's result with resolver settings: the engine's, else the network's, else IPAM's."""
    dns = attachment.dns or network.dns or lease.dns
    return replace(driver.result(network, attachment, lease, facts), dns=dns)
