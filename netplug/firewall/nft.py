"""The nft backend: intents into one table `netplug` for each family, over nfnetlink.

Every apply and undo is one atomic transaction, found and removed by key: nothing is ever
listed to add or remove a port. What the sets mean is said in `nft_layout`.
"""

from __future__ import annotations

import errno
import functools
from collections.abc import Iterable, Sequence
from contextlib import nullcontext

from netplug.errors import KernelRefused
from netplug.firewall.intent import Accept, Base, Intent, Publish, SpoofGuard
from netplug.firewall.nft_accept import ForeignChains
from netplug.firewall.nft_elements import (
    Element,
    Elements,
    compute_elements,
    pack_element,
    possible_elements,
    scope_of,
)
from netplug.firewall.nft_held import (
    Held,
    by_set,
    check_conflicts,
    element_words,
    found_under,
    refused,
)
from netplug.firewall.nft_layout import (
    FAMILIES,
    LAYOUTS,
    OWNER,
    TABLE,
    WORDS,
    Layout,
    Scope,
    rule_marks,
    rule_userdata,
)
from netplug.firewall.nft_memory import Memory
from netplug.kernel import nftables as nf
from netplug.kernel.conntrack import flush_udp
from netplug.kernel.netlink import Refusal
from netplug.kernel.nfnetlink import Message, Nfnetlink
from netplug.kernel.xtables import legacy_filter_loaded

TAKEN = (errno.EEXIST, errno.EBUSY)  # EBUSY: the key with other data, before Linux 6.2
TRIES = 5  # another process may add or remove the same element between our look and our step
OWNED_SETS: dict[Scope, tuple[str, ...]] = {
    4: ("publish_ip", "publish_any"),
    6: ("publish_ip", "publish_any"),
    "bridge": ("guarded", "macs"),
}
REPAIR = "somebody flushed the firewall: run netplug repair"


