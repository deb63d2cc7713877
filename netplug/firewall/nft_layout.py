"""The nftables ruleset of netplug, said once: each term is its nft text and its kernel code.

Three tables called `netplug`: `ip` and `ip6` alike, and `bridge` for the spoof guard.
Their rules never change; attachments and networks only put elements into sets and maps,
so that the 5000th port costs what the first one costs, and a packet too.

    prerouting -300  guard        127.0.0.0/8 lives on lo alone (before DNAT)
    prerouting -100  prerouting   published ports, asked by others
    output     -100  output       published ports, asked by the host itself
    forward       0  forward      what may cross the border of a bridge
    postrouting 100  postrouting  masquerade

Nothing here accepts for others: a verdict `accept` ends this chain, not the hook.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from netplug.kernel import nftables as nf
from netplug.kernel.nfnetlink import pack_comment
from netplug.model import Family, digest

TABLE = "netplug"
FINGERPRINT = 0x4E  # our type among nft's user data; nft skips what it does not know
MARK = "netplug: "  # how the comments of our rules begin
OWNER = "netplug/"  # and those of elements that belong to one attachment
Scope = Family | Literal["bridge"]

FAMILIES: dict[Scope, int] = {4: nf.IPV4, 6: nf.IPV6, "bridge": nf.BRIDGE}
WORDS: dict[Scope, str] = {4: "ip", 6: "ip6", "bridge": "bridge"}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}


# -- data types ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Kind:
    """One data type of nft: its name, its number, its size in bytes, and how a value looks."""

    name: str
    number: int
    size: int
    pack: Callable[[Any], bytes]
    show: Callable[[Any], str] = str


def _pack_address(value: Any) -> bytes:
    packed: bytes = value.packed
    return packed


ADDRESS: dict[Scope, Kind] = {
    4: Kind("ipv4_addr", 7, 4, _pack_address),
    6: Kind("ipv6_addr", 8, 16, _pack_address),
}
PROTOCOL = Kind("inet_proto", 12, 1, lambda value: bytes((PROTOCOLS[value],)))
PORT = Kind("inet_service", 13, 2, lambda value: struct.pack("!H", value))
MAC = Kind("ether_addr", 9, 6, lambda value: bytes.fromhex(value.replace(":", "")))
IFNAME = Kind(
    "ifname", 41, 16, lambda value: value.encode().ljust(16, b"\0"), lambda value: f'"{value}"'
)


@dataclass(frozen=True, slots=True)
class Set:
    """A set, or a map where `data` is given."""

    name: str
    key: tuple[Kind, ...]
    data: tuple[Kind, ...] = ()
    interval: bool = False

    @property
    def shape(self) -> nf.SetShape:
        return nf.SetShape(
            self.name,
            key=tuple((kind.number, kind.size) for kind in self.key),
            data=tuple((kind.number, kind.size) for kind in self.data),
            interval=self.interval,
            host_order=self.key == (IFNAME,),
        )


# -- rules ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Term:
    """A part of a rule: what one would type, and the expressions that the kernel runs."""

    text: str
    code: bytes


@dataclass(frozen=True, slots=True)
class Rule:
    chain: str
    terms: tuple[Term, ...]
    why: str

    @property
    def comment(self) -> str:
        return MARK + self.why

    @property
    def text(self) -> str:
        return " ".join(term.text for term in self.terms)

    @property
    def code(self) -> bytes:
        return b"".join(term.code for term in self.terms)


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole table without its elements."""

    scope: Scope
    sets: tuple[Set, ...]
    chains: tuple[nf.Chain, ...]
    rules: tuple[Rule, ...]

    def set(self, name: str) -> Set:
        return next(item for item in self.sets if item.name == name)

    def rules_of(self, chain: str) -> list[Rule]:
        return [rule for rule in self.rules if rule.chain == chain]


META_IIFNAME, META_OIFNAME, META_L4PROTO, META_NFPROTO = 6, 7, 16, 15
CT_STATE, CT_STATUS = 0, 2
STATE_ESTABLISHED, STATE_RELATED, STATUS_DNAT = 0x2, 0x4, 0x20
SECOND_NAME = 2  # register of the second field after 16 bytes
LINK_HEADER, NETWORK_HEADER, TRANSPORT_HEADER = 0, 1, 2

