"""Range arithmetic: what may be leased of a range set, in which order. Pure.

A range set becomes a `Pool`: spans of usable addresses in the order of the
configuration, with excludes and gateways cut out. Choosing the next address is
then a step to the right, whatever the size of the subnet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from itertools import combinations

from netplug.errors import ConfigError
from netplug.model import Family, IPAddress, Ipam, IPNetwork, Range, digest

Span = tuple[int, int]  # first and last address, both usable


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses that one range set may lease; equal spans mean one pool, by `key`."""

    family: Family
    spans: tuple[Span, ...]
    key: str

    @property
    def size(self) -> int:
        return sum(last - first + 1 for first, last in self.spans)

    def after(self, address: int | None) -> Iterator[Span]:
        """The spans that follow `address`, the first one cut; every span for None."""
        if address is None:
            yield from self.spans
            return
        found = False
        for first, last in self.spans:
            if found:
                yield first, last
            elif first <= address <= last:
                found = True
                if address < last:
                    yield address + 1, last

    def __contains__(self, address: IPAddress) -> bool:
        number = int(address)
        return address.version == self.family and any(a <= number <= b for a, b in self.spans)


def make_address(family: Family, number: int) -> IPAddress:
    return IPv4Address(number) if family == 4 else IPv6Address(number)


def make_range(
    subnet: IPNetwork,
    *,
    start: IPAddress | None = None,
    end: IPAddress | None = None,
    gateway: IPAddress | None = None,
    exclude: tuple[IPNetwork, ...] = (),
) -> Range:
    """A range with its defaults filled in, as host-local chooses them.

    start: the first host address; end: the last one; gateway: the first one. Network
    and broadcast addresses are never leased, even when `start` or `end` names them.
    Subnets of one or two addresses have neither (RFC 3021, RFC 6164), and one of a
    single address has no room for a gateway of its own.
    """
    first, last = usable_bounds(subnet)
    if gateway is None and subnet.num_addresses > 1:
        gateway = first
    return Range(
        subnet=subnet,
        start=first if start is None else make_address(subnet.version, max(int(start), int(first))),
        end=last if end is None else make_address(subnet.version, min(int(end), int(last))),
        gateway=gateway,
        exclude=exclude,
    )


def usable_bounds(subnet: IPNetwork) -> tuple[IPAddress, IPAddress]:
    """First and last host address of a subnet; IPv6 has no broadcast, its last one is usable."""
    low, high = int(subnet.network_address), int(subnet.broadcast_address)
    if subnet.num_addresses > 2:
        low += 1  # IPv4: the network itself; IPv6: the subnet-router anycast (RFC 4291, 2.6.1)
        high -= subnet.version == 4
    return make_address(subnet.version, low), make_address(subnet.version, high)


def compute_pools(ipam: Ipam) -> tuple[Pool, ...]:
    """One pool for each range set; no gateway of the network is in any of them."""
    return _pools(ipam.range_sets, frozenset(gateways(ipam)))


def gateways(ipam: Ipam) -> Iterator[IPAddress]:
    for one in all_ranges(ipam):
        if one.gateway is not None:
            yield one.gateway
    for static in ipam.addresses:
        if static.gateway is not None:
            yield static.gateway


def all_ranges(ipam: Ipam) -> Iterator[Range]:
    for range_set in ipam.range_sets:
        yield from range_set


@lru_cache(maxsize=64)  # an agent allocates from the same few networks again and again
def _pools(
    range_sets: tuple[tuple[Range, ...], ...], reserved: frozenset[IPAddress]
) -> tuple[Pool, ...]:
    return tuple(make_pool(range_set, reserved) for range_set in range_sets)


def make_pool(ranges: Sequence[Range], reserved: Iterable[IPAddress]) -> Pool:
    family: Family = ranges[0].subnet.version
    keep = [(int(a), int(a)) for a in reserved if a.version == family]
    spans = tuple(span for one in ranges for span in _spans(one, keep))
    text = ",".join(f"{first:x}-{last:x}" for first, last in spans)
    return Pool(family, spans, digest("pool", str(family), text)[:24])


def _spans(one: Range, reserved: list[Span]) -> Iterator[Span]:
    blocked = [(int(net.network_address), int(net.broadcast_address)) for net in one.exclude]
    first, last = int(one.start), int(one.end)
    for low, high in sorted(blocked + reserved):
        if low > last:
            break
        if low > first:
            yield first, low - 1
        first = max(first, high + 1)
    if first <= last:
        yield first, last


def render_range(one: Range) -> str:
    return f"{one.subnet} ({one.start}-{one.end})"


def render_ranges(ranges: Iterable[Range]) -> str:
    return ", ".join(render_range(one) for one in ranges)


def check_range_sets(named: Sequence[Sequence[tuple[str, Range]]]) -> None:
    """Rules between ranges, each given with the key it came from. Raises ConfigError.

    One family inside a set; no address in two ranges; no gateway inside another
    range's subnet; and each set must be able to lease something.
    """
    for range_set in named:
        family = range_set[0][1].subnet.version
        for key, one in range_set:
            if one.subnet.version != family:
                raise ConfigError(
                    f"{key}.subnet {one.subnet}",
                    f"its range set began with IPv{family}; a set gives one address, of one family",
                    "put each family into a list of its own: one inner list for IPv4, one for IPv6",
                )
    everything = [item for range_set in named for item in range_set]
    for (key, one), (other_key, other) in combinations(everything, 2):
        _check_pair(key, one, other_key=other_key, other=other)
        _check_pair(other_key, other, other_key=key, other=one)
    reserved = [one.gateway for _, one in everything if one.gateway is not None]
    for range_set in named:
        if not make_pool([one for _, one in range_set], reserved).spans:
            raise ConfigError(
                f"{range_set[0][0]} {render_ranges(one for _, one in range_set)}",
                "gateway and exclude leave no address to lease",
                "widen the range, or exclude less",
            )


def _check_pair(key: str, one: Range, *, other_key: str, other: Range) -> None:
    if one.subnet.version != other.subnet.version:
        return
    if int(one.start) <= int(other.start) <= int(one.end):
        raise ConfigError(
            f"{other_key} {render_range(other)}",
            f"it overlaps {key} {render_range(one)}; an address may be in one range only",
            "move rangeStart or rangeEnd so that the ranges do not meet",
        )
    inside = one.gateway in other.subnet if one.gateway is not None else False
    if inside and one.gateway not in one.subnet:
        raise ConfigError(
            f"{key}.gateway {one.gateway}",
            f"it belongs to the subnet {other.subnet} of {other_key}, not to {one.subnet}",
            f"name a gateway inside {one.subnet}, or leave the key out for its first address",
        )