class NftFirewall:
    """`fd` is the host's network namespace. Safe to share between threads; close it.

    `warm`: it is kept for many requests, and may remember.
    """

    name = "nft"

    def __init__(self, fd: int, *, warm: bool = False) -> None:
        self._fd = fd
        self._link = Nfnetlink(fd)
        self._foreign = ForeignChains(fd, self._link)
        self._memory = Memory(fd, self._link.port) if warm else None

    @staticmethod
    def usable(fd: int) -> str | None:
        """None where nf_tables works in this namespace, else why it does not."""
        try:
            with Nfnetlink(fd) as link:
                link.dump(nf.all_chains(nf.IPV4))
        except (KernelRefused, OSError) as error:
            return str(error)
        return None

    def close(self) -> None:
        self._link.close()
        if self._memory:
            self._memory.close()

    # -- the protocol ----------------------------------------------------------------------

    def present(self, intent: Intent) -> str | None:
        if self._known(intent):
            return ""
        if isinstance(intent, Base):
            return self._compare_base(LAYOUTS[intent.family])
        if isinstance(intent, Accept):
            return self._foreign.present(intent)
        return self._compare_elements(intent)

    def apply(self, intent: Intent) -> bool:
        if isinstance(intent, Publish):
            absent = self._apply_owned(intent)
            flush_udp(self._fd, intent.family, intent.mappings, gone=False)
            return absent
        if isinstance(intent, SpoofGuard):
            return self._apply_owned(intent)
        if self._known(intent):
            return False
        with self._memory.making(intent) if self._memory else nullcontext():
            if isinstance(intent, Base):
                return self._apply_base(LAYOUTS[intent.family])
            if isinstance(intent, Accept):
                return self._foreign.apply(intent)
            return self._apply_shared(intent)

    def _known(self, intent: Intent) -> bool:
        """Is it whole, as far as it has been told? The legacy tables tell nobody."""
        if self._memory is None or not self._memory.holds(intent):
            return False
        return not isinstance(intent, Accept) or not legacy_filter_loaded(self._fd, intent.family)

    def undo(self, intent: Intent) -> None:
        if isinstance(intent, Publish | SpoofGuard):
            self._undo_elements(intent)
            if isinstance(intent, Publish):
                flush_udp(self._fd, intent.family, intent.mappings, gone=True)
            return
        if self._memory:
            self._memory.forget()
        if isinstance(intent, Base):
            self._transact([nf.delete_table(FAMILIES[intent.family], TABLE)], gone=True)
        elif isinstance(intent, Accept):
            self._foreign.undo(intent)
        else:
            self._undo_elements(intent)

    def remove_owned(self, owner: str) -> int:
        count = 0
        for scope, name, element in self._owned_elements():
            if element.comment == OWNER + owner:
                message = nf.delete_elements(FAMILIES[scope], TABLE, name, [element])
                count += not self._transact(message, gone=True)
        return count

    def owners(self) -> set[str]:
        return {e.comment.removeprefix(OWNER) for _, _, e in self._owned_elements()}

    def foreign_drops(self) -> list[str]:
        """Words on foreign chains that drop container traffic and that we cannot open."""
        return self._foreign.read_drops()

    # -- base ------------------------------------------------------------------------------

    def _compare_base(self, layout: Layout) -> str | None:
        """Names every missing set, chain or rule.

        A table whose rules are all there is whole: the kernel lets no chain go that has
        rules, and no set that a rule looks into. So one dump answers in the good case.
        """
        family, table = FAMILIES[layout.scope], f"table {WORDS[layout.scope]} {TABLE}"
        lacking_rules = self._compare_rules(layout, family)
        if not lacking_rules:
            return ""
        questions = [nf.get_table(family, TABLE)]
        questions += [nf.get_set(family, TABLE, item.name) for item in layout.sets]
        questions += [nf.get_chain(family, TABLE, chain.name) for chain in layout.chains]
        answers = self._link.ask(questions)
        names = [f"set {item.name}" for item in layout.sets]
        names += [f"chain {chain.name}" for chain in layout.chains]
        if isinstance(answers[0], Refusal):
            return None
        missing = [n for n, a in zip(names, answers[1:], strict=True) if isinstance(a, Refusal)]
        return f"{table} lacks {', '.join(missing + lacking_rules)}"

    def _compare_rules(self, layout: Layout, family: int) -> list[str]:
        found: dict[str, list[bytes]] = {chain.name: [] for chain in layout.chains}
        for reply in self._link.dump(nf.all_rules(family, TABLE)):
            rule = nf.read_rule(reply)
            found.setdefault(rule.chain, []).append(rule.userdata)
        words = []
        for chain, marks in rule_marks(layout.scope).items():
            held = found[chain]
            if len(held) == len(marks) and all(h in m for h, m in zip(held, marks, strict=True)):
                continue
            gone = [
                f'the rule "{rule.why}" of chain {chain}'
                for rule, mark in zip(layout.rules_of(chain), marks, strict=True)
                if not any(userdata in mark for userdata in held)
            ]
            words += gone or [f"the right rules in chain {chain} (others stand between)"]
        return words

    def _apply_base(self, layout: Layout) -> bool:
        if self._compare_base(layout) == "":
            return False
        refusals = self._link.transact(_base_batch(layout.scope))
        if refusals:
            table = f"{WORDS[layout.scope]} {TABLE}"
            hint = ""
            if refusals[0].errno in TAKEN:
                hint = f"another layout is in the way: nft delete table {table}; netplug repair"
            raise refused(f"nf_tables refuses table {table}", refusals[0], hint)
        return True

    # -- elements --------------------------------------------------------------------------

    def _read(self, scope: Scope, elements: Iterable[Element]) -> list[Held]:
        """What the kernel holds for each element, by key."""
        layout, family = LAYOUTS[scope], FAMILIES[scope]
        wanted = [(element, pack_element(layout, element)) for element in elements]
        questions = [
            nf.get_element(family, TABLE, element.set, raw)
            for element, raws in wanted
            for raw in raws
        ]
        answers = iter(self._link.ask(questions))
        return [
            Held(element, raws, tuple(found_under(raw, next(answers)) for raw in raws))
            for element, raws in wanted
        ]

    def _compare_elements(self, intent: Elements) -> str | None:
        scope = scope_of(intent)
        wanted = set(compute_elements(intent))
        held = self._read(scope, possible_elements(intent))
        lacking = [h.element for h in held if h.element in wanted and not (h.equal and h.ours)]
        surplus = [h.element for h in held if h.element not in wanted and h.equal]
        if not any(h.found[0] for h in held):
            return None
        words = [f"{e.set} lacks {element_words(scope, e)}" for e in lacking]
        words += [f"{e.set} has {element_words(scope, e)}" for e in surplus]
        return ", ".join(words[:5]) + (f" and {len(words) - 5} more" if len(words) > 5 else "")

    def _apply_shared(self, intent: Elements) -> bool:
        scope = scope_of(intent)
        wanted = set(compute_elements(intent))
        for _ in range(TRIES):
            held = self._read(scope, possible_elements(intent))
            lacking = [h for h in held if h.element in wanted and not h.equal]
            surplus = [h for h in held if h.element not in wanted and h.equal]
            batch = self._deletions(scope, surplus) + self._additions(scope, lacking)
            refusals = self._link.transact(batch)
            if not refusals:
                return bool(batch)
            if refusals[0].errno != errno.ENOENT or not surplus:
                break
        raise self._element_refusal(scope, refusals[0])

    def _apply_owned(self, intent: Publish | SpoofGuard) -> bool:
        """Elements of one attachment: a key that another one holds is a conflict."""
        scope = scope_of(intent)
        layout = LAYOUTS[scope]
        elements = compute_elements(intent)
        pending = [Held(e, pack_element(layout, e), (None,)) for e in elements]
        replaced: list[Held] = []
        for _ in range(TRIES):
            batch = self._deletions(scope, replaced)
            batch += self._additions(scope, pending, exclusive=True)
            refusals = self._link.transact(batch)
            if not refusals:
                return bool(pending)
            if refusals[0].errno not in (*TAKEN, errno.ENOENT):
                break
            held = self._read(scope, elements)
            if refusals[0].errno == errno.ENOENT and not replaced:
                break
            check_conflicts(intent, held)
            pending = [h for h in held if not h.equal]
            replaced = [h for h in pending if h.found[0] is not None]
        raise self._element_refusal(scope, refusals[0])

    def _undo_elements(self, intent: Elements) -> None:
        scope = scope_of(intent)
        for _ in range(TRIES):
            ours = [h for h in self._read(scope, possible_elements(intent)) if h.ours]
            refusals = self._link.transact(self._deletions(scope, ours))
            if not refusals:
                return
            if refusals[0].errno != errno.ENOENT:
                break
        raise self._element_refusal(scope, refusals[0])

    def _additions(
        self, scope: Scope, held: Sequence[Held], *, exclusive: bool = False
    ) -> list[Message]:
        batch: list[Message] = []
        for name, raws in by_set(held).items():
            batch += nf.add_elements(
                FAMILIES[scope], TABLE, name, elements=raws, exclusive=exclusive
            )
        return batch

    def _deletions(self, scope: Scope, held: Sequence[Held]) -> list[Message]:
        batch: list[Message] = []
        for name, raws in by_set(held).items():
            batch += nf.delete_elements(FAMILIES[scope], TABLE, name, raws)
        return batch

    def _owned_elements(self) -> list[tuple[Scope, str, nf.RawElement]]:
        found: list[tuple[Scope, str, nf.RawElement]] = []
        for scope, names in OWNED_SETS.items():
            for name in names:
                for reply in self._link.dump(nf.all_elements(FAMILIES[scope], TABLE, name)):
                    found += [
                        (scope, name, element)
                        for element in nf.read_elements(reply)
                        if element.comment.startswith(OWNER)
                    ]
        return found

    # -- answers ---------------------------------------------------------------------------

    def _transact(self, batch: Sequence[Message], *, gone: bool = False) -> bool:
        """Whether it was gone already, where `gone` tolerates that. Raises KernelRefused."""
        refusals = self._link.transact(batch)
        if refusals and gone and refusals[0].errno == errno.ENOENT:
            return True
        if refusals:
            raise refused("nf_tables refuses a change", refusals[0])
        return False

    def _element_refusal(self, scope: Scope, refusal: Refusal) -> KernelRefused:
        hint = REPAIR if refusal.errno == errno.ENOENT else ""
        table = f"{WORDS[scope]} {TABLE}"
        return refused(f"nf_tables refuses elements of table {table}", refusal, hint)


@functools.cache
def _base_batch(scope: Scope) -> tuple[Message, ...]:
    """Makes what is missing and writes the rules anew; elements stay."""
    layout, family = LAYOUTS[scope], FAMILIES[scope]
    batch = [nf.new_table(family, TABLE)]
    batch += [
        nf.new_set(family, TABLE, item.shape, number) for number, item in enumerate(layout.sets, 1)
    ]
    for chain in layout.chains:
        batch.append(nf.new_chain(family, TABLE, chain))
        batch.append(nf.flush_chain(family, TABLE, chain.name))
    batch += [
        nf.new_rule(family, TABLE, rule.chain, code=rule.code, userdata=rule_userdata(rule))
        for rule in layout.rules
    ]
    return tuple(batch)
