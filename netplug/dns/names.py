"""Who is called what, and what a question about it is answered with. Pure.

A `Zone` is the names of one network, a `View` the zones that one container sees: those of
all networks that it is on. A lookup gives an `Answer`, or None for a name that is nobody's
here and goes to an upstream server. A name that is ours never does, whatever its type.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

from netplug.dns import wire
from netplug.model import IPAddress, IPNetwork

HOST_NAMES = ("host.containers.internal", "host.docker.internal", "gateway")
OPEN_DOMAIN = "internal"  # clouds have names of their own below it: see `View.owns`
REVERSE = (".in-addr.arpa", ".ip6.arpa")
LOOPBACK: tuple[IPAddress, ...] = (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1"))

ZoneKey = tuple[str, str]  # host id, network


@dataclass(frozen=True, slots=True)
class Service:
    """A port with a name: `_name._protocol` in RFC 2782."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Member:
    """One attachment as its neighbours see it, and the settings of its network.

    `group` is equal for all attachments of one sandbox. `names` are in lower case, the
    first one is what a PTR question is answered with.
    """

    host: str
    network: str
    owner: str
    group: str
    names: tuple[str, ...]
    addresses: tuple[IPAddress, ...]
    services: tuple[Service, ...] = ()
    domain: str = OPEN_DOMAIN
    ttl: int = 5
    internal: bool = False
    subnets: tuple[IPNetwork, ...] = ()
    gateways: tuple[IPAddress, ...] = ()

    @property
    def key(self) -> ZoneKey:
        return self.host, self.network

    @property
    def full_name(self) -> str:
        return f"{self.names[0]}.{self.network.lower()}.{self.domain}"


Data = str | IPAddress | tuple[int, str]  # a name, an address, (port, name)


@dataclass(frozen=True, slots=True)
class Answer:
    """`records` are (type, data) of the name that was asked for, `additions` (name, address).

    `base` names what the answer follows from: when that changes, the answer may. Without one
    the answer is not worth keeping. `zone` is where a negative answer comes from.
    """

    rcode: int
    records: tuple[tuple[int, Data], ...] = ()
    additions: tuple[tuple[str, IPAddress], ...] = ()
    ttl: int = 5
    base: str = ""
    zone: str = ""
    source: str = ""  # for people: the network that knows it


class Zone:
    """The names of one network on one host, each with the attachments that bear it."""

    def __init__(self, key: ZoneKey) -> None:
        self.host, self.network = key
        self.label = self.network.lower()
        self.members: dict[str, Member] = {}
        self.names: dict[str, dict[str, Member]] = {}
        self.domain, self.ttl, self.internal = OPEN_DOMAIN, 5, False
        self.subnets: tuple[IPNetwork, ...] = ()
        self.gateways: tuple[IPAddress, ...] = ()
        self.serial = 1

    def put(self, member: Member) -> set[str]:
        """Names and addresses whose answers may have changed."""
        changed = self.drop(member.owner)
        self.members[member.owner] = member
        self.domain, self.ttl, self.internal = member.domain, member.ttl, member.internal
        # A container of another node tells of the whole network, and of no gateway here.
        self.subnets = tuple(dict.fromkeys((*self.subnets, *member.subnets)))
        self.gateways = member.gateways or self.gateways
        for base in bases(member):
            self.names.setdefault(base, {})[member.owner] = member
            changed.add(base)
        self.serial += 1
        return changed

    def drop(self, owner: str) -> set[str]:
        member = self.members.pop(owner, None)
        if member is None:
            return set()
        self.serial += 1
        changed = set(bases(member))
        for base in changed:
            bearers = self.names[base]
            del bearers[owner]
            if not bearers:
                del self.names[base]
        return changed

    @property
    def apex(self) -> str:
        return f"{self.label}.{self.domain}"

    def find(self, name: str) -> Iterable[Member]:
        """Who bears this name: as it is, below the domain, or below network and domain."""
        bearers = self.names.get(name)
        if bearers is None and name.endswith(f".{self.domain}"):
            inner = name[: -len(self.domain) - 1]
            bearers = self.names.get(inner)
            if bearers is None and inner.endswith(f".{self.label}"):
                bearers = self.names.get(inner[: -len(self.label) - 1])
        return bearers.values() if bearers else ()


def bases(member: Member) -> Iterator[str]:
    yield from member.names
    for address in member.addresses:
        yield address.reverse_pointer


