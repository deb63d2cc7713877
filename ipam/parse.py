"""The `ipam` object of a network configuration -> `Ipam`. Pure.

Keys and defaults are those of the reference plugins host-local and static, joined:
range sets, the single range of old configurations, static addresses, routes, dns.
Keys arrive in the spelling of the documentation: the edge has folded their case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address, ip_interface, ip_network
from typing import Any

from netplug.errors import ConfigError
from netplug.ipam import dhcp
from netplug.ipam.dhcp import parse_dhcp
from netplug.ipam.ranges import check_range_sets, make_range, usable_bounds
from netplug.model import (
    DHCP,
    Dns,
    IPAddress,
    Ipam,
    IPInterface,
    IPNetwork,
    Range,
    Route,
    StaticAddress,
)

_RANGE_KEYS = ("subnet", "rangeStart", "rangeEnd", "gateway", "exclude")
_ROUTE_KEYS = ("dst", "gw", "mtu", "advmss", "priority", "table", "scope")
_DNS_KEYS = ("nameservers", "domain", "search", "options")
_IPAM_KEYS = ("type", "ranges", "routes", "addresses", "dns", "resolvConf", "dataDir", *_RANGE_KEYS)
_CHILD_KEYS = {"routes": _ROUTE_KEYS, "addresses": ("address", "gateway")}
_U32 = 0xFFFF_FFFF


@dataclass(frozen=True, slots=True)
class UnknownKey:
    """A key that nothing reads: its full path, and the known key it resembles, if any."""

    path: str
    suggestion: str | None = None


def parse_ipam(ipam: Mapping[str, Any], *, ip_ranges: Sequence[Any] = ()) -> Ipam:
    """The address management that a configuration asks for.

    `ip_ranges` is the runtime's `ipRanges` (CNI conventions), placed before the
    configuration's own ranges. Of a foreign type only the name is read: its keys
    are its own. Raises ConfigError with the key, the value and the rule.
    """
    root = _Node(ipam, "ipam")
    kind = root.text("type") or "netplug"
    if Ipam(type=kind).foreign:
        return Ipam(type=kind)
    if kind == DHCP:
        return Ipam(type=kind, dhcp=parse_dhcp(ipam))
    range_sets = [*_range_sets(ip_ranges, "runtimeConfig.ipRanges")]
    range_sets += _legacy_range(root)
    range_sets += _range_sets(root.items("ranges"), "ipam.ranges")
    if range_sets:
        check_range_sets(range_sets)
    return Ipam(
        type=kind,
        range_sets=tuple(tuple(one for _, one in range_set) for range_set in range_sets),
        routes=tuple(_route(node) for node in root.nodes("routes")),
        addresses=_static_addresses(root),
        dns=_dns(root),
    )


def unknown_keys(ipam: Mapping[str, Any]) -> tuple[UnknownKey, ...]:
    """Keys of an `ipam` object of ours that nothing reads; `cni.dev/` keys are nobody's mistake."""
    asking = ipam.get("type") == DHCP
    found = list(_unknown(ipam, "ipam", dhcp.KEYS if asking else _IPAM_KEYS))
    for key, known in (dhcp.CHILD_KEYS if asking else _CHILD_KEYS).items():
        for index, child in enumerate(_as_list(ipam.get(key))):
            found += _unknown(child, f"ipam.{key}[{index}]", known)
    for outer, range_set in enumerate(_as_list(ipam.get("ranges"))):
        for inner, child in enumerate(_as_list(range_set)):
            found += _unknown(child, f"ipam.ranges[{outer}][{inner}]", _RANGE_KEYS)
    found += _unknown(ipam.get("dns"), "ipam.dns", _DNS_KEYS)
    return tuple(found)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _unknown(value: Any, path: str, known: Sequence[str]) -> Iterable[UnknownKey]:
    if not isinstance(value, Mapping):
        return
    for key in value:
        if key not in known and not key.startswith("cni.dev/"):
            yield UnknownKey(f"{path}.{key}", _nearest(key, known))


def _nearest(key: str, known: Sequence[str]) -> str | None:
    from difflib import get_close_matches  # only a mistake pays for this import

    folded = {name.lower().replace("_", ""): name for name in known}
    matches = get_close_matches(key.lower().replace("_", "").replace("-", ""), folded, n=1)
    return folded[matches[0]] if matches else None


def _refuse(key: str, value: Any, rule: str, fix: str = "") -> ConfigError:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return ConfigError(f"{key} {text[:80]!r}", rule, fix)


