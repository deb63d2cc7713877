"""Foreign chains that drop by policy, and the rules that let our bridges through them.

An accept in our table does not override a drop in another table's base chain: every base
chain of a hook has its say. So the accept must stand in the chain that would drop: in
Docker's DOCKER-USER, made for that, or at the head of the base chain (ufw, firewalld,
`iptables -P FORWARD DROP`). Our own chain still drops what our policies forbid.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

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
from netplug.model import Family

USER_CHAIN = "DOCKER-USER"
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
    """Forward: all of the bridge. Input: questions to the name server on the gateway."""
    why = accept_comment(intent).removeprefix(MARK)
    only = (_family_is(intent.family),) if chain.family == nf.INET else ()
    from_bridge = interface_is("iifname", intent.bridge)
    heads: tuple[tuple[Term, ...], ...]
    if chain.hook == nf.INPUT:
        heads = tuple((from_bridge, _to_port(name, 53)) for name in ("udp", "tcp"))
    else:
        heads = ((from_bridge,), (interface_is("oifname", intent.bridge),))
    return tuple(Rule(chain.name, (*only, *head, ACCEPT), why) for head in heads)


def _family_is(family: Family) -> Term:
    number = FAMILIES[family]
    code = nf.meta(META_NFPROTO) + nf.compare(bytes((number,)))
    return Term(f"meta nfproto ipv{family}", code)


def _to_port(protocol: str, port: int) -> Term:
    code = nf.meta(META_L4PROTO) + nf.compare(bytes((PROTOCOLS[protocol],)))
    code += nf.payload(TRANSPORT_HEADER, 2, 2) + nf.compare(struct.pack("!H", port))
    return Term(f"{protocol} dport {port}", code)
