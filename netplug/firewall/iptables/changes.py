"""What one request does to the legacy tables: compare, ensure, withdraw, demolish."""

from __future__ import annotations

from ipaddress import ip_network
from types import ModuleType
from typing import Any

from netplug.errors import Conflict, NetplugError
from netplug.firewall.intent import Subnet
from netplug.firewall.iptables.rules import (
    BASE_COMMENT,
    DNAT,
    LEGACY_COMMENT,
    POST,
    PREFIX,
    Rule,
    Ruleset,
    parse_owner,
    parse_subnet,
    render_rule,
)
from netplug.firewall.iptables.tables import (
    DOCKER_USER,
    NAMES,
    Entry,
    LegacyTable,
    read_active_tables,
)
from netplug.model import Family

_HARMLESS = {"DROP", "REJECT", "LOG", "NFLOG"}  # targets that accept nothing


class Tables:
    """The legacy tables of this namespace, each opened when first needed."""

    def __init__(self, library: ModuleType) -> None:
        self._library = library
        self._open: dict[tuple[Family, str], LegacyTable] = {}

    def open(self, family: Family, name: str) -> LegacyTable:
        """That table; the kernel makes it, with its hooks, if this namespace has none yet."""
        key = (family, name)
        if key not in self._open:
            self._open[key] = LegacyTable(self._library, family, name)
        return self._open[key]

    def active(self, family: Family) -> list[LegacyTable]:
        """Those of our tables that exist already."""
        names = read_active_tables(family)
        return [self.open(family, name) for name in NAMES if name in names]

    def refresh(self) -> None:
        for table in self._open.values():
            table.refresh()


def choose_forward(tables: Tables, family: Family, comment: str) -> str:
    """Where accepts go: DOCKER-USER while FORWARD leads there, unless they are in FORWARD already.

    Docker puts its own chains before all else whenever it starts, DOCKER-USER first of them.
    """
    if "filter" not in read_active_tables(family):
        return "FORWARD"
    entries = tables.open(family, "filter").entries("FORWARD")
    if any(entry.comment == comment for entry in entries):
        return "FORWARD"
    return DOCKER_USER if any(entry.target == DOCKER_USER for entry in entries) else "FORWARD"


def compare(tables: Tables, ruleset: Ruleset) -> str | None:
    """None for nothing, "" for all, else what is missing, misplaced or too much."""
    names = read_active_tables(ruleset.family)
    words: list[str] = []
    held = not ruleset.rules
    for name in ruleset.tables:
        chains = [chain for owner, chain in ruleset.chains if owner == name]
        present: set[Rule] = set()
        if name in names:
            table = tables.open(ruleset.family, name)
            present, stale = _sort(table, ruleset)
            words += [f"{len(found)} wrong rules in {chain}" for chain, found in stale.items()]
            held |= bool(present or stale) or any(map(table.has_chain, chains))
            chains = [chain for chain in chains if not table.has_chain(chain)]
        words += [f"missing chain {chain} of table {name}" for chain in chains]
        words += [
            f"missing rule {render_rule(rule, ruleset.comment)}"
            for rule in ruleset.rules
            if rule.table == name and rule not in present
        ]
    return "; ".join(words) if held else None


def _sort(table: LegacyTable, ruleset: Ruleset) -> tuple[set[Rule], dict[str, list[int]]]:
    """The rules of this table that are in place, and by chain the positions of wrong ones.

    Wrong is what has our comment and is not wanted, is there twice, or should be first in its
    chain and has a rule before it that may have accepted the packet.
    """
    wanted = {
        (rule.chain, table.entry(rule, ruleset.comment)): rule
        for rule in ruleset.rules
        if rule.table == table.name and not table.lacking_chain(rule)
    }
    present: set[Rule] = set()
    wrong: dict[str, list[int]] = {}
    for chain in table.watched():
        exposed = False
        for number, entry in enumerate(table.entries(chain)):
            if entry.comment != ruleset.comment:
                exposed |= entry.target not in _HARMLESS and not _of_frame(entry)
                continue
            rule = wanted.get((chain, entry))
            if rule is None or rule in present or (rule.place == "first" and exposed):
                wrong.setdefault(chain, []).append(number)
            else:
                present.add(rule)
    return present, wrong