@dataclass(frozen=True, slots=True)
class _Node:
    """A JSON object and where it stands, so that every error can name its key.

    null, and "" for text, mean absent (encoding/json, which the reference reads with).
    """

    value: Mapping[str, Any]
    path: str

    def __post_init__(self) -> None:
        if not isinstance(self.value, Mapping):
            raise _refuse(self.path, self.value, "it must be an object", "write { ... }")

    def key(self, name: str) -> str:
        return f"{self.path}.{name}"

    def text(self, name: str) -> str | None:
        value = self.value.get(name)
        if value is not None and not isinstance(value, str):
            raise _refuse(self.key(name), value, "it must be text", "put it into quotes")
        return value.strip() or None if value else None

    def required(self, name: str, why: str, hint: str) -> str:
        """The text; ConfigError with `why` and `hint` where it is absent."""
        text = self.text(name)
        if text is None:
            raise ConfigError(f"{self.key(name)} is missing", why, hint)
        return text

    def items(self, name: str) -> list[Any]:
        value = self.value.get(name)
        if value is not None and not isinstance(value, list):
            raise _refuse(self.key(name), value, "it must be a list", "write [ ... ]")
        return value or []

    def nodes(self, name: str) -> list[_Node]:
        return [_Node(v, f"{self.key(name)}[{i}]") for i, v in enumerate(self.items(name))]

    def texts(self, name: str) -> tuple[str, ...]:
        values = self.items(name)
        for index, value in enumerate(values):
            if not isinstance(value, str) or not value.strip():
                raise _refuse(f"{self.key(name)}[{index}]", value, "it must be text")
        return tuple(value.strip() for value in values)

    def number(self, name: str, *, limit: int = _U32) -> int | None:
        value = self.value.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limit:
            raise _refuse(self.key(name), value, f"it must be a whole number from 0 to {limit}")
        return value

    def address(self, name: str) -> IPAddress | None:
        text = self.text(name)
        return None if text is None else _address(text, self.key(name))


def _address(text: str, key: str) -> IPAddress:
    try:
        address = ip_address(text)
    except ValueError:
        raise _refuse(
            key, text, "it is no IP address", "write an address alone, such as 10.1.0.5 or fd00::5"
        ) from None
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise _refuse(
                key, text, "a zone has no meaning here", "leave out the % and what follows"
            )
        return address.ipv4_mapped or address
    return address


def _network(text: str, key: str, *, strict: bool = True) -> IPNetwork:
    """`strict` refuses host bits, and names the two subnets the writer may have meant."""
    if "/" not in text:
        raise _refuse(key, text, "the prefix length is missing", f"write {text}/24, for example")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise _refuse(key, text, "it is no subnet", "write 10.1.0.0/24 or fd00:1::/64") from None
    if strict and ip_interface(text).ip != network.network_address:
        raise _refuse(key, text, "host bits are set after the prefix", f"write {network}")
    return network


def _legacy_range(root: _Node) -> list[list[tuple[str, Range]]]:
    """The single range written beside `type`: it counts as the first range set."""
    if not any(root.value.get(key) for key in _RANGE_KEYS):
        return []
    return [[("ipam", _range(root))]]


def _range_sets(value: Sequence[Any], path: str) -> list[list[tuple[str, Range]]]:
    if not isinstance(value, (list, tuple)):
        raise _refuse(path, value, "it must be a list of lists", "write [[{...}]]")
    found = []
    for outer, range_set in enumerate(value):
        if not isinstance(range_set, list) or not range_set:
            raise _refuse(
                f"{path}[{outer}]",
                range_set,
                "a range set is a list of at least one range",
                'write [[{"subnet": "10.1.0.0/24"}]], with two pairs of brackets',
            )
        nodes = [_Node(one, f"{path}[{outer}][{inner}]") for inner, one in enumerate(range_set)]
        found.append([(node.path, _range(node)) for node in nodes])
    return found


def _range(node: _Node) -> Range:
    text = node.required(
        "subnet", "a range lies in a subnet", 'add "subnet": "10.1.0.0/24", for example'
    )
    subnet = _network(text, node.key("subnet"))
    unspecified = subnet.network_address.is_unspecified  # 0.0.0.0/8 is "this network" (RFC 791)
    if subnet.is_multicast or subnet.is_loopback or unspecified:
        kind = "multicast" if subnet.is_multicast else "loopback" if subnet.is_loopback else "such"
        raise _refuse(
            node.key("subnet"),
            text,
            f"{kind} addresses cannot be given to interfaces",
            "choose a private subnet, such as 10.1.0.0/24 or fd00:1::/64",
        )
    start, end = _bound(node, "rangeStart", subnet), _bound(node, "rangeEnd", subnet)
    one = make_range(
        subnet, start=start, end=end, gateway=_gateway(node, subnet), exclude=_exclude(node, subnet)
    )
    if int(one.start) > int(one.end):
        key = "rangeEnd" if end is not None else "rangeStart"
        raise _refuse(
            node.key(key),
            str(end if end is not None else start),
            f"no address of {subnet} lies between rangeStart and rangeEnd"
            f" ({one.start} to {one.end})",
            "rangeStart must come first; network and broadcast addresses do not count",
        )
    return one


