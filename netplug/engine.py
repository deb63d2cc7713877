"""The use cases: what ADD, DEL, CHECK, GC, STATUS and repair do, step by step.

One ADD: the edge parses a request; here a lease is taken, the driver plans
(pure), record and lease commit together, the plan is applied to the kernel, the
record turns ready, the edge prints the result. All other verbs start from the record.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace

from netplug import admission, plan, plugins, resolver_files, upkeep
from netplug.errors import (
    Busy,
    CheckFailed,
    Conflict,
    Exhausted,
    NetplugError,
    SandboxError,
    collect,
)
from netplug.host import Host
from netplug.kernel import Kernel, namespaces
from netplug.model import Attachment, Facts, Network, Result
from netplug.partners import ForeignIpam, Names, NoNames, refusals
from netplug.plan import Difference, Plan
from netplug.plugins import Driver
from netplug.reconcile import compute_expected, is_dead, remove_owned
from netplug.state import Record, State, Usage


class Engine:
    """The use cases on one host, over one state. Belongs to one thread."""

    def __init__(
        self,
        state: State,
        host: Host,
        log: Callable[[str], None] = lambda line: None,
        open_sandbox: Callable[[str], int | None] = namespaces.open_namespace,
        foreign_of: Callable[[Record], ForeignIpam | None] = lambda record: None,
        awaited: Callable[[], bool] = lambda: True,
        names: Names | None = None,
        join: Callable[[Network], None] = lambda network: None,
    ) -> None:
        """`foreign_of`: the IPAM plugin that gave a record its addresses, where it was not ours.

        `awaited`: does the caller still wait for the result? `join`: makes this node a member
        of a network that spans several.
        """
        self._names = names or NoNames()
        self.state = state
        self.host = host
        self.log = log
        self.open_sandbox = open_sandbox
        self._foreign_of = foreign_of
        self._awaited = awaited
        self._join = join
        if state.damaged:
            log(f"the state file was damaged; it is kept as {state.damaged}")
        for owner in state.reclaim(host.boot):
            log(f"reclaimed what {owner} held before the last boot")

    # ADD

    def add(
        self, network: Network, attachment: Attachment, foreign: ForeignIpam | None = None
    ) -> Result:
        """Attaches one interface. Raises and leaves nothing behind, or returns the result."""
        network = self.sited(network, join=True)
        with self.state.locked(self.lock_name(attachment.owner)):
            self._make_way(attachment)
            attachment = admission.claim_ports(self.state, self.host, network, attachment)
            with self.open(attachment.sandbox) as kernel:
                driver = plugins.get_driver(network.driver)
                facts = self.read_facts(kernel, driver, network)
                links = driver.plan_link(network, attachment, facts)
                record = self._begin(kernel, network, attachment, links)
                foreign = foreign or admission.dhcp_client(
                    kernel, self.state, self.host.id, network=network, attachment=attachment
                )
                if foreign is None:
                    return self._add(kernel, driver, network, record, facts)
                return self._add_foreign(kernel, driver, network, record, facts, foreign)

    def add_planned(
        self,
        network: Network,
        attachment: Attachment,
        describe: Callable[[Kernel], tuple[Plan, Result]],
    ) -> Result:
        """Attaches what `describe` says, without a driver and without an address."""
        with self.state.locked(self.lock_name(attachment.owner)):
            self._make_way(attachment)
            with self.open(attachment.sandbox) as kernel:
                steps, result = describe(kernel)
                record = self._begin(kernel, network, attachment, steps, result)
                with self.state.transaction() as db:
                    self.state.put(db, record)
                return self._apply(kernel, network, record)

    def _begin(
        self,
        kernel: Kernel,
        network: Network,
        attachment: Attachment,
        steps: Plan,
        result: Result | None = None,
    ) -> Record:
        sandbox = kernel.rtnl("sandbox")
        return Record(
            host=self.host.id,
            attachment=attachment,
            phase="pending",
            boot=self.host.boot,
            cookie=sandbox.cookie if sandbox is not None else 0,
            since=time.time(),
            plan=steps,
            config=network.raw,
            result=result,
        )

    def _add(
        self, kernel: Kernel, driver: Driver, network: Network, record: Record, facts: Facts
    ) -> Result:
        """With our own IPAM: lease, ports and record commit at once, then one plan is applied."""
        try:
            record = admission.commit(self.state, driver, network, record, facts)
        except Exhausted:
            # Engines forget a DEL now and then: addresses of the provably dead come back.
            if not self.gc(network.name, None):
                raise
            record = admission.commit(self.state, driver, network, record, facts)
        return self._apply(kernel, network, record)

    def _apply(self, kernel: Kernel, network: Network, record: Record) -> Result:
        try:
            plan.apply_each(kernel, record.plan, self.usage(record))
            return self._finish(kernel, network, record)
        except BaseException:
            self._undo(kernel, record)
            raise

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
            admission.demand_unique_mac(db, record)
            self.state.put(db, record)
        try:
            plan.apply_each(kernel, record.plan, self.usage(record))
            lease = foreign.add()
            begun = len(record.plan)
            record = admission.complete(driver, network, record, lease, facts)
            with self.state.transaction() as db:
                admission.demand_no_overlap(self.state, self.host.id, record.plan, network)
                admission.reserve(db, record, lease)
                self.state.extend(db, record)
                self.state.use(db, self.host.id, record.attachment, record.plan)
            plan.apply_each(kernel, Plan(record.plan.steps[begun:]), self.usage(record))
            return self._finish(kernel, network, record)
        except BaseException:
            self._undo(kernel, record, foreign)
            raise

    def _finish(self, kernel: Kernel, network: Network, record: Record) -> Result:
        """The record turns ready. Raises Busy if a DEL has passed meanwhile."""
        self.demand_awaited(record)
        result = self.publish(kernel, network, record)
        with self.state.transaction() as db:
            changed = None if result is record.result else result
            ready = self.state.ready(db, record.host, record.owner, changed)
        if not ready:
            raise Busy(
                f"{record.owner} was deleted while it was added",
                "a DEL came before the ADD had ended",
                "add it again if it is still wanted",
            )
        self._follow(record)
        return result

    def publish(self, kernel: Kernel, network: Network, record: Record) -> Result:
        """The result with the servers that know the names; as it is where there are none.

        Before the record is ready: nobody hears of an ADD whose names are not visible, and
        what a crash leaves of it is pending, and withdrawn with it.
        """
        assert record.result is not None
        if network.names is None:
            return record.result
        servers = self._names.publish(self.state, record, kernel).nameservers
        if not servers:  # who publishes has said why
            return record.result
        for warning in admission.taken_questions(self.state, self.host.id, servers):
            self.log(f"network {network.name}: names: {warning}")
        dns = record.result.dns
        search = (f"{network.name}.{network.names.domain}", *dns.search)
        return replace(record.result, dns=replace(dns, nameservers=servers, search=search))

    def _withdraw(self, kernel: Kernel, record: Record) -> None:
        if record.config.get("names"):
            self._names.withdraw(self.state, record, kernel)

    def _follow(self, record: Record) -> None:
        """The resolv.conf of a named namespace says whom to ask now."""
        if problem := resolver_files.follow(self.state, record):
            self.log(f"{record.owner}: {problem}")

    def demand_awaited(self, record: Record) -> None:
        """Asked last, under the lock or in the transaction that a DEL waits for: the DEL of a
        caller that is gone finds what was added, or came before and must not have been in vain."""
        if not self._awaited():
            raise Busy(
                f"nobody waits for {record.owner} any more",
                "its caller ended before the ADD had",
                "add it again if it is still wanted",
            )

    def _undo(self, kernel: Kernel, record: Record, foreign: ForeignIpam | None = None) -> None:
        """Removes what a failed ADD began, and its record; what resists stays recorded."""
        errors = self._take_away(kernel, record, foreign)
        for error in errors:
            self.log(f"while undoing {record.owner}: {error}")
        if not errors:
            self._forget(record.attachment)

    def _take_away(
        self, kernel: Kernel, record: Record, foreign: ForeignIpam | None
    ) -> list[NetplugError]:
        """Undoes the record's plan and gives foreign addresses back; what went wrong.

        The address goes last: it is never free while its link or rules can carry traffic. But
        a DHCP client needs the link for its farewell.
        """
        admission.give_back(kernel, self.state, record)
        early = foreign is not None and foreign.needs_link
        errors = refusals(foreign) if early else []
        errors += plan.remove(kernel, record.plan, self.usage(record))
        self._withdraw(kernel, record)
        return errors if early else errors + refusals(foreign)

    def _forget(self, attachment: Attachment) -> None:
        with self.state.transaction() as db:
            self.state.drop(db, self.host.id, attachment.owner)

    def _make_way(self, attachment: Attachment) -> None:
        """Leftovers of a crash are removed; a living attachment is an error (CNI spec, ADD)."""
        record = self.state.get(self.host.id, attachment.owner)
        if record is None:
            return
        if record.phase == "ready" and not self.dead(record):
            raise Conflict(
                f"{attachment.container} is attached to network {attachment.network}"
                f" as {attachment.ifname} already",
                "an attachment is added once",
                "delete it first (CNI DEL, netplug disconnect)",
            )
        self.log(f"removing what an earlier ADD of {attachment.owner} left ({record.phase})")
        self.remove(record)

    # DEL

    def delete(self, attachment: Attachment, foreign: ForeignIpam | None = None) -> None:
        """Detaches; succeeds when nothing is left, also the second time.

        Raises Busy when an ADD is still running; that ADD will then undo itself.
        """
        try:
            with self.state.locked(self.lock_name(attachment.owner)):
                record = self.state.get(self.host.id, attachment.owner)
                if record is not None:
                    self.remove(record, foreign)
                else:
                    self._delete_unrecorded(attachment, foreign)
        except Busy:
            with self.state.transaction() as db:
                self.state.leave(db, self.host.id, attachment.owner)
            raise

    def remove(self, record: Record, foreign: ForeignIpam | None = None) -> None:
        """Undoes the record's plan, gives its addresses back, forgets it. Under its lock."""
        foreign = foreign or self._foreign_of(record)
        with self.host.kernel(lambda: self.sandbox_of(record)) as kernel:
            errors = self._take_away(kernel, record, foreign)
        collect(f"{record.owner} could not be removed whole", errors)
        self._forget(record.attachment)
        self._follow(record)

    def _delete_unrecorded(self, attachment: Attachment, foreign: ForeignIpam | None) -> None:
        def open_sandbox() -> int | None:
            with suppress(SandboxError):  # no network namespace is there any more
                return self.open_sandbox(attachment.sandbox)
            return None

        with self.host.kernel(open_sandbox) as kernel:
            remove_owned(kernel, attachment)
        if foreign is not None:
            foreign.delete()
        self._forget(attachment)

    # CHECK, repair

    def check(
        self,
        attachment: Attachment,
        previous: Result | None = None,
        foreign: ForeignIpam | None = None,
    ) -> None:
        """Raises CheckFailed that names every difference between the plan and the kernel."""
        differences = self.differences(attachment, previous)
        record = self.state.get(self.host.id, attachment.owner)
        if record is not None and admission.uses_dhcp(record.config):
            from netplug.dhcp.ipam import demand_held

            demand_held(self.state.connection, self.host.id, attachment.owner)
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
        with self.host.kernel(lambda: self.sandbox_of(record)) as kernel:
            return plan.check(kernel, expected)

    # upkeep: see `upkeep`

    def repair(self, record: Record, *, dry_run: bool = False) -> upkeep.Repair:
        return upkeep.repair(self, record, dry_run=dry_run)

    def gc(
        self,
        network: str,
        valid: Iterable[tuple[str, str]] | None,
        foreign: ForeignIpam | None = None,
        *,
        dry_run: bool = False,
    ) -> list[str]:
        """CNI GC: removes what the list does not name; the owners removed. See `upkeep.gc`."""
        gone = upkeep.gc(self, network, valid, dry_run=dry_run)
        if foreign is not None and not dry_run:
            foreign.gc()
        return gone

    def status(self, network: Network, foreign: ForeignIpam | None = None) -> list[str]:
        """Warnings. Raises Unavailable when an ADD on this network could not succeed now."""
        warnings = upkeep.status(self, self.sited(network))
        if network.names and (fault := self.names_fault()):
            warnings.append(f"containers on {network.name} do not find each other by name: {fault}")
        if network.ipam is not None and network.ipam.dhcp is not None:
            from netplug.dhcp.ipam import demand_keeper

            demand_keeper(self.state.folder)
        if foreign is not None:
            foreign.status()
        return warnings

    # common

    def sited(self, network: Network, *, join: bool = False) -> Network:
        """A network that spans nodes, with this node's share of it. Raises Unavailable."""
        if network.driver != "overlay":
            return network
        from netplug.overlay import membership

        known = membership.read(self.state, self.host.id, network.name)
        if known is None and join:
            self._join(network)
            known = membership.read(self.state, self.host.id, network.name)
        return membership.localize(network, known)

    def names_fault(self) -> str:
        """Why nobody answers for names; "" where somebody does."""
        return self._names.fault()

    def records(self, network: str | None = None) -> list[Record]:
        """What this host has, oldest first, of one network or all."""
        return self.state.records(self.host.id, network)

    def free_ifname(self, sandbox: str) -> str:
        """The first ethN that the namespace has not."""
        with self.open(sandbox) as kernel:
            rtnl = kernel.rtnl("sandbox")
            taken = {link.name for link in rtnl.links()} if rtnl else set()
        return next(f"eth{n}" for n in range(len(taken) + 1) if f"eth{n}" not in taken)

    def dead(self, record: Record) -> bool:
        with self.host.kernel() as kernel:
            return is_dead(kernel, record)

    def lock_name(self, owner: str) -> str:
        return f"{self.host.id}/{owner}"

    def usage(self, record: Record) -> Usage:
        return Usage(self.state, self.host.id, record.owner)

    def open(self, path: str) -> Kernel:
        """Host and sandbox; raises SandboxError when the latter is gone."""
        kernel = self.host.kernel(lambda: self.open_sandbox(path))
        if kernel.fd("sandbox") is None:
            raise SandboxError(
                f"network namespace {path!r} does not exist",
                "the path cannot be opened",
                "pass the path of a living network namespace, such as /run/netns/NAME",
            )
        return kernel

    def sandbox_of(self, record: Record) -> int | None:
        """The sandbox, if its path still leads to the namespace that was attached."""
        fd = self.open_sandbox(record.attachment.sandbox)
        if fd is None or namespaces.cookie(fd) == record.cookie:
            return fd
        namespaces.close(fd)
        return None

    def read_facts(self, kernel: Kernel, driver: Driver, network: Network) -> Facts:
        return kernel.read_facts(driver.facts(network), self.host.choose_firewall(network.firewall))
