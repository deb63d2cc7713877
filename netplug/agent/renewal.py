"""Renews the leases of DHCP servers: one thread that waits for the next one due, and a few
that ask.

All it knows is in the state file: an agent that was killed goes on where it was. The address
of a lease that ended or was refused is taken away at once; another one takes its place as
soon as a server gives it (RFC 2131, 4.4.5).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from netplug import admission, plan, plugins
from netplug.agent.logs import event
from netplug.config import driver_name, parse_network
from netplug.dhcp import ipam, leases
from netplug.dhcp.client import Refused, Silent
from netplug.dhcp.leases import Held
from netplug.engine import Engine
from netplug.errors import Busy, NetplugError
from netplug.host import Host
from netplug.kernel import Kernel
from netplug.model import Lease, Network
from netplug.partners import Names
from netplug.resources import Resource
from netplug.state import Record, State
from netplug.statefile import ensure_private_folder

LOOK_SECONDS = 1.0  # other processes add leases too; then this is the longest a due one waits
ASKERS = 4  # a silent server holds one of them for two seconds
PATIENCE = 4.0  # seconds for a new lease, while the attachment's lock is held
LEAST_PAUSE, MOST_PAUSE = 1.0, 60.0  # seconds between tries (RFC 2131 says 60; leases may be short)
CHANGING = "its terms have changed and are being applied"
FindHost = Callable[[str], AbstractContextManager[Host | None]]


def say(line: str) -> None:
    event("dhcp", text=line)


class Renewal:
    """Renews until `stop`. `find_host` gives the host of an id, None where it is not known;
    `names` gives who answers for names."""

    def __init__(self, folder: Path, find_host: FindHost, names: Callable[[], Names]) -> None:
        self._folder, self._find_host, self._names = folder, find_host, names
        self._stopped = threading.Event()
        self._decided = threading.Event()
        self._asked: set[tuple[str, str]] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="dhcp")

    def start(self) -> None:
        """Returns when leases are kept: an ADD that comes next relies on it."""
        self._thread.start()
        self._decided.wait()

    def stop(self) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                ensure_private_folder(self._folder)
                with ipam.keeping(self._folder), ThreadPoolExecutor(ASKERS, "dhcp-ask") as askers:
                    self._decided.set()
                    self._keep(askers)
            except Busy:  # another agent of this state folder keeps them
                self._decided.set()
                self._stopped.wait(LOOK_SECONDS)
            except Exception:  # a lease that cannot be renewed now may be in a moment
                event("dhcp begins anew", logging.ERROR)
                self._decided.set()
                self._stopped.wait(LOOK_SECONDS)

    def _keep(self, askers: ThreadPoolExecutor) -> None:
        state = State(self._folder)
        try:
            while not self._stopped.is_set() and state.current:
                for key in leases.due(state.connection, leases.now()):
                    with self._lock:
                        if key in self._asked:
                            continue
                        self._asked.add(key)
                    askers.submit(self._attend, key)
                self._stopped.wait(LOOK_SECONDS)
        finally:
            state.close()

    def _attend(self, key: tuple[str, str]) -> None:
        host_id, owner = key
        state = State(self._folder)
        try:
            with self._find_host(host_id) as host:
                if host is None:
                    postpone(state, host_id, owner, "the agent does not see that host")
                else:
                    attend(Engine(state, host, say, names=self._names()), owner)
        except Busy:  # an ADD or DEL works on it; then its turn comes again
            pass
        except Exception:
            event("dhcp failed", logging.ERROR, owner=owner)
            postpone(state, host_id, owner, "an error: see the agent's log")
        finally:
            state.close()
            with self._lock:
                self._asked.discard(key)


def postpone(state: State, host: str, owner: str, fault: str) -> None:
    """Tries again later: halfway to the next change of state, within a minute."""
    with state.transaction() as db:
        held = leases.get(db, host, owner)
        if held is None:
            return
        now = leases.now()
        limits = [limit for limit in (held.rebind, held.expire) if limit and limit > now]
        half = (min(limits) - now) / 2 if limits else MOST_PAUSE / 4
        pause = min(max(half, LEAST_PAUSE), MOST_PAUSE)
        leases.put(db, replace(held, next=now + pause, fault=fault))


def attend(engine: Engine, owner: str) -> None:
    """Renews one lease that is due. Raises Busy where somebody works on the attachment."""
    with engine.state.locked(engine.lock_name(owner), seconds=0):
        held = leases.get(engine.state.connection, engine.host.id, owner)
        record = engine.state.get(engine.host.id, owner)
        if held is None or record is None or record.phase != "ready" or held.next > leases.now():
            return
        with engine.host.kernel(lambda: engine.sandbox_of(record)) as kernel:
            side = kernel.rtnl("sandbox")
            if side is None or side.link(record.attachment.ifname) is None:
                postpone(engine.state, engine.host.id, owner, "the container is gone")
                return
            _renew_or_replace(engine, kernel, record, held)


def _renew_or_replace(engine: Engine, kernel: Kernel, record: Record, held: Held) -> None:
    owner, ifname = held.owner, record.attachment.ifname
    if not held.lost:
        try:
            fresh = ipam.renew(kernel, ifname, held)
        except (Silent, OSError) as error:
            held = leases.get(engine.state.connection, held.host, owner) or held
            if not held.lost:
                engine.log(f"{owner}: {held.address} is not renewed yet: {error}")
                postpone(engine.state, held.host, owner, str(error))
                return
            engine.log(f"{owner}: the lease of {held.address} has ended unrenewed")
        except Refused:
            engine.log(f"{owner}: the server takes {held.address} back")
        else:
            _take_over(engine, kernel, record, held, fresh)
            return
    _lose(engine, kernel, record, held)
    try:
        fresh = ipam.acquire(kernel, held.host, record.attachment, held.identity, PATIENCE)
    except Busy as error:
        postpone(engine.state, held.host, owner, error.why)
        return
    engine.log(f"{owner}: has the address {fresh.address} now")
    _take_over(engine, kernel, record, held, fresh)


def _lose(engine: Engine, kernel: Kernel, record: Record, held: Held) -> None:
    """The address is nobody's we know: away with it. The record still says what should be."""
    with engine.state.transaction() as db:
        leases.put(db, replace(held, expire=leases.now(), next=leases.now() + LEAST_PAUSE))
    for step in reversed(network_steps(engine, kernel, record)):
        if step.key is None:
            step.undo(kernel)


