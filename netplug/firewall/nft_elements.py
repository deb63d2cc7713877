"""Intents as elements of sets, and elements as bytes and as nft text."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any, assert_never

from netplug.firewall.intent import Base, BridgePolicy, Mapping, Publish, SpoofGuard, Subnet
from netplug.firewall.nft_layout import MARK, OWNER, Kind, Layout, Scope
from netplug.kernel import nftables as nf
from netplug.model import IPNetwork

MULTICAST: dict[int, IPNetwork] = {4: ip_network("224.0.0.0/4"), 6: ip_network("ff00::/8")}


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a set, as values. In sets with intervals the values are networks."""

    set: str
    key: tuple[Any, ...]
    data: tuple[Any, ...] = ()
    comment: str = ""


Elements = BridgePolicy | Subnet | Publish | SpoofGuard
POLICY_SETS = ("bridges", "same", "internal", "isolated", "unrouted")


def scope_of(intent: Base | Elements) -> Scope:
    match intent:
        case Base(family):
            return family
        case Subnet(subnet):
            return subnet.version
        case SpoofGuard():
            return "bridge"
        case BridgePolicy(family=family) | Publish(family=family):
            return family
        case _:
            assert_never(intent)


def compute_elements(intent: Elements) -> tuple[Element, ...]:
    """What the sets hold for an intent."""
    match intent:
        case BridgePolicy():
            return _policy_elements(intent)
        case Subnet(subnet, bridge, masquerade, whole):
            comment = MARK + bridge
            pairs = tuple(
                Element("local", (subnet, other), comment=comment)
                for other in (whole or subnet, MULTICAST[subnet.version])
            )
            return (Element("masq", (subnet,), comment=comment), *pairs) if masquerade else pairs
        case Publish(owner, _, mappings):
            return tuple(_port_element(m, OWNER + owner) for m in mappings)
        case SpoofGuard(owner, device, mac):
            comment = OWNER + owner
            return (
                Element("guarded", (device,), comment=comment),
                Element("macs", (device, mac.lower()), comment=comment),
            )
        case _:
            assert_never(intent)


def possible_elements(intent: Elements) -> tuple[Element, ...]:
    """Those that any intent of the same key may have put there: what is not wanted must go."""
    match intent:
        case BridgePolicy():
            return _policy_elements(replace(intent, internal=True, isolated=True, routed=False))
        case Subnet():
            return compute_elements(replace(intent, masquerade=True))
        case _:
            return compute_elements(intent)


def _policy_elements(policy: BridgePolicy) -> tuple[Element, ...]:
    member = {
        "bridges": True,
        "same": True,
        "internal": policy.internal,
        "isolated": policy.isolated,
        "unrouted": not policy.routed,
    }
    own = tuple(
        Element(name, (policy.bridge, policy.bridge) if name == "same" else (policy.bridge,))
        for name in POLICY_SETS
        if member[name]
    )
    if not policy.tunnel:
        return own
    both = ((policy.bridge, policy.tunnel), (policy.tunnel, policy.bridge))
    return (*own, Element("bridges", (policy.tunnel,)), *(Element("same", pair) for pair in both))


def _port_element(mapping: Mapping, comment: str) -> Element:
    target = (mapping.address, mapping.port)
    key = (mapping.protocol, mapping.host_port)
    if mapping.host_ip is None or mapping.host_ip.is_unspecified:
        return Element("publish_any", key, target, comment)
    return Element("publish_ip", (mapping.host_ip, *key), target, comment)


# -- values as bytes and as text -----------------------------------------------------------


def pack_element(layout: Layout, element: Element) -> tuple[nf.RawElement, ...]:
    """The element as the kernel takes it: two elements for a plain range, else one."""
    owner = layout.set(element.set)
    if not owner.interval:
        return (
            nf.RawElement(
                _pack_fields(owner.key, element.key),
                _pack_fields(owner.data, element.data),
                comment=element.comment,
            ),
        )
    low = _pack_fields(owner.key, tuple(net.network_address for net in element.key))
    high = _pack_fields(owner.key, tuple(net.broadcast_address for net in element.key))
    if len(owner.key) > 1:
        return (nf.RawElement(low, end=high, comment=element.comment),)
    start = nf.RawElement(low, comment=element.comment)
    if not high.strip(b"\xff"):  # the range ends with the address space: no end element
        return (start,)
    beyond = (int.from_bytes(high, "big") + 1).to_bytes(len(high), "big")
    return (start, nf.RawElement(beyond, flags=nf.ELEM_INTERVAL_END))


def _pack_fields(kinds: tuple[Kind, ...], values: tuple[Any, ...]) -> bytes:
    if len(kinds) == 1:
        return kinds[0].pack(values[0])
    packed = (kind.pack(value) for kind, value in zip(kinds, values, strict=True))
    return b"".join(field + b"\0" * (-len(field) & 3) for field in packed)


def element_text(layout: Layout, element: Element) -> str:
    owner = layout.set(element.set)
    words = [_fields_text(owner.key, element.key)]
    if element.comment:
        words.append(f'comment "{element.comment}"')
    if owner.data:
        words.append(f": {_fields_text(owner.data, element.data)}")
    return " ".join(words)


def _fields_text(kinds: tuple[Kind, ...], values: tuple[Any, ...]) -> str:
    return " . ".join(kind.show(value) for kind, value in zip(kinds, values, strict=True))
