"""The thread that owns this node's overlay networks.

A session with the store is: list everything, compare with what we believe, advertise, then
watch from the revision of that list. Each time the store comes back, a new session begins,
and the kernel is compared as a whole.
"""

from __future__ import annotations

import functools
import logging
import queue
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from netplug.agent.overlay_listen import Keeper, LinkEvents, Watcher
from netplug.agent.overlay_names import Entries, RemoteNames, compute_entries
from netplug.dns.records import compute_names
from netplug.errors import Busy, Conflict, Lost, NetplugError, Unreachable
from netplug.host import Host
from netplug.kernel import Kernel, tunnels
from netplug.overlay import claims
from netplug.overlay import membership as memberships
from netplug.overlay.keys import Advert, Keys, pack, unpack
from netplug.overlay.member import Member, fingerprint
from netplug.overlay.membership import Membership
from netplug.overlay.settings import Settings, open_store
from netplug.overlay.underlay import read_underlay
from netplug.state import State
from netplug.store import Deleted, Lease, Put, Store

TICK_SECONDS = 0.2  # how soon a new container's names are told
RECONCILE_SECONDS = 30.0
SETTLE_SECONDS = 0.1  # a burst of notifications is one look at the kernel
RETRY_SECONDS = 1.0
REMEMBER_SECONDS = 0.5  # a burst of peers is written to the state file once
BATCH = 4096
log = logging.getLogger("netplug.overlay")
Inbox = queue.SimpleQueue[Callable[["Loop"], None] | None]


