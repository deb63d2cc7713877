"""Intents as rules of the legacy tables: pure values, used by the kernel and by `--dry-run`.

    raw     PREROUTING                 -> NETPLUG-GUARD    127.0.0.0/8 belongs to lo (IPv4)
    nat     PREROUTING, OUTPUT         -> NETPLUG-DNAT     published ports, a given host_ip first
    nat     POSTROUTING                -> NETPLUG-POST     masquerade and hairpin
    filter  FORWARD, new connections   -> NETPLUG-FORWARD  borders of bridges; only ever drops
              not by a published port    -> NETPLUG-POLICY   isolated and unrouted bridges
                                              -> NETPLUG-TO-BRIDGE, NETPLUG-FROM-BRIDGE,
                                                 NETPLUG-OUTSIDE: one line for each bridge of ours
    filter  FORWARD or DOCKER-USER     -> NETPLUG-ACCEPT   what the policy lets through

A rule's comment names its intent, and is all that is needed to find the rule again:
`netplug`, `netplug/policy/BRIDGE`, `netplug/subnet/BRIDGE/SUBNET`, `netplug/accept/BRIDGE`, or
`netplug/` and the 24 hex of an attachment's tag. No blanks or quotes in it: python-iptables
reads a quoted comment as None.

The rules of one chain need no order beyond "at the head" and "last", so that any of them can be
put back alone. (Replies never reach NETPLUG-FORWARD, and everything in it drops.)
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from netplug.errors import Conflict, UnsupportedError
from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Mapping,
    Publish,
    SpoofGuard,
    Subnet,
)
from netplug.model import Family

# "first" is "head", and stays right only while nothing before it could accept a packet.
Place = Literal["last", "head", "first"]
Options = tuple[tuple[str, str], ...]  # a value that starts with "!" is negated

PREFIX = "NETPLUG-"
GUARD = "NETPLUG-GUARD"
DNAT = "NETPLUG-DNAT"
POST = "NETPLUG-POST"
FORWARD = "NETPLUG-FORWARD"
POLICY = "NETPLUG-POLICY"
TO_BRIDGE = "NETPLUG-TO-BRIDGE"
FROM_BRIDGE = "NETPLUG-FROM-BRIDGE"
OUTSIDE = "NETPLUG-OUTSIDE"
ACCEPT = "NETPLUG-ACCEPT"

BASE_COMMENT = "netplug"
LEGACY_COMMENT = "netplug/legacy/"  # accepts that serve the nft backend; no Base goes with them
_OWNER = re.compile(r"netplug/([0-9a-f]{24})")
_SUBNET = re.compile(r"netplug/subnet/([^/]+)/(.+)")
_MULTICAST = {4: "224.0.0.0/4", 6: "ff00::/8"}
_COMMAND = {4: "iptables-legacy", 6: "ip6tables-legacy"}


@dataclass(frozen=True, slots=True)
class Match:
    name: str
    options: Options


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule without its comment. Empty text is "any"; a leading "!" negates."""

    table: str
    chain: str
    target: str
    place: Place = "last"
    source: str = ""
    destination: str = ""
    inside: str = ""  # -i
    outside: str = ""  # -o
    protocol: str = ""
    matches: tuple[Match, ...] = ()
    options: Options = ()  # of the target

    def arguments(self, comment: str) -> Iterator[str]:
        """The words after the chain's name, as `iptables -S` orders them."""
        for option, value in (
            ("-s", self.source),
            ("-d", self.destination),
            ("-i", self.inside),
            ("-o", self.outside),
            ("-p", self.protocol),
        ):
            if value:
                yield from _option(option, value)
        for match in (*self.matches, comment_match(comment)):
            yield from ("-m", match.name)
            for name, value in match.options:
                yield from _option(f"--{name}", value)
        yield from ("-j", self.target)
        for name, value in self.options:
            yield from _option(f"--{name}", value)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All that one intent is in the kernel. `chains` are (table, name), in order of creation."""

    family: Family
    comment: str
    rules: tuple[Rule, ...]
    chains: tuple[tuple[str, str], ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rule.table for rule in self.rules))


def _option(name: str, value: str) -> Iterator[str]:
    if value.startswith("!"):
        yield "!"
    yield from (name, value.removeprefix("!"))


def comment_match(comment: str) -> Match:
    return Match("comment", (("comment", comment),))


def owner_comment(owner: str) -> str:
    return f"netplug/{owner}"


def parse_owner(comment: str) -> str | None:
    """The attachment's tag in a comment; None for the comments of shared intents."""
    found = _OWNER.fullmatch(comment)
    return found[1] if found else None


def parse_subnet(comment: str) -> tuple[str, str]:
    """(bridge, subnet) of a Subnet's comment; two empty texts for any other."""
    found = _SUBNET.fullmatch(comment)
    return (found[1], found[2]) if found else ("", "")