def _bound(node: _Node, name: str, subnet: IPNetwork) -> IPAddress | None:
    address = node.address(name)
    if address is not None and address not in subnet:
        first, last = usable_bounds(subnet)
        raise _refuse(
            node.key(name),
            str(address),
            f"it lies outside the subnet {subnet}",
            f"use an address from {first} to {last}",
        )
    return address


def _gateway(node: _Node, subnet: IPNetwork) -> IPAddress | None:
    """May lie outside the subnet (an on-link router), but not be the subnet's own number."""
    gateway = node.address("gateway")
    if gateway is None:
        return None
    key = node.key("gateway")
    if gateway.version != subnet.version:
        raise _refuse(key, str(gateway), f"it is not of the family of the subnet {subnet}")
    _check_unicast(key, gateway)
    first, last = usable_bounds(subnet)
    if gateway in subnet and not int(first) <= int(gateway) <= int(last):
        raise _refuse(
            key,
            str(gateway),
            f"it is the network or broadcast address of {subnet}",
            f"use {first}, or leave the key out",
        )
    return gateway


def _check_unicast(key: str, address: IPAddress) -> None:
    if address.is_multicast or address.is_unspecified or address.is_loopback:
        raise _refuse(key, str(address), "it must be the unicast address of a host")


def _exclude(node: _Node, subnet: IPNetwork) -> tuple[IPNetwork, ...]:
    found = []
    for index, text in enumerate(node.texts("exclude")):
        key = f"{node.key('exclude')}[{index}]"
        network = _network(text, key) if "/" in text else ip_network(_address(text, key))
        low, high = network.network_address, network.broadcast_address
        if low not in subnet or high not in subnet:
            raise _refuse(
                key, text, f"it is not inside the subnet {subnet}", "leave it out, or correct it"
            )
        found.append(network)
    return tuple(found)


def _route(node: _Node) -> Route:
    """Host bits of `dst` are dropped, and 0 means absent for mtu, advmss, priority (CNI 1.1)."""
    text = node.required(
        "dst", "a route needs a destination", 'write "dst": "0.0.0.0/0" for the default route'
    )
    dst, gw = _network(text, node.key("dst"), strict=False), node.address("gw")
    if gw is not None and gw.version != dst.version:
        raise _refuse(
            node.key("gw"),
            str(gw),
            f"it is not of the family of the destination {dst}",
            f"name an IPv{dst.version} gateway, or leave the key out",
        )
    return Route(
        dst=dst,
        gw=gw,
        mtu=node.number("mtu") or None,
        advmss=node.number("advmss") or None,
        priority=node.number("priority") or None,
        table=node.number("table"),
        scope=node.number("scope", limit=255),
    )


def _static_addresses(root: _Node) -> tuple[StaticAddress, ...]:
    found: list[StaticAddress] = []
    for node in root.nodes("addresses"):
        key, text = node.key("address"), node.text("address")
        if text is None:
            raise ConfigError(
                f"{key} is missing", "a static address is needed", 'write "address": "10.1.0.5/24"'
            )
        address, gateway = _interface(text, key), node.address("gateway")
        if any(address.ip == other.address.ip for other in found):
            raise _refuse(key, text, "the address is listed twice", "remove one of them")
        if gateway is not None:
            _check_static_gateway(node.key("gateway"), address, gateway)
        found.append(StaticAddress(address, gateway))
    return tuple(found)


def _interface(text: str, key: str) -> IPInterface:
    if "/" not in text:
        raise _refuse(key, text, "the prefix length is missing", f"write {text}/24, for example")
    host, _, prefix = text.partition("/")
    try:
        interface = ip_interface(f"{_address(host, key)}/{prefix}")
    except ValueError:
        raise _refuse(key, text, "the prefix length is wrong", "write 10.1.0.5/24") from None
    _check_unicast(key, interface.ip)
    return interface


def _check_static_gateway(key: str, address: IPInterface, gateway: IPAddress) -> None:
    if gateway.version != address.version:
        raise _refuse(key, str(gateway), f"it is not of the family of {address}")
    _check_unicast(key, gateway)
    if gateway == address.ip:
        raise _refuse(
            key, str(gateway), "it is the address itself", "name the router, or leave the key out"
        )


def _dns(root: _Node) -> Dns:
    value = root.value.get("dns")
    if value is None:
        return Dns()
    node = _Node(value, "ipam.dns")
    servers = node.texts("nameservers")
    for index, text in enumerate(servers):
        _address(text, f"{node.key('nameservers')}[{index}]")
    return Dns(servers, node.text("domain") or "", node.texts("search"), node.texts("options"))
