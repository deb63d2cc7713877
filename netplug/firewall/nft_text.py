"""The nft commands that one would type: the pure half of the nft backend.

Typed in a fresh namespace they give the ruleset that `NftFirewall.apply` makes, to the
letter of `nft list ruleset` (nft 1.0.6 and newer).
"""

from __future__ import annotations

from netplug.firewall.intent import Accept, Base, Intent, Publish
from netplug.firewall.nft_accept import FAMILY_WORDS, accept_rules
from netplug.firewall.nft_elements import Elements, compute_elements, element_text, scope_of
from netplug.firewall.nft_layout import LAYOUTS, TABLE, WORDS, Layout, Rule, Set
from netplug.kernel import nftables as nf

HOOKS = ("prerouting", "input", "forward", "output", "postrouting")


def render_shell(intent: Intent) -> list[str]:
    """One command a line. `Accept` depends on foreign chains, so it is shown as comments."""
    if isinstance(intent, Base):
        return _base(LAYOUTS[intent.family])
    if isinstance(intent, Accept):
        family = nf.IPV4 if intent.family == 4 else nf.IPV6
        chain = nf.Chain(family, "filter", "FORWARD", hook=nf.FORWARD)
        note = "# only where such a chain drops by policy (Docker, ufw, firewalld):"
        return [note, *(f"# {line}" for line in render_accept(intent, chain))]
    return _elements(intent)


def render_accept(intent: Accept, chain: nf.Chain) -> list[str]:
    """The commands that let a bridge through one foreign chain."""
    place = f"{FAMILY_WORDS[chain.family]} {chain.table} {chain.name}"
    return [_insert(place, rule) for rule in reversed(accept_rules(intent, chain))]


def _insert(place: str, rule: Rule) -> str:
    return f"""nft 'insert rule {place} {rule.text} comment "{rule.comment}"'"""


def _base(layout: Layout) -> list[str]:
    table = f"{WORDS[layout.scope]} {TABLE}"
    lines = [f"nft 'add table {table}'"]
    lines += [f"nft 'add {_set_text(table, item)}'" for item in layout.sets]
    lines += [
        f"nft 'add chain {table} {chain.name} {{ type {chain.kind} hook {HOOKS[chain.hook or 0]}"
        f" priority {chain.priority}; policy accept; }}'"
        for chain in layout.chains
    ]
    lines += [
        f"""nft 'add rule {table} {rule.chain} {rule.text} comment "{rule.comment}"'"""
        for rule in layout.rules
    ]
    return lines


def _set_text(table: str, item: Set) -> str:
    kind = " . ".join(field.name for field in item.key)
    if item.data:
        kind += " : " + " . ".join(field.name for field in item.data)
    flags = " flags interval;" if item.interval else ""
    return f"{'map' if item.data else 'set'} {table} {item.name} {{ type {kind};{flags} }}"


def _elements(intent: Elements) -> list[str]:
    layout = LAYOUTS[scope_of(intent)]
    by_set: dict[str, list[str]] = {}
    for element in compute_elements(intent):
        by_set.setdefault(element.set, []).append(element_text(layout, element))
    verb = "create" if isinstance(intent, Publish) else "add"  # create: a taken port is an error
    return [
        f"nft '{verb} element {WORDS[layout.scope]} {TABLE} {name} {{ {', '.join(texts)} }}'"
        for name, texts in by_set.items()
    ]