def compute_ruleset(intent: Intent, *, forward: str = "FORWARD") -> Ruleset:
    """The rules of an intent. `forward` is the chain that takes the accepts of `Accept`.

    Raises UnsupportedError for what the legacy tables cannot express, Conflict for an intent
    that maps one port twice.
    """
    match intent:
        case Base(family=4 | 6 as family):
            return Ruleset(family, BASE_COMMENT, tuple(_base(family)), tuple(_chains(family)))
        case BridgePolicy(bridge=bridge, family=family):
            return Ruleset(family, f"netplug/policy/{bridge}", tuple(_policy(intent)))
        case Subnet(subnet=subnet, bridge=bridge):
            comment = f"netplug/subnet/{bridge}/{subnet}"
            return Ruleset(subnet.version, comment, tuple(_subnet(intent)))
        case Accept(bridge=bridge, family=family):
            rules = tuple(_accept(intent, forward, ACCEPT))
            return Ruleset(family, f"netplug/accept/{bridge}", rules)
        case Publish(owner=owner, family=family):
            return Ruleset(family, owner_comment(owner), tuple(_publish(intent.mappings)))
        case _:
            raise unsupported(intent)


def compute_legacy_accept(intent: Accept, *, forward: str = "FORWARD") -> Ruleset:
    """Accepts for a bridge whose policy lives elsewhere (in the nft backend's own table)."""
    rules = tuple(_accept(intent, forward, "ACCEPT"))
    return Ruleset(intent.family, f"{LEGACY_COMMENT}{intent.bridge}", rules)


def unsupported(intent: Base | SpoofGuard) -> UnsupportedError:
    device = f" on {intent.device}" if isinstance(intent, SpoofGuard) else ""
    return UnsupportedError(
        f"macspoofchk cannot be enforced{device} by the iptables firewall backend",
        "iptables does not see the frames that cross a bridge",
        'remove macspoofchk, or choose "firewall": "nft"',
    )


def render_shell(intent: Intent) -> list[str]:
    """The commands one would type on a host whose legacy tables are empty."""
    ruleset = compute_ruleset(intent)
    command = _COMMAND[ruleset.family]
    return [
        *(f"{command} -w -t {table} -N {chain}" for table, chain in ruleset.chains),
        *(f"{command} -w {render_rule(rule, ruleset.comment)}" for rule in ruleset.rules),
    ]


def render_rule(rule: Rule, comment: str) -> str:
    where = "-A" if rule.place == "last" else "-I"
    return shlex.join(["-t", rule.table, where, rule.chain, *rule.arguments(comment)])


def _chains(family: Family) -> Iterator[tuple[str, str]]:
    if family == 4:
        yield "raw", GUARD
    yield "nat", DNAT
    yield "nat", POST
    for chain in (FORWARD, POLICY, TO_BRIDGE, FROM_BRIDGE, OUTSIDE, ACCEPT):
        yield "filter", chain


def _base(family: Family) -> Iterator[Rule]:
    if family == 4:
        # Published to 127.0.0.1 means: to this host alone. route_localnet would let neighbours
        # in. IPv6 needs no guard: the kernel refuses ::1 from outside (ip6_rcv).
        yield Rule("raw", GUARD, "DROP", source="127.0.0.0/8", inside="!lo")
        yield Rule("raw", GUARD, "DROP", destination="127.0.0.0/8", inside="!lo")
        yield Rule("raw", "PREROUTING", GUARD, "first")
        yield Rule(
            "nat",
            POST,
            "MASQUERADE",
            source="127.0.0.0/8",
            outside="!lo",
            matches=(_state("DNAT"),),
        )
    yield Rule("nat", POST, "RETURN", "head", destination=_MULTICAST[family])
    # Last in all three: NAT rules that the administrator wrote go first.
    for hook in ("PREROUTING", "OUTPUT"):
        yield Rule("nat", hook, DNAT, matches=(_LOCAL,))
    yield Rule("nat", "POSTROUTING", POST)
    yield Rule("filter", OUTSIDE, "DROP")
    yield Rule("filter", FORWARD, POLICY, matches=(_state("!DNAT"),))
    # Accepts never run before the policy, whatever comes to stand before our jump in FORWARD.
    yield Rule("filter", ACCEPT, FORWARD, "head", matches=(_NEW,))
    yield Rule("filter", ACCEPT, "ACCEPT")
    yield Rule("filter", "FORWARD", FORWARD, "first", matches=(_NEW,))


