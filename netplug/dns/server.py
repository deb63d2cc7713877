"""The name server of one machine: what it answers follows from the records, where from them too.

Everything happens in one thread: between two questions an attachment is visible whole, or
not at all.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from netplug.dns.answering import Answers
from netplug.dns.listening import INSIDE, PORT, Place, Taken, open_place, open_sandbox
from netplug.dns.loop import Loop
from netplug.dns.records import Attached, Key, Mark, Records
from netplug.dns.registry import Client, Registry
from netplug.dns.streams import Streams
from netplug.dns.upstream import SETS_KEPT, Forwarder, Server, Upstreams
from netplug.kernel import namespaces
from netplug.model import IPAddress
from netplug.resolvconf import parse_resolv_conf

LOOK_SECONDS = 2.0  # between two looks at the records, the namespaces and resolv.conf
RESOLV_CONF = Path("/etc/resolv.conf")
IDLE_SECONDS = 1.0
SWEEP_SECONDS = 0.02
SERVERS = 3  # of resolv.conf, as resolv.conf(5) has it
log = logging.getLogger("netplug.dns")


@dataclass(eq=False, slots=True)
class Site:
    """One host: its namespace, and who asks on which of its devices."""

    id: str
    fd: int
    identity: tuple[int, int]
    clients: dict[str, dict[bytes, Client]] = field(default_factory=dict)  # device, address
    places: dict[tuple[str, IPAddress], Place] = field(default_factory=dict)
    users: set[Key] = field(default_factory=set)


class NameServer:
    """`folder` is the state's. Call `start`, then run the loop.

    `while_used`: the loop ends when no attachment has had names for a second.
    """

    def __init__(
        self, folder: Path, resolv_conf: Path = RESOLV_CONF, *, while_used: bool = False
    ) -> None:
        self.loop = Loop()
        self.registry = Registry()
        self.records = Records(folder)
        self.counts: Counter[str] = Counter()
        self.forwarder = Forwarder(self.loop)
        self.answers = Answers(self.forwarder, self.counts, self.upstreams_of)
        self.streams = Streams(self.loop, self.answers.answer_stream, self.counts)
        self.sites: dict[str, Site] = {}
        self.inside: dict[str, Place] = {}  # by group
        self.sets: dict[tuple[str, tuple[Server, ...]], Upstreams] = {}
        self._own = namespaces.identity_of("/proc/self/ns/net")
        self._boot = namespaces.boot_id()
        self._while_used = while_used
        self._resolv_conf = resolv_conf
        self._resolv_seen: object = None
        self._host_servers: tuple[Server, ...] = ()
        self._version = (0, 0)
        self._sweep: Iterator[dict[Key, Mark]] | None = None
        self._seen: dict[Key, Mark] = {}
        self._touched: set[Key] = set()  # told of since the sweep began
        self._lacking: dict[Key, str] = {}  # whose place could not be opened, and why

    def start(self) -> None:
        self.look()
        while self._advance():  # nobody waits yet
            pass
        self.loop.every(LOOK_SECONDS, self.look)
        self._end_when_idle()

    def _end_when_idle(self) -> None:
        def end() -> None:
            if not self.registry.clients:
                self.loop.stop()

        if self._while_used and not self.registry.clients:
            self.loop.later(IDLE_SECONDS, end)

    def close(self) -> None:
        for place in [*self.inside.values(), *self._places()]:
            self._close(place)
        for site in self.sites.values():
            os.close(site.fd)
        self.records.close()

    # attachments come and go

    def sync(self, host: str, owner: str, fds: list[int]) -> tuple[tuple[str, ...], str]:
        """Takes over one record as it is now: visible, or gone, when this returns.

        `fds` are the host's namespace and, for an ADD, the sandbox's. Returns the name
        servers that the container can ask, and what is amiss.
        """
        self._touched.add((host, owner))
        attached = self.records.read(host, owner)
        if attached is None:
            self.detach((host, owner))
            return (), ""
        site = self.sites.get(host) or (self._add_site(host, os.dup(fds[0])) if fds else None)
        if site is None:
            return (), f"host {host} is not known"
        return self.attach(site, attached, fds[1] if len(fds) > 1 else None, fresh=True)

    def attach(
        self, site: Site, attached: Attached, sandbox: int | None, *, fresh: bool
    ) -> tuple[tuple[str, ...], str]:
        """`fresh`: the container has not been told yet whom to ask."""
        old = self.registry.clients.get(attached.key)
        if old is not None:
            self._unplace(site, old, keep=attached.points)
        client = self.registry.put(attached)
        site.users.add(attached.key)
        served: list[str] = []
        problem = ""
        for device, address in attached.points:
            self._clients_of(site, device, client)
            try:
                self._open_gateway(site, device, address).users.add(attached.key)
                served.append(str(address))
            except (Taken, OSError) as error:
                problem = f"{address} cannot be asked: {error}"
        if fresh:
            client.inside = not served
        elif str(INSIDE) in attached.told:
            client.inside = True
        if client.inside:
            try:
                self._open_inside(client, sandbox)
                served.append(str(INSIDE))
            except (Taken, OSError) as error:
                problem = f"{problem}; {INSIDE} cannot be asked: {error}".lstrip("; ")
        self._note(client, problem)
        return tuple(served), problem

    def _note(self, client: Client, problem: str) -> None:
        """Remembers whose place is to be tried again; says why, once."""
        key = client.attached.key
        lacking = self._lacking.pop(key, "")
        if problem:
            self._lacking[key] = problem
            if problem != lacking:
                log.warning("%s: %s", key[1], problem)

    def detach(self, key: Key) -> None:
        client = self.registry.clients.get(key)
        if client is None:
            return
        self._lacking.pop(key, None)
        site = self.sites[key[0]]
        site.users.discard(key)
        self.registry.drop(key)
        self._unplace(site, client)
        self.streams.drop(client)
        group = client.attached.member.group
        place = self.inside.get(group)
        if place is not None:
            place.users.discard(key)
            rest = self.registry.group(group)
            if place.only is client and rest:  # another of its interfaces asks there
                place.only = self.registry.clients[next(iter(rest))]
            if not place.users:
                self._close(self.inside.pop(group))
        self._drop_site_if_idle(site)
        self._end_when_idle()

    def _clients_of(self, site: Site, device: str, client: Client) -> None:
        clients = site.clients.setdefault(device, {})
        for address in client.attached.member.addresses:
            clients[address.packed] = client

    def _unplace(
        self, site: Site, client: Client, *, keep: tuple[tuple[str, IPAddress], ...] = ()
    ) -> None:
        """It asks nowhere on the host any more; a place that nobody asks, but for those to
        keep, is closed."""
        for device, address in client.attached.points:
            clients = site.clients.get(device, {})
            for own in client.attached.member.addresses:
                if clients.get(own.packed) is client:
                    del clients[own.packed]
            place = site.places.get((device, address))
            if (device, address) in keep:
                continue
            if place is not None:
                place.users.discard(client.attached.key)
                if not place.users:
                    self._close(site.places.pop((device, address)))
            if not clients:
                site.clients.pop(device, None)

    # places

    def _open_gateway(self, site: Site, device: str, address: IPAddress) -> Place:
        key = (device, address)
        place = site.places.get(key)
        if place is not None and place.stale:
            self._close(site.places.pop(key))
            place = None
        if place is None:
            place = open_place(site.fd, device, address)
            place.clients = site.clients.setdefault(device, {})
            site.places[key] = place
            self._serve(place)
        return place

    def _open_inside(self, client: Client, sandbox: int | None) -> None:
        attached = client.attached
        place = self.inside.get(attached.member.group)
        if place is None:
            fd = os.dup(sandbox) if sandbox is not None else None
            fd = open_sandbox(attached.sandbox, attached.cookie) if fd is None else fd
            if fd is None:
                raise FileNotFoundError("the sandbox is gone")
            try:
                place = open_place(fd, "", INSIDE)
            finally:
                os.close(fd)
            place.only = client
            self.inside[attached.member.group] = place
            self._serve(place)
        place.users.add(attached.key)

    def _serve(self, place: Place) -> None:
        self.loop.register(place.udp.fileno(), lambda: self.answers.drain(place))
        self.loop.register(place.tcp.fileno(), lambda: self.streams.accept(place.tcp, place.client))

    def _close(self, place: Place) -> None:
        for own in (place.udp, place.tcp):
            self.loop.unregister(own.fileno())
        place.close()

    def _places(self) -> list[Place]:
        return [place for site in self.sites.values() for place in site.places.values()]

    # hosts

    def _add_site(self, host: str, fd: int) -> Site:
        site = self.sites[host] = Site(host, fd, namespaces.identity(fd))
        return site

    def _drop_site_if_idle(self, site: Site) -> None:
        if site.users:
            return
        del self.sites[site.id]
        for key in [key for key in self.sets if key[0] == site.id]:
            for exchange in list(self.sets.pop(key).flying.values()):
                exchange.finish(None, "")
        os.close(site.fd)

    def _find_sites(self, hosts: set[str]) -> None:
        """Hosts of records that nobody has told of: after a start, or a call that missed us."""
        wanted = {}
        for host in hosts - self.sites.keys():
            boot, _, number = host.partition(":")
            if boot == self._boot and number.isdigit():
                wanted[int(number)] = host
        if not wanted:
            return
        own = namespaces.own_namespace()
        ours = namespaces.cookie(own)
        if ours in wanted:
            self._add_site(wanted.pop(ours), own)
        else:
            os.close(own)
        if wanted:
            for cookie, fd in namespaces.open_by_cookie(set(wanted)).items():
                self._add_site(wanted[cookie], fd)

    # looking around

    def look(self) -> None:
        """Finds what nobody told us: records, namespaces that died, changed name servers."""
        self._read_resolv_conf()
        self._leave_the_dead()
        self._renew_places()
        try:
            version = self.records.version()
            if version != self._version and self._sweep is None:
                self._version = version
                self._touched.clear()
                self._sweep = self.records.marks()
                self._seen = {}
                self._sweep_on()
        except (OSError, sqlite3.Error) as error:  # no state file yet, or it was set aside
            log.debug("the records cannot be read: %s", error)

    def _sweep_on(self) -> None:
        """Reads one slice of the records, and the next one a little later."""
        if self._advance():
            self.loop.later(SWEEP_SECONDS, self._sweep_on)

    def _advance(self) -> bool:
        """Whether there is more to read."""
        if self._sweep is None:
            return False
        try:
            self._seen |= next(self._sweep)
            return True
        except StopIteration:
            self._sweep = None
            self._compare_records(self._seen)
        except sqlite3.Error as error:  # set aside, or damaged: looked at anew
            self._sweep, self._version = None, (0, 0)
            log.debug("the records cannot be read: %s", error)
        return False

    def _compare_records(self, marks: dict[Key, Mark]) -> None:
        """Takes over what is another than we know, but for what we were told of meanwhile."""
        for key, client in list(self.registry.clients.items()):
            since = marks.get(key, ("", 0.0))[1]
            if since != client.attached.mark[1] and key not in self._touched:
                self.detach(key)
        missing = [
            key
            for key, (phase, _) in marks.items()
            if phase == "ready" and key not in self.registry.clients and key not in self._touched
        ]
        self._find_sites({host for host, _ in missing})
        for host, owner in missing:
            site = self.sites.get(host)
            attached = self.records.read(host, owner) if site else None
            if site is not None and attached is not None:
                self.attach(site, attached, None, fresh=False)
        for site in list(self.sites.values()):
            self._drop_site_if_idle(site)

    def _leave_the_dead(self) -> None:
        """Closes what we hold in namespaces that nobody else is in: with us they would live on."""
        foreign = any(place.namespace != self._own for place in self.inside.values())
        foreign = foreign or any(site.identity != self._own for site in self.sites.values())
        if not foreign:
            return
        held = namespaces.held_by_others() | {self._own}
        for group, place in list(self.inside.items()):
            if place.namespace not in held:
                log.info("the sandbox of %s is gone", ", ".join(owner for _, owner in place.users))
                self._close(self.inside.pop(group))
        for site in list(self.sites.values()):
            if site.identity not in held:
                log.info("host %s is gone", site.id)
                for key in list(site.users):
                    self.detach(key)

    def _renew_places(self) -> None:
        """What could not be opened, or whose device was made anew, is tried again."""
        wanted = set(self._lacking)
        for place in self._places():
            if place.stale:
                wanted |= place.users
        for key in wanted:
            client = self.registry.clients[key]
            self.attach(self.sites[key[0]], client.attached, None, fresh=False)

    # upstream servers

    def upstreams_of(self, client: Client) -> Upstreams:
        """The container's own servers, else its network's, else the host's."""
        attached = client.attached
        host = attached.key[0]
        named = tuple((server, PORT) for server in attached.upstreams)
        servers = named or self._host_servers
        key = (host, servers)
        found = self.sets.get(key)
        if found is None:
            while len(self.sets) >= SETS_KEPT:
                self.sets.pop(next(iter(self.sets)))
            site = self.sites[host]
            ours = {(str(address), PORT) for _, address in site.places}
            usable = tuple(server for server in servers if server not in ours)
            found = self.sets[key] = Upstreams(site.fd, usable)
        return found

    def _read_resolv_conf(self) -> None:
        try:
            status = self._resolv_conf.stat()
            seen: object = (status.st_mtime_ns, status.st_ino, status.st_size)
            if seen == self._resolv_seen:
                return
            text = self._resolv_conf.read_text(errors="replace")
        except OSError:
            seen, text = None, ""
        self._resolv_seen = seen
        named = parse_resolv_conf(text).nameservers[:SERVERS]
        self._host_servers = tuple((server, PORT) for server in named if server != str(INSIDE))

    def flush(self) -> int:
        """Forgets what upstream servers said; how many replies that were."""
        count = sum(len(one.cache) for one in self.sets.values())
        for one in self.sets.values():
            one.cache.clear()
        return count