DROP = Term("drop", nf.verdict(nf.DROP))
ACCEPT = Term("accept", nf.verdict(nf.ACCEPT))
MASQUERADE = Term("masquerade", nf.masquerade())
REPLIES = Term(
    "ct state established,related",
    nf.conntrack(CT_STATE) + nf.any_bit(STATE_ESTABLISHED | STATE_RELATED),
)
WAS_PUBLISHED = Term("ct status dnat", nf.conntrack(CT_STATUS) + nf.any_bit(STATUS_DNAT))
TO_HOST = Term(
    "fib daddr type local", nf.address_type() + nf.compare(struct.pack("=I", 2))
)  # RTN_LOCAL


def interface_is(direction: str, name: str, *, equal: bool = True) -> Term:
    """`direction` is iifname or oifname."""
    code = nf.meta(META_IIFNAME if direction == "iifname" else META_OIFNAME)
    sign = "" if equal else "!= "
    return Term(f'{direction} {sign}"{name}"', code + nf.compare(IFNAME.pack(name), equal=equal))


def _interface_in(direction: str, name: str, *, inverted: bool = False) -> Term:
    code = nf.meta(META_IIFNAME if direction == "iifname" else META_OIFNAME)
    sign = "!= " if inverted else ""
    return Term(f"{direction} {sign}@{name}", code + nf.lookup(name, inverted=inverted))


def _loopback_net(field: str) -> Term:
    offset = 12 if field == "saddr" else 16
    return Term(
        f"ip {field} 127.0.0.0/8", nf.payload(NETWORK_HEADER, offset, 1) + nf.compare(b"\x7f")
    )


def _guard() -> tuple[Rule, ...]:
    elsewhere = interface_is("iifname", "lo", equal=False)
    return (
        Rule("guard", (elsewhere, _loopback_net("daddr"), DROP), "127.0.0.0/8 is on lo alone"),
        Rule("guard", (elsewhere, _loopback_net("saddr"), DROP), "and nobody else speaks from it"),
    )


def _publishing(scope: Family, chain: str) -> tuple[Rule, ...]:
    """Two rules: the map with host addresses, then the one for any address of the host."""
    word, size = WORDS[scope], ADDRESS[scope].size
    words = size // 4  # registers of 4 bytes that an address fills
    target = nf.destination_nat(FAMILIES[scope], nf.WORDS + words)
    exact = (
        nf.payload(NETWORK_HEADER, 16 if scope == 4 else 24, size)
        + nf.meta(META_L4PROTO, nf.WORDS + words)
        + nf.payload(TRANSPORT_HEADER, 2, 2, nf.WORDS + words + 1)
        + nf.lookup("publish_ip", into=nf.REGISTER)
        + target
    )
    wild = (
        nf.meta(META_L4PROTO)
        + nf.payload(TRANSPORT_HEADER, 2, 2, nf.WORDS + 1)
        + nf.lookup("publish_any", into=nf.REGISTER)
        + target
    )
    by_address = f"dnat {word} to {word} daddr . meta l4proto . th dport map @publish_ip"
    by_port = f"dnat {word} to meta l4proto . th dport map @publish_any"
    return (
        Rule(chain, (Term(by_address, exact),), "ports published on one address"),
        Rule(chain, (TO_HOST, Term(by_port, wild)), "ports published on every address"),
    )


def _forward() -> tuple[Rule, ...]:
    same = Term(
        "iifname . oifname @same",
        nf.meta(META_IIFNAME) + nf.meta(META_OIFNAME, SECOND_NAME) + nf.lookup("same"),
    )
    from_ours, to_ours = _interface_in("iifname", "bridges"), _interface_in("oifname", "bridges")
    from_outside = _interface_in("iifname", "bridges", inverted=True)
    from_internal = _interface_in("iifname", "internal")
    to_internal = _interface_in("oifname", "internal")
    from_isolated = _interface_in("iifname", "isolated")
    to_isolated = _interface_in("oifname", "isolated")
    to_unrouted = _interface_in("oifname", "unrouted")
    table: tuple[tuple[tuple[Term, ...], str], ...] = (
        ((REPLIES, ACCEPT), "replies pass"),
        ((same, ACCEPT), "within one bridge all passes"),
        ((from_internal, DROP), "nothing leaves an internal network"),
        ((to_internal, DROP), "nothing enters an internal network"),
        ((WAS_PUBLISHED, ACCEPT), "published ports are open to all"),
        ((from_isolated, to_ours, DROP), "isolated networks do not reach others"),
        ((to_isolated, from_ours, DROP), "others do not reach isolated networks"),
        ((to_unrouted, from_outside, DROP), "container addresses are not routed"),
    )
    return tuple(Rule("forward", terms, why) for terms, why in table)