class Loop:
    def __init__(self, folder: Path, run: Path, settings: Settings, inbox: Inbox) -> None:
        """`folder` is the state's, `run` the one of the name server's socket."""
        self._run = run
        self.folder, self.settings, self.inbox = folder, settings, inbox
        self.keys = Keys(settings.store.root)
        self.members: dict[str, Member] = {}
        self.store: Store | None = None
        self.reason = "not connected yet"  # why the store is not there; "" when it is
        self._lease: Lease | None = None
        self._threads: list[Watcher | Keeper | LinkEvents] = []
        self._served = 0.0  # seconds for which the store answered: the views' clock
        self._since: float | None = None
        self._retry_at = 0.0
        self._reconcile_at = 0.0
        self._names_at = 0.0
        self._remember_at = float("inf")
        self._published: dict[str, str] = {}

    # --- the thread

    def run(self) -> None:
        self.state, self.host = State(self.folder), Host()
        self.me = claims.Identity(
            self.settings.node, memberships.instance_of(self.state, self.settings.node)
        )
        self.remote = RemoteNames(self._run, self.host.id)
        links = LinkEvents(self.host.fd, self._tell_links)
        links.start()
        try:
            self._recall()
            while True:
                if not self._serve_inbox():
                    return
                self._guarded(self._work)
        finally:
            for member in self.members.values():
                member.remember_peers()
            links.close()
            self._end_session()
            if self.store is not None:
                self.store.close()
            self.host.close()
            self.state.close()

    def _serve_inbox(self) -> bool:
        """Waits for the next thing to do, and does all that is there; False at the end."""
        with suppress(queue.Empty):
            work = self.inbox.get(timeout=TICK_SECONDS)
            for _ in range(BATCH):
                if work is None:
                    return False
                self._guarded(functools.partial(work, self))
                work = self.inbox.get_nowait()
        return True

    def _guarded(self, work: Callable[[], None]) -> None:
        """One thing that fails must not end the others."""
        try:
            work()
        except Unreachable as error:
            self.disconnected(str(error))
        except NetplugError as error:
            log.error("%s", error)
        except Exception:
            log.exception("overlay")

    def _work(self) -> None:
        """What is due."""
        now = time.monotonic()
        if self.members and self.reason and now >= self._retry_at:
            self.connect()
        if now >= self._reconcile_at:
            self._reconcile_at = now + RECONCILE_SECONDS
            self.reconcile()
        else:
            self._refresh()
        for name, member in self.members.items():
            self.remote.tell(name, member.view.version, functools.partial(_entries_of, member))
        if now >= self._remember_at:
            self._remember_at = float("inf")
            for member in self.members.values():
                member.remember_peers()
        if not self.reason and now >= self._names_at:
            self._names_at = now + TICK_SECONDS
            self._publish()

    def _recall(self) -> None:
        """The networks of this host, and those that its node had before a reboot."""
        known = memberships.read_all(self.state, self.host.id)
        if not known:
            earlier = memberships.read_earlier(self.state, self.me.node, self.host.boot)
            for one in earlier:
                memberships.write(self.state, self.host.id, one)
            known = earlier
            if earlier:
                memberships.forget_earlier(self.state, self.host.boot)
        for one in known:
            self.members[one.network] = self.new_member(one)

    def new_member(self, membership: Membership) -> Member:
        hold = self.settings.overlay.hold
        return Member(
            self.state, self.host, self.keys, membership, hold=hold, names_of=compute_names
        )

    # --- the kernel

    def kernel(self) -> Kernel:
        return self.host.kernel()

    def reconcile(self) -> None:
        with self.kernel() as kernel:
            underlay = read_underlay(kernel.host, self.settings) if self.members else None
            for member in self.members.values():
                assert underlay is not None
                try:
                    if member.follow(underlay) and not self.reason:
                        self.advertise(member)
                    for words in member.reconcile(kernel):
                        log.info("%s: %s", member.membership.network, words)
                except Unreachable:
                    raise
                except NetplugError as error:
                    member.problem = str(error)
                    log.error("%s: %s", member.membership.network, error)

    def _refresh(self) -> None:
        now = self.clock()
        with self.kernel() as kernel:
            for member in self.members.values():
                if not self.reason:
                    member.view.expire(now)
                if member.held is not None and member.held != member.view.items():
                    member.refresh(kernel)
                    self._remember_at = time.monotonic() + REMEMBER_SECONDS

    def _tell_links(self, name: str, index: int) -> None:
        self.inbox.put(lambda loop: loop.links_changed(name, index))

    def links_changed(self, name: str, index: int) -> None:
        """A link or an entry went or changed: if it is one of ours, look soon."""
        ours = {m.membership.tunnel for m in self.members.values()}
        ours |= {m.membership.underlay for m in self.members.values()}
        if index > 0:
            with self.kernel() as kernel:
                link = tunnels.link_at(kernel.host, index)
            name = link.name if link else ""
        if name in ours or index < 0:
            self._reconcile_at = min(self._reconcile_at, time.monotonic() + SETTLE_SECONDS)

    # --- the store

    def clock(self) -> float:
        running = time.monotonic() - self._since if self._since is not None else 0.0
        return self._served + running

    def disconnected(self, why: str) -> None:
        """The store does not answer: all stays as it is, and time stands still."""
        self._served, self._since = self.clock(), None
        if not self.reason:
            log.warning("the store does not answer: %s", why)
        self.reason = why
        self._retry_at = time.monotonic() + RETRY_SECONDS

    def connect(self) -> None:
        """Begins a session. Raises Unreachable."""
        self._retry_at = time.monotonic() + RETRY_SECONDS
        if self.store is None:
            self.store = open_store(self.settings, self.folder)
        self._end_session()
        store = self.store
        entries, revision = store.list(self.keys.root + "/")
        if self._lease is None or not self._lease.refresh():
            self._lease = store.lease(self.settings.overlay.ttl)
        for member in self.members.values():
            self._confirm(member)
            self.advertise(member)
            member.view.load(entries, self.clock())
        self._threads = [
            Watcher(store.watch(self.keys.root + "/", revision), self._tell_events),
            Keeper(self._lease, self._tell_lease),
        ]
        for thread in self._threads:
            thread.start()
        if self.reason:
            log.info("connected to the store; %d keys", len(entries))
        self.reason, self._since = "", time.monotonic()
        self._reconcile_at = 0.0
        self._published.clear()

    def _end_session(self) -> None:
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.close()

    def _tell_events(self, events: list[Put | Deleted]) -> None:
        """Called by the watcher; an empty list says that events were lost."""
        self.inbox.put(lambda loop: loop.take_events(events))

    def _tell_lease(self, alive: bool, why: str) -> None:
        self.inbox.put(lambda loop: loop.take_lease(alive=alive, why=why))

    def take_events(self, events: list[Put | Deleted]) -> None:
        if not events:
            self.connect()
            return
        now = self.clock()
        for event in events:
            _, network, _ = self.keys.split(event.key)
            member = self.members.get(network)
            if member is None:
                continue
            member.view.apply(event, now)
            if event.key == self.keys.claim(network, member.membership.slot):
                self._confirm(member)
            elif event.key == self.keys.advert(network, self.me.node):
                self._defend(member, event)

    def take_lease(self, *, alive: bool, why: str) -> None:
        """The keeper's word: refreshed; expired (a new session then); or no answer."""
        if why:
            self.disconnected(why)
        elif not alive:
            self._lease = None
            self.connect()
        elif self.reason:
            self.connect()

    def _confirm(self, member: Member) -> None:
        """Our claim still stands; what is free is taken again, what was taken is lost."""
        assert self.store is not None
        m = member.membership
        try:
            member.own(
                claims.claim(self.store, self.keys, m.network, m.record, self.me, hint=m.slot)
            )
        except (Lost, Conflict) as error:
            log.error("%s", error)
            member.lose(str(error))
            with suppress(NetplugError):
                self._withdraw(member)

    def advertise(self, member: Member) -> None:
        """Says where this node is, under the lease; not for a subnet that is not ours."""
        assert self.store is not None
        if member.membership.lost or self._lease is None:
            return
        key = self.keys.advert(member.membership.network, self.me.node)
        value = pack(member.advert)
        for _ in range(3):
            if self.store.create(key, value, self._lease) is not None:
                return
            entry = self.store.get(key)
            if entry is None:
                continue
            other = unpack(Advert, entry.value)
            if other is not None and other.instance != self.me.instance:
                member.lose(f"another machine, at {other.address}, is called {self.me.node}")
                return
            if self.store.replace(key, value, entry.revision, self._lease) is not None:
                return
        raise Busy(f"the advert of {self.me.node} keeps changing")

    def _withdraw(self, member: Member) -> None:
        assert self.store is not None
        key = self.keys.advert(member.membership.network, self.me.node)
        entry = self.store.get(key)
        known = unpack(Advert, entry.value) if entry else None
        if entry is not None and known is not None and known.instance == self.me.instance:
            self.store.delete(key, entry.revision)

    def _defend(self, member: Member, event: Put | Deleted) -> None:
        """Our own advert was removed by somebody, or written by a namesake."""
        if isinstance(event, Deleted) or event.value != pack(member.advert):
            self.advertise(member)

    def _publish(self) -> None:
        assert self.store is not None
        for name, member in self.members.items():
            mark = fingerprint(self.state, self.host.id, name)
            if self._published.get(name) != mark:
                member.publish(self.store)
                self._published[name] = mark


def _entries_of(member: Member) -> Entries:
    m = member.membership
    return compute_entries(m.config, m.record.ranges, member.view.remote_names())