def ensure(tables: Tables, ruleset: Ruleset) -> bool:
    """Makes the kernel hold exactly these rules under their comment; whether any was missing.

    One commit for each table. If a later table refuses, the earlier ones lose again what they
    got. Raises Conflict, KernelRefused.
    """
    done: list[tuple[LegacyTable, list[str], list[Rule]]] = []
    try:
        for name in ruleset.tables:
            table = tables.open(ruleset.family, name)
            wanted = [chain for owner, chain in ruleset.chains if owner == name]
            chains = [chain for chain in wanted if not table.has_chain(chain)]
            for chain in chains:
                table.add_chain(chain)
            present, wrong = _sort(table, ruleset)
            added = [r for r in ruleset.rules if r.table == name and r not in present]
            refuse_taken_ports(table, ruleset.comment, added)
            for chain, numbers in wrong.items():
                table.remove(chain, numbers)
            for rule in added:
                table.add(rule, ruleset.comment)
            table.commit()
            done.append((table, chains, added))
    except NetplugError:
        for table, chains, added in reversed(done):
            _take_back(table, ruleset.comment, chains, added)
        raise
    return any(chains or added for _, chains, added in done)


def _take_back(table: LegacyTable, comment: str, chains: list[str], added: list[Rule]) -> None:
    for chain in dict.fromkeys(rule.chain for rule in added):
        ours = [table.entry(rule, comment) for rule in added if rule.chain == chain]
        table.remove(chain, [n for n, entry in enumerate(table.entries(chain)) if entry in ours])
    for chain in chains:
        table.remove_chain(chain)
    table.commit()


def refuse_taken_ports(table: LegacyTable, comment: str, added: list[Rule]) -> None:
    """Raises Conflict where another attachment has published one of these ports."""
    if not parse_owner(comment) or not table.has_chain(DNAT):
        return
    taken = {e.condition: e.comment for e in table.entries(DNAT) if e.comment != comment}
    for rule in added:
        other = taken.get(table.entry(rule, comment).condition)
        if other is not None:
            port = rule.matches[0].options[0][1]
            on = f" of {rule.destination}" if rule.destination else ""
            raise Conflict(
                f"port {port}/{rule.protocol}{on} is published already",
                f"the rule with the comment {other} in chain {DNAT} has it",
                "choose another host port, or disconnect the other container",
            )


def refuse_overlap(tables: Tables, subnet: Subnet) -> None:
    """Raises Conflict where an overlapping subnet is behind another bridge."""
    family = subnet.subnet.version
    if "nat" not in read_active_tables(family):
        return
    table = tables.open(family, "nat")
    entries = table.entries(POST) if table.has_chain(POST) else []
    for comment in dict.fromkeys(entry.comment for entry in entries):
        bridge, text = parse_subnet(comment)
        other: Any = ip_network(text) if text else subnet.subnet
        if text and bridge != subnet.bridge and other.overlaps(subnet.subnet):
            raise Conflict(
                f"subnet {subnet.subnet} of bridge {subnet.bridge} overlaps {other}",
                f"which is behind bridge {bridge}",
                "give one of the two networks another subnet",
            )


def withdraw(tables: Tables, family: Family, comment: str) -> int:
    """Removes every rule with this comment; how many there were."""
    count = 0
    for table in tables.active(family):
        for chain in table.watched():
            found = [n for n, e in enumerate(table.entries(chain)) if e.comment == comment]
            table.remove(chain, found)
            count += len(found)
        table.commit()
    return count


def demolish(tables: Tables, family: Family) -> None:
    """Removes the frame: our chains with all that is in them, and our rules that lead there.

    A chain to which a rule of somebody else jumps stays, empty: that rule is not ours to remove.
    """
    for table in tables.active(family):
        foreign: set[str] = set()
        ours = [chain for chain in table.chains() if chain.startswith(PREFIX)]
        for chain in table.chains():
            entries = table.entries(chain)
            removable = [n for n, e in enumerate(entries) if chain in ours or _of_frame(e)]
            table.remove(chain, removable)
            foreign |= {e.target for n, e in enumerate(entries) if n not in set(removable)}
        for chain in ours:
            if chain not in foreign:
                table.remove_chain(chain)
        table.commit()


def _of_frame(entry: Entry) -> bool:
    ours = entry.comment == BASE_COMMENT or entry.comment.startswith(f"{BASE_COMMENT}/")
    return ours and not entry.comment.startswith(LEGACY_COMMENT)


def read_owners(tables: Tables) -> list[str]:
    """Tags of the attachments that have a rule."""
    families: tuple[Family, ...] = (4, 6)
    comments = {
        entry.comment
        for family in families
        for table in tables.active(family)
        for chain in table.watched()
        for entry in table.entries(chain)
    }
    return sorted(owner for comment in comments if (owner := parse_owner(comment)))