def _postrouting(scope: Family) -> tuple[Rule, ...]:
    word, size = WORDS[scope], ADDRESS[scope].size
    source = nf.payload(NETWORK_HEADER, 12 if scope == 4 else 8, size)
    both = source + nf.payload(NETWORK_HEADER, 16 if scope == 4 else 24, size, nf.WORDS + size // 4)
    pair = f"{word} saddr . {word} daddr"
    from_masq = Term(f"{word} saddr @masq", source + nf.lookup("masq"))
    beyond = Term(f"{pair} != @local", both + nf.lookup("local", inverted=True))
    within = Term(f"{pair} @local", both + nf.lookup("local"))
    chain = "postrouting"
    rules = (
        Rule(
            chain, (from_masq, beyond, MASQUERADE), "containers leave with an address of the host"
        ),
        Rule(
            chain,
            (WAS_PUBLISHED, within, MASQUERADE),
            "hairpin: published ports of the own network",
        ),
    )
    if scope == 6:  # the kernel routes ::1 nowhere
        return rules
    local = (WAS_PUBLISHED, _loopback_net("saddr"), MASQUERADE)
    return (*rules, Rule(chain, local, "ports published on 127.0.0.1"))


def _chain(name: str, kind: str, hook: int, priority: int) -> nf.Chain:
    return nf.Chain(0, TABLE, name, kind=kind, hook=hook, priority=priority)


def _make_ip(scope: Family) -> Layout:
    address = ADDRESS[scope]
    target = (address, PORT)
    guard = _guard() if scope == 4 else ()
    guard_chain = (_chain("guard", "filter", nf.PREROUTING, -300),) if guard else ()
    return Layout(
        scope,
        sets=(
            Set("publish_ip", (address, PROTOCOL, PORT), target),
            Set("publish_any", (PROTOCOL, PORT), target),
            Set("masq", (address,), interval=True),
            Set("local", (address, address), interval=True),
            Set("bridges", (IFNAME,)),
            Set("same", (IFNAME, IFNAME)),
            Set("internal", (IFNAME,)),
            Set("isolated", (IFNAME,)),
            Set("unrouted", (IFNAME,)),
        ),
        chains=(
            *guard_chain,
            _chain("prerouting", "nat", nf.PREROUTING, -100),
            _chain("output", "nat", nf.OUTPUT, -100),
            _chain("forward", "filter", nf.FORWARD, 0),
            _chain("postrouting", "nat", nf.POSTROUTING, 100),
        ),
        rules=(
            *guard,
            *_publishing(scope, "prerouting"),
            *_publishing(scope, "output"),
            *_forward(),
            *_postrouting(scope),
        ),
    )


def _make_bridge() -> Layout:
    guarded = Term("iifname @guarded", nf.meta(META_IIFNAME) + nf.lookup("guarded"))
    foreign = Term(
        "iifname . ether saddr != @macs",
        nf.meta(META_IIFNAME)
        + nf.payload(LINK_HEADER, 6, 6, SECOND_NAME)
        + nf.lookup("macs", inverted=True),
    )
    return Layout(
        "bridge",
        sets=(Set("guarded", (IFNAME,)), Set("macs", (IFNAME, MAC))),
        chains=(_chain("spoof", "filter", nf.PREROUTING, -300),),
        rules=(Rule("spoof", (guarded, foreign, DROP), "frames carry the MAC of their container"),),
    )


LAYOUTS: dict[Scope, Layout] = {4: _make_ip(4), 6: _make_ip(6), "bridge": _make_bridge()}


def rule_userdata(rule: Rule) -> bytes:
    """The comment, and behind it a digest of the rule that nft does not show.

    By the digest a table that an older netplug wrote is told from today's.
    """
    fingerprint = bytes.fromhex(digest("rule", rule.text, rule.code.hex())[:16])
    return pack_comment(rule.comment) + bytes((FINGERPRINT, len(fingerprint))) + fingerprint


@functools.cache
def rule_marks(scope: Scope) -> dict[str, tuple[tuple[bytes, bytes], ...]]:
    """By chain, the user data of each rule: as we write it, and as nft does (no digest)."""
    layout = LAYOUTS[scope]
    return {
        chain.name: tuple(
            (rule_userdata(rule), pack_comment(rule.comment))
            for rule in layout.rules_of(chain.name)
        )
        for chain in layout.chains
    }
