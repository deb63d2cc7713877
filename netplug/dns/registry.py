"""All attachments with names, by network and by sandbox: what each of them sees. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from netplug.dns.names import Member, View, Zone, ZoneKey
from netplug.dns.records import Attached, Key


@dataclass(eq=False, slots=True)
class Client:
    """Where questions come from: one attachment. Its view changes with its sandbox's networks."""

    attached: Attached
    view: View
    inside: bool = False  # it asks on 127.0.0.11
    allowance: float = 0.0  # questions that may still cost something, until it is filled again
    filled: float = 0.0


class Registry:
    """Changed only between two questions, so that no answer sees half a change."""

    def __init__(self) -> None:
        self.zones: dict[ZoneKey, Zone] = {}
        self.views: dict[frozenset[ZoneKey], View] = {}
        self.clients: dict[Key, Client] = {}
        self._groups: dict[str, set[Key]] = {}
        self._networks: dict[str, frozenset[str]] = {}  # by host
        self._views_of: dict[ZoneKey, set[View]] = {}

    def put(self, attached: Attached) -> Client:
        """Adds an attachment, or replaces it; the cost does not grow with their number."""
        member, key = attached.member, attached.key
        old = self.clients.get(key)
        if old is not None and old.attached.member.group != member.group:
            self.drop(key)
            old = None
        self.put_remote(member)
        if old is not None:
            old.attached = attached
            return old
        client = self.clients[key] = Client(attached, View(()))
        self._groups.setdefault(member.group, set()).add(key)
        self._review(member.group)
        return client

    def put_remote(self, member: Member) -> None:
        """Adds names alone: of a container that asks elsewhere, as on another node of the network.

        `host` is the one whose containers see it.
        """
        zone = self.zones.get(member.key)
        if zone is None:
            zone = self.zones[member.key] = Zone(member.key)
            self._count_networks(member.host)
        self._forget(zone, zone.put(member))

    def drop_remote(self, member: Member) -> None:
        zone = self.zones.get(member.key)
        if zone is None:
            return
        self._forget(zone, zone.drop(member.owner))
        if not zone.members:
            del self.zones[member.key]
            self._count_networks(member.host)

    def drop(self, key: Key) -> Client | None:
        client = self.clients.pop(key, None)
        if client is None:
            return None
        member = client.attached.member
        group = self._groups[member.group]
        group.discard(key)
        self._release(client.view)
        if group:
            self._review(member.group)
        else:
            del self._groups[member.group]
        self.drop_remote(member)
        return client

    def group(self, name: str) -> set[Key]:
        return self._groups.get(name, set())

    def _forget(self, zone: Zone, changed: set[str]) -> None:
        for view in self._views_of.get((zone.host, zone.network), ()):
            view.forget(changed)

    def _review(self, group: str) -> None:
        """Gives every attachment of a sandbox the view of all its networks."""
        keys = self._groups[group]
        wanted = frozenset(self.clients[key].attached.member.key for key in keys)
        view = self.views.get(wanted)
        if view is None:
            zones = tuple(self.zones[zone] for zone in sorted(wanted))
            host = zones[0].host
            view = self.views[wanted] = View(zones, self._networks[host])
            for zone in wanted:
                self._views_of.setdefault(zone, set()).add(view)
        for key in keys:
            client = self.clients[key]
            if client.view is not view:
                self._release(client.view)
                view.users += 1
                client.view = view

    def _release(self, view: View) -> None:
        """A view that nobody has any more is forgotten."""
        view.users -= 1
        if view.users > 0 or not view.zones:
            return
        self.views.pop(view.key, None)
        for zone in view.key:
            views = self._views_of[zone]
            views.discard(view)
            if not views:
                del self._views_of[zone]

    def _count_networks(self, host: str) -> None:
        """A network came or went: names below it are ours, or no longer."""
        known = frozenset(zone.label for zone in self.zones.values() if zone.host == host)
        self._networks[host] = known
        for view in self.views.values():
            if view.zones and view.zones[0].host == host:
                view.networks = known
        if not known:
            del self._networks[host]