def parse_reverse(name: str) -> IPAddress | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for; None for a part of one."""
    try:
        if name.endswith(REVERSE[0]):
            parts = name[: -len(REVERSE[0])].split(".")
            return ipaddress.IPv4Address(".".join(reversed(parts)))
        if name.endswith(REVERSE[1]):
            nibbles = name[: -len(REVERSE[1])].split(".")
            if len(nibbles) == 32 and all(len(nibble) == 1 for nibble in nibbles):
                return ipaddress.IPv6Address(int("".join(reversed(nibbles)), 16))
    except ValueError:
        pass
    return None


@dataclass(eq=False)
class View:
    """What a container on these networks gets to hear."""

    zones: tuple[Zone, ...]
    networks: frozenset[str] = frozenset()  # all that have names on this host, in lower case
    ready: dict[bytes, bytes] = field(default_factory=dict)
    turning: dict[bytes, list[bytes]] = field(default_factory=dict)
    users: int = 0  # attachments that see this
    _kept: dict[str, list[bytes]] = field(default_factory=dict)

    @cached_property
    def key(self) -> frozenset[ZoneKey]:
        return frozenset((zone.host, zone.network) for zone in self.zones)

    @property
    def internal(self) -> bool:
        """No way out: it is on internal networks alone."""
        return all(zone.internal for zone in self.zones)

    @property
    def ttl(self) -> int:
        return min((zone.ttl for zone in self.zones), default=5)

    def lookup(self, name: str, kind: int) -> Answer | None:
        """None: the name is not ours."""
        if name.endswith(REVERSE):
            return self._reverse(name, kind)
        service, protocol, base = split_service(name)
        bearers = self.find(base)
        if bearers:
            if service or protocol:
                return self._service(service, protocol, base, bearers, kind)
            return self._addresses(name, bearers, kind)
        if name in HOST_NAMES or (name == "localhost" or name.endswith(".localhost")):
            return self._host(name, kind)
        if any(name in (zone.apex, zone.domain) for zone in self.zones):
            return self._apex(name, kind)
        if self.owns(name):
            return self._negative(wire.NXDOMAIN, name)
        return None

    def find(self, name: str) -> list[Member]:
        """Who bears the name on any of the networks, each once."""
        found: dict[str, Member] = {}
        for zone in self.zones:
            for member in zone.find(name):
                found[member.owner] = member
        return list(found.values())

    def owns(self, name: str) -> bool:
        """Is the name below a domain of ours?

        Below `internal` clouds have names too (metadata.google.internal): there we answer for
        single labels and for what ends in a network of this host.
        """
        if name == "localhost" or name.endswith((".localhost", *(f".{n}" for n in HOST_NAMES))):
            return True
        for zone in self.zones:
            if not name.endswith(f".{zone.domain}"):
                continue
            inner = name[: -len(zone.domain) - 1]
            below = any(inner.endswith(f".{network}") for network in self.networks)
            if zone.domain != OPEN_DOMAIN or "." not in inner or below or inner in self.networks:
                return True
        return False

    # kinds of answers

    def _addresses(self, name: str, bearers: list[Member], kind: int) -> Answer:
        addresses = dict.fromkeys(a for member in bearers for a in member.addresses)
        records = _address_records(addresses, kind)
        base = self._base_of(name, bearers)
        source = bearers[0].network
        if not records:
            return self._negative(wire.NOERROR, name, base, source)
        return Answer(wire.NOERROR, records, ttl=self.ttl, base=base, source=source)

    def _service(
        self, service: str, protocol: str, base: str, bearers: list[Member], kind: int
    ) -> Answer:
        """SRV, RFC 2782: every container that offers the service, with its addresses."""
        name = ".".join(filter(None, (service, protocol, base)))
        offers = [
            (member, offer)
            for member in bearers
            for offer in member.services
            if protocol == f"_{offer.protocol}" and service in ("", f"_{offer.name}")
        ]
        key = self._base_of(base, bearers)
        if not offers:
            return self._negative(wire.NXDOMAIN, name)
        if not service or kind not in (wire.SRV, wire.ANY):  # `_tcp.web` exists, and is empty
            return self._negative(wire.NOERROR, name, key, bearers[0].network)
        records = tuple((wire.SRV, (offer.port, member.full_name)) for member, offer in offers)
        additions = dict.fromkeys((m.full_name, a) for m, _ in offers for a in m.addresses)
        return Answer(
            wire.NOERROR, records, tuple(additions), self.ttl, key, source=bearers[0].network
        )

    def _reverse(self, name: str, kind: int) -> Answer | None:
        address = parse_reverse(name)
        if address is None:
            return None
        if address.is_loopback:
            records: tuple[tuple[int, Data], ...] = ((wire.PTR, "localhost"),)
            return self._of_kind(records, name, kind, "")
        for zone in self.zones:
            if not any(address in subnet for subnet in zone.subnets):
                continue
            bearers = self.find(name)
            if bearers:
                records = tuple((wire.PTR, member.full_name) for member in bearers)
                return self._of_kind(records, name, kind, name)
            if address in zone.gateways:
                return self._of_kind(((wire.PTR, HOST_NAMES[0]),), name, kind, "")
            return self._negative(wire.NXDOMAIN, name)
        return None

    def _of_kind(
        self, records: tuple[tuple[int, Data], ...], name: str, kind: int, base: str
    ) -> Answer:
        if kind not in (wire.PTR, wire.ANY):
            return self._negative(wire.NOERROR, name, base)
        return Answer(wire.NOERROR, records, ttl=self.ttl, base=base)

    def _host(self, name: str, kind: int) -> Answer:
        """The host as the asker reaches it, or the asker itself (RFC 6761 section 6.3)."""
        loopback = name not in HOST_NAMES
        gateways = [gateway for zone in self.zones for gateway in zone.gateways]
        addresses = dict.fromkeys(LOOPBACK if loopback else gateways)
        if not addresses:
            return self._negative(wire.NXDOMAIN, name)
        records = _address_records(addresses, kind)
        if not records:
            return self._negative(wire.NOERROR, name)
        return Answer(wire.NOERROR, records, ttl=self.ttl)

    def _apex(self, name: str, kind: int) -> Answer:
        if kind == wire.NS:
            return Answer(wire.NOERROR, ((wire.NS, HOST_NAMES[0]),), ttl=self.ttl)
        if kind in (wire.SOA, wire.ANY):
            return Answer(wire.NOERROR, ((wire.SOA, name),), ttl=self.ttl)
        return self._negative(wire.NOERROR, name)

    def _negative(self, rcode: int, name: str, base: str = "", source: str = "") -> Answer:
        """NODATA or NXDOMAIN, with the SOA that lets resolvers keep it (RFC 2308)."""
        return Answer(rcode, ttl=self.ttl, base=base, zone=self._zone_of(name), source=source)

    def _zone_of(self, name: str) -> str:
        """The nearest zone above a name; a bare name is a zone of its own."""
        above = [
            apex
            for zone in self.zones
            for apex in (zone.apex, zone.domain)
            if name == apex or name.endswith(f".{apex}")
        ]
        return max(above, key=len, default=name)

    def _base_of(self, name: str, bearers: list[Member]) -> str:
        """The name under which the bearers are known, without domain and network."""
        for zone in self.zones:
            for candidate in (
                name,
                name.removesuffix(f".{zone.domain}"),
                name.removesuffix(f".{zone.apex}"),
            ):
                if candidate in bearers[0].names:
                    return candidate
        return name

    @property
    def serial(self) -> int:
        return sum(zone.serial for zone in self.zones) & 0xFFFFFFFF

    # ready replies

    def keep(self, base: str, question: bytes, replies: list[bytes], limit: int) -> None:
        """Answers this very question from now on, several replies in turn."""
        if len(self.ready) + len(self.turning) >= limit:
            self.forget_all()
        if len(replies) == 1:
            self.ready[question] = replies[0]
        else:
            self.turning[question] = replies
        self._kept.setdefault(base, []).append(question)

    def turn(self, question: bytes) -> bytes | None:
        """The next one of several replies that are kept."""
        replies = self.turning.get(question)
        if replies is None:
            return None
        replies.append(replies.pop(0))
        return replies[0]

    def forget(self, changed: Iterable[str]) -> None:
        """In one go, between two questions: what follows from these names is looked up anew."""
        for base in changed:
            for question in self._kept.pop(base, ()):
                self.ready.pop(question, None)
                self.turning.pop(question, None)

    def forget_all(self) -> None:
        self.ready.clear()
        self.turning.clear()
        self._kept.clear()


def split_service(name: str) -> tuple[str, str, str]:
    """`_http._tcp.web` is (_http, _tcp, web), `_tcp.web` ("", _tcp, web), `web` ("", "", web)."""
    first, _, rest = name.partition(".")
    if first in ("_tcp", "_udp", "_sctp"):
        return "", first, rest
    second, _, base = rest.partition(".")
    if first.startswith("_") and second in ("_tcp", "_udp", "_sctp"):
        return first, second, base
    return "", "", name


def _address_records(addresses: Iterable[IPAddress], kind: int) -> tuple[tuple[int, Data], ...]:
    kinds = {4: wire.A, 6: wire.AAAA}
    return tuple(
        (kinds[address.version], address)
        for address in addresses
        if kind in (kinds[address.version], wire.ANY)
    )