def network_steps(engine: Engine, kernel: Kernel, record: Record) -> tuple[Resource, ...]:
    """The part of a record's plan that its address decided."""
    return record.plan.steps[len(_replan(engine, kernel, record, None).plan) :]


def _replan(engine: Engine, kernel: Kernel, record: Record, lease: Lease | None) -> Record:
    """The record with the plan that another lease gives; with its links alone for None.

    Its resolver settings stay: they are what the engine was told.
    """
    network = _network_of(record)
    driver = plugins.get_driver(network.driver)
    facts = engine.read_facts(kernel, driver, network)
    links = driver.plan_link(network, record.attachment, facts)
    bare = replace(record, plan=links)
    if lease is None:
        return bare
    changed = admission.complete(driver, network, bare, lease, facts)
    if changed.result is None or record.result is None:
        return changed
    return replace(changed, result=replace(changed.result, dns=record.result.dns))


def _network_of(record: Record) -> Network:
    driver = plugins.get_driver(driver_name(record.config))
    return parse_network(record.config, driver.options)[0]


def _take_over(engine: Engine, kernel: Kernel, record: Record, held: Held, fresh: Held) -> None:
    """Notes the new times; where the terms changed, kernel and record follow.

    Until they have, the lease stays due, and is marked: a killed agent does it again.
    """
    if fresh.lease == held.lease and not held.lost and held.fault != CHANGING:
        with engine.state.transaction() as db:
            leases.put(db, fresh)
        return
    changed = _replan(engine, kernel, record, fresh.lease)
    gone = [step for step in record.plan if step not in changed.plan.steps]
    usage = engine.usage(record)
    for step in reversed(gone):
        if step.key is None:
            _undo(engine, kernel, step, usage)
    with engine.state.transaction() as db:
        leases.put(db, replace(fresh, next=leases.now() + LEAST_PAUSE, fault=CHANGING))
        engine.state.replan(db, changed)
        for step in gone:
            if step.key is not None:
                engine.state.disuse(db, record.host, record.owner, step.key)
    for step in reversed(gone):
        if step.key is not None:
            _undo(engine, kernel, step, usage)
    for step in changed.plan:
        plan.apply(kernel, step, usage)
    engine.publish(kernel, _network_of(changed), changed)  # its names have another address now
    with engine.state.transaction() as db:
        leases.put(db, fresh)


def _undo(engine: Engine, kernel: Kernel, step: Resource, usage: plan.Sharing) -> None:
    try:
        if step.key is None:
            step.undo(kernel)
            return
        with usage.hold(step.key):
            if usage.may_undo(step.key):
                step.undo(kernel)
    except NetplugError as error:
        engine.log(f"while changing the address: {error}")
