"""Elements beside what the kernel holds under their keys: equal, ours, or somebody else's."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass

from netplug.errors import Conflict, KernelRefused
from netplug.firewall.intent import Publish, SpoofGuard
from netplug.firewall.nft_elements import Element, element_text, scope_of
from netplug.firewall.nft_layout import LAYOUTS, OWNER, TABLE, WORDS, Scope
from netplug.kernel import nftables as nf
from netplug.kernel.netlink import Refusal
from netplug.kernel.nfnetlink import Reply


@dataclass(frozen=True, slots=True)
class Held:
    """One element of an intent and what the kernel holds under its key."""

    element: Element
    wanted: tuple[nf.RawElement, ...]
    found: tuple[nf.RawElement | None, ...]

    @property
    def equal(self) -> bool:
        return all(
            f is not None and (f.key, f.end, f.data) == (w.key, w.end, w.data)
            for w, f in zip(self.wanted, self.found, strict=True)
        )

    @property
    def ours(self) -> bool:
        """Present, and either shared by intent or marked with the same owner."""
        if not self.element.comment.startswith(OWNER):
            return self.equal
        return self.found[0] is not None and self.found[0].comment == self.element.comment


def refused(what: str, refusal: Refusal, hint: str = "") -> KernelRefused:
    """The error for a refusal, in the kernel's own words."""
    return KernelRefused(what, refusal.words, hint, errno=refusal.errno)


def found_under(wanted: nf.RawElement, answer: Reply | Refusal) -> nf.RawElement | None:
    """The element under that very key; an interval set answers with the range around it."""
    if isinstance(answer, Refusal):
        if answer.errno == errno.ENOENT:
            return None
        raise refused("nf_tables does not tell an element", answer)
    found = nf.read_elements(answer)
    same = (e for e in found if (e.key, e.end, e.flags) == (wanted.key, wanted.end, wanted.flags))
    return next(same, None)


def by_set(held: Sequence[Held]) -> dict[str, list[nf.RawElement]]:
    """The wanted elements by the set that they belong to: a message changes one set."""
    grouped: dict[str, list[nf.RawElement]] = {}
    for item in held:
        grouped.setdefault(item.element.set, []).extend(item.wanted)
    return grouped


def element_words(scope: Scope, element: Element) -> str:
    """The element as nft would print it, without its comment."""
    return element_text(LAYOUTS[scope], Element(element.set, element.key, element.data))


def check_conflicts(intent: Publish | SpoofGuard, held: Sequence[Held]) -> None:
    """Raises Conflict for the first key that somebody else holds, or that is asked for twice."""
    seen: set[tuple[object, ...]] = set()
    for item in held:
        key = (item.element.set, *item.element.key)
        name = _key_words(item.element)
        if key in seen:
            raise Conflict(
                f"{name} is published twice", "one port leads to one place", "remove one of the two"
            )
        seen.add(key)
        if item.found[0] is not None and not item.ours:
            holder = item.found[0].comment or "somebody without a mark"
            raise Conflict(
                f"{name} is taken",
                f"table {WORDS[scope_of(intent)]} {TABLE} maps it for {holder}",
                "choose another host port, or disconnect who holds it",
            )


def _key_words(element: Element) -> str:
    if element.set == "publish_ip":
        address, protocol, port = element.key
        return f"port {port}/{protocol} of {address}"
    if element.set == "publish_any":
        return "port {1}/{0}".format(*element.key)
    return f"device {element.key[0]}"