def _policy(policy: BridgePolicy) -> Iterator[Rule]:
    bridge = _interface(policy.bridge)
    elsewhere = f"!{bridge}"
    if policy.tunnel and (policy.internal or policy.isolated):
        raise UnsupportedError(
            "an overlay network cannot be internal or isolated with the iptables firewall backend",
            "its rules know one link for each network, and this one has a tunnel beside its bridge",
            'remove the key, or choose "firewall": "nft"',
        )
    if policy.internal:
        yield Rule("filter", FORWARD, "DROP", "head", inside=bridge, outside=elsewhere)
        yield Rule("filter", FORWARD, "DROP", "head", inside=elsewhere, outside=bridge)
    else:
        if policy.isolated:
            yield Rule("filter", POLICY, TO_BRIDGE, inside=bridge, outside=elsewhere)
        incoming = _incoming(policy)
        if incoming:
            yield Rule("filter", POLICY, incoming, inside=elsewhere, outside=bridge)
    yield Rule("filter", TO_BRIDGE, "DROP", outside=bridge)
    yield Rule("filter", FROM_BRIDGE, "DROP", inside=bridge)
    yield Rule("filter", OUTSIDE, "RETURN", "head", inside=bridge)
    if policy.tunnel:
        yield Rule("filter", OUTSIDE, "RETURN", "head", inside=_interface(policy.tunnel))


def _incoming(policy: BridgePolicy) -> str:
    """What judges a connection to a container address; "" where all may open one."""
    if policy.isolated:
        return FROM_BRIDGE if policy.routed else "DROP"
    return "" if policy.routed else OUTSIDE


def _subnet(intent: Subnet) -> Iterator[Rule]:
    subnet = str(intent.subnet)
    hairpin = (_state("DNAT"),)
    yield Rule("nat", POST, "MASQUERADE", source=subnet, destination=subnet, matches=hairpin)
    if intent.masquerade:
        itself = str(intent.whole or subnet)
        yield Rule("nat", POST, "MASQUERADE", source=subnet, destination=f"!{itself}")


def _accept(intent: Accept, chain: str, target: str) -> Iterator[Rule]:
    if intent.forward:
        yield from _accept_forward(intent.bridge, chain, target)
    yield from _accept_input(intent.bridge, intent.family)


def _accept_forward(bridge: str, chain: str, target: str) -> Iterator[Rule]:
    name = _interface(bridge)
    yield Rule("filter", chain, target, "head", inside=name)
    yield Rule("filter", chain, target, "head", outside=name)


def _accept_input(bridge: str, family: Family) -> Iterator[Rule]:
    name = _interface(bridge)
    for protocol in ("udp", "tcp"):  # DNS answers on the gateway address
        port = Match(protocol, (("dport", "53"),))
        yield Rule("filter", "INPUT", "ACCEPT", "head", "", "", name, "", protocol, (port,))
    if family == 6:  # without neighbour discovery nothing reaches the gateway
        for kind in ("135", "136"):
            solicit = Match("icmp6", (("icmpv6-type", kind),))
            yield Rule("filter", "INPUT", "ACCEPT", "head", "", "", name, "", "icmpv6", (solicit,))


def _publish(mappings: Iterable[Mapping]) -> Iterator[Rule]:
    taken: dict[tuple[str, str, int], Mapping] = {}
    for mapping in dict.fromkeys(mappings):
        host_ip = mapping.host_ip
        any_address = host_ip is None or host_ip.is_unspecified
        where = "" if any_address else str(host_ip)
        other = taken.setdefault((where, mapping.protocol, mapping.host_port), mapping)
        if other != mapping:
            raise Conflict(
                f"port {mapping.host_port}/{mapping.protocol} is published twice",
                f"to {_target(other)} and to {_target(mapping)}",
                "give each mapping a host port of its own",
            )
        yield Rule(
            "nat",
            DNAT,
            "DNAT",
            "last" if any_address else "head",
            destination=where,
            protocol=mapping.protocol,
            matches=(Match(mapping.protocol, (("dport", str(mapping.host_port)),)),),
            options=(("to-destination", _target(mapping)),),
        )


def _target(mapping: Mapping) -> str:
    brackets = mapping.address.version == 6
    return (
        f"[{mapping.address}]:{mapping.port}" if brackets else f"{mapping.address}:{mapping.port}"
    )


def _state(states: str) -> Match:
    return Match("conntrack", (("ctstate", states),))


_NEW = _state("!RELATED,ESTABLISHED")
_LOCAL = Match("addrtype", (("dst-type", "LOCAL"),))


def _interface(name: str) -> str:
    """The name as iptables takes it. Raises UnsupportedError for one that it would misread."""
    if name.endswith("+") or name.startswith("!"):
        raise UnsupportedError(
            f"the iptables firewall backend cannot serve the bridge {name}",
            'for iptables a final "+" stands for any name, a leading "!" for any other name',
            'rename the bridge, or choose "firewall": "nft"',
        )
    return name
