"""Foreign chains that drop by policy, and the rules that let our bridges through them.

An accept in our table does not override a drop in another table's base chain: every base
chain of a hook has its say. So the accept must stand in the chain that would drop: in
Docker's DOCKER-USER, made for that, or at the head of the base chain (ufw, firewalld,
`iptables -P FORWARD DROP`). Our own chain still drops what our policies forbid.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from netplug.errors import KernelRefused
from netplug.firewall.intent import Accept
from netplug.firewall.nft_layout import (
    ACCEPT,
    FAMILIES,
    MARK,
    META_L4PROTO,
    META_NFPROTO,
    PROTOCOLS,
    TABLE,
    TRANSPORT_HEADER,
    Rule,
    Term,
    interface_is,
)
from netplug.kernel import nftables as nf
from netplug.kernel.nfnetlink import Message, Nfnetlink, Reply, pack_comment
from netplug.kernel.xtables import FORWARD, INPUT, legacy_drops, legacy_filter_loaded
from netplug.model import Family

if TYPE_CHECKING:
    from netplug.firewall.iptables import LegacyAccept

FAMILY_WORDS = {nf.INET: "inet", nf.IPV4: "ip", nf.IPV6: "ip6"}
_LEGACY_COMMANDS: dict[Family, str] = {4: "iptables-legacy", 6: "ip6tables-legacy"}
USER_CHAIN = "DOCKER-USER"
ICMPV6 = 58
NEIGHBOURS = (("nd-neighbor-solicit", 135), ("nd-neighbor-advert", 136))
# firewalld's base chains accept by policy and end in a reject of everything.
REJECTING = {("firewalld", "filter_FORWARD"), ("firewalld", "filter_INPUT")}


def dropping_chains(chains: Iterable[nf.Chain], family: Family) -> list[nf.Chain]:
    """Foreign base chains of hooks forward and input that drop what nobody accepted."""
    return [
        chain
        for chain in chains
        if _is_foreign_filter(chain, family)
        and (chain.policy == nf.DROP or (chain.table, chain.name) in REJECTING)
    ]


def accept_places(chains: Iterable[nf.Chain], family: Family) -> list[nf.Chain]:
    """Where accepts belong: one chain for each dropping one; `hook` tells on whose behalf."""
    chains = list(chains)
    user_tables = {(c.family, c.table) for c in chains if c.name == USER_CHAIN}
    return [
        nf.Chain(chain.family, chain.table, USER_CHAIN, hook=nf.FORWARD)
        if chain.hook == nf.FORWARD and (chain.family, chain.table) in user_tables
        else chain
        for chain in dropping_chains(chains, family)
    ]


def possible_places(chains: Iterable[nf.Chain], family: Family) -> list[nf.Chain]:
    """Every foreign chain that may hold an accept of ours, whatever its policy is now."""
    return [
        chain
        for chain in chains
        if _is_foreign_filter(chain, family)
        or (chain.name == USER_CHAIN and chain.family in (nf.INET, FAMILIES[family]))
    ]


def _is_foreign_filter(chain: nf.Chain, family: Family) -> bool:
    return (
        chain.family in (nf.INET, FAMILIES[family])
        and chain.table != TABLE
        and chain.kind == "filter"
        and chain.hook in (nf.FORWARD, nf.INPUT)
    )


def accept_comment(intent: Accept) -> str:
    return f"{MARK}{intent.bridge} (IPv{intent.family})"


def accept_rules(intent: Accept, chain: nf.Chain) -> tuple[Rule, ...]:
    """Forward: all of the bridge. Input: questions to the name server on the gateway, and in
    IPv6 neighbour discovery, without which nothing reaches the gateway."""
    why = accept_comment(intent).removeprefix(MARK)
    only = (_family_is(intent.family),) if chain.family == nf.INET else ()
    from_bridge = interface_is("iifname", intent.bridge)
    heads: tuple[tuple[Term, ...], ...]
    if chain.hook == nf.INPUT:
        wanted = [_to_port(name, 53) for name in ("udp", "tcp")]
        wanted += [_of_type(*kind) for kind in NEIGHBOURS] if intent.family == 6 else []
        heads = tuple((from_bridge, term) for term in wanted)
    elif intent.forward:
        heads = ((from_bridge,), (interface_is("oifname", intent.bridge),))
    else:
        heads = ()
    return tuple(Rule(chain.name, (*only, *head, ACCEPT), why) for head in heads)


def _family_is(family: Family) -> Term:
    number = FAMILIES[family]
    code = nf.meta(META_NFPROTO) + nf.compare(bytes((number,)))
    return Term(f"meta nfproto ipv{family}", code)


def _to_port(protocol: str, port: int) -> Term:
    code = nf.meta(META_L4PROTO) + nf.compare(bytes((PROTOCOLS[protocol],)))
    code += nf.payload(TRANSPORT_HEADER, 2, 2) + nf.compare(struct.pack("!H", port))
    return Term(f"{protocol} dport {port}", code)


def _of_type(name: str, number: int) -> Term:
    code = nf.meta(META_L4PROTO) + nf.compare(bytes((ICMPV6,)))
    code += nf.payload(TRANSPORT_HEADER, 0, 1) + nf.compare(bytes((number,)))
    return Term(f"icmpv6 type {name}", code)


class ForeignChains:
    """The accepts of our bridges in the chains of others, in one namespace.

    Legacy tables have their own base chains, which nf_tables cannot reach: they are opened
    by way of the iptables backend. What cannot be opened (a table that firewalld >= 2.3
    holds for itself; legacy tables where python-iptables is missing) is told by
    `read_drops`, and is no failure.
    """

    def __init__(self, fd: int, link: Nfnetlink) -> None:
        self._fd = fd
        self._link = link

    def _legacy(self, family: Family) -> LegacyAccept | None:
        """Who opens the legacy tables, where the namespace has them and iptc is installed."""
        if not legacy_filter_loaded(self._fd, family) or not _can_open_legacy():
            return None
        from netplug.firewall.iptables import LegacyAccept  # late: seldom needed, slow to import

        return LegacyAccept(self._fd)

    def present(self, intent: Accept) -> str | None:
        lacking, complete = self._compare(intent)
        words = [f"chain {p.name} of table {_place(p)} drops {intent.bridge}" for p in lacking]
        opener = self._legacy(intent.family)
        legacy = opener.present(intent) if opener else ""
        if legacy != "":
            words.append(f"the legacy filter table drops what {intent.bridge} sends")
        if words and not complete and legacy in (None, ""):
            return None
        return ", ".join(words)

    def apply(self, intent: Accept) -> bool:
        lacking, _ = self._compare(intent)
        batch: list[Message] = []
        for place in lacking:
            batch += self._deletions(intent, place)
            # Each goes to the head, so the last one first.
            batch += [_insertion(place, rule) for rule in reversed(accept_rules(intent, place))]
        refusals = self._link.transact(batch)
        if refusals:
            raise KernelRefused(
                f"{intent.bridge} cannot be let through foreign chains",
                refusals[0].words,
                "they changed meanwhile: try again",
                errno=refusals[0].errno,
            )
        opener = self._legacy(intent.family)
        opened = opener.apply(intent) if opener else False
        return opened or bool(lacking)

    def undo(self, intent: Accept) -> None:
        for place in possible_places(self._chains(), intent.family):
            for message in self._deletions(intent, place):
                self._link.transact([message])  # one that is gone already is as good
        opener = self._legacy(intent.family)
        if opener:
            opener.undo(intent)

    def read_drops(self) -> list[str]:
        """For STATUS: chains that drop container traffic and are not ours to open."""
        chains = self._chains()
        families: tuple[Family, ...] = (4, 6)
        words = [
            f"chain {chain.name} of table {_place(chain)} drops what it does not know, and its"
            " owner lets nobody else change it: put the bridges into a trusted zone there"
            for family in families
            for chain in dropping_chains(chains, family)
            if self._held(chain)
        ]
        words += [
            f"chain FORWARD of the legacy filter table (IPv{family}) drops what it does not know:"
            f" {command} -I FORWARD -i BRIDGE -j ACCEPT, and the same with -o BRIDGE"
            for family, command in _LEGACY_COMMANDS.items()
            if not self._legacy(family) and legacy_drops(self._fd, family, FORWARD)
        ]
        words += [
            f"chain INPUT of the legacy filter table (IPv{family}) drops questions to the name"
            f" server: {command} -I INPUT -i BRIDGE -p udp --dport 53 -j ACCEPT"
            for family, command in _LEGACY_COMMANDS.items()
            if not self._legacy(family) and legacy_drops(self._fd, family, INPUT)
        ]
        return list(dict.fromkeys(words))

    def _compare(self, intent: Accept) -> tuple[list[nf.Chain], int]:
        """Places whose accepts are not complete, and how many are."""
        places = [
            place for place in accept_places(self._chains(), intent.family) if not self._held(place)
        ]
        lacking = [
            place
            for place in places
            if len(self._marked(intent, place)) != len(accept_rules(intent, place))
        ]
        return lacking, len(places) - len(lacking)

    def _chains(self) -> list[nf.Chain]:
        return [nf.read_chain(reply) for reply in self._link.dump(nf.all_chains())]

    def _held(self, chain: nf.Chain) -> bool:
        answer = self._link.ask([nf.get_table(chain.family, chain.table)])[0]
        return isinstance(answer, Reply) and nf.table_owned(answer)

    def _marked(self, intent: Accept, chain: nf.Chain) -> list[nf.RuleFact]:
        replies = self._link.dump(nf.all_rules(chain.family, chain.table, chain.name))
        rules = map(nf.read_rule, replies)
        return [rule for rule in rules if rule.comment == accept_comment(intent)]

    def _deletions(self, intent: Accept, place: nf.Chain) -> list[Message]:
        return [
            nf.delete_rule(place.family, place.table, place.name, rule.handle)
            for rule in self._marked(intent, place)
        ]


def _insertion(place: nf.Chain, rule: Rule) -> Message:
    return nf.new_rule(
        place.family,
        place.table,
        place.name,
        code=rule.code,
        userdata=pack_comment(rule.comment),
        append=False,
    )


def _place(chain: nf.Chain) -> str:
    return f"{FAMILY_WORDS[chain.family]} {chain.table}"


@functools.cache
def _can_open_legacy() -> bool:
    return find_spec("iptc") is not None
