"""Checks of layer 2: links, bridge ports, forwarding entries, neighbours."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from netplug.kernel import inspect
from netplug.kernel.inspect import LinkState
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World

MEANINGS = {
    "up": "a link that is down takes no packet and gives none; its routes are gone as well",
    "kind": "another kind of link has this name, and behaves otherwise",
    "mtu": "packets larger than this are cut or refused here",
    "mac": "frames for the expected MAC are not taken by this link",
    "vni": "both ends of a tunnel must use the same VNI; others are dropped without a word",
    "local": "the tunnel's packets leave with this source address, and are answered to it",
    "port": "the far end listens on another UDP port, so it never sees the tunnel's packets",
    "parent": "frames leave through the parent, and through no other link",
    "mode": "in mode bridge macvlans of one parent reach each other; in private they do not",
    "learning": "a VXLAN device that learns may forget or mislearn what you told it",
    "limited": "a queue holds packets back and drops what is too much",
    "stp": "with the spanning tree a port listens and learns for 30 s before it forwards",
}


class LinkCheck(Check):
    """A link: whether it is there, and its properties."""

    word: ClassVar[str] = "link"
    node: str
    name: str
    exists: bool = True
    kind: str | None = None
    up: bool | None = None
    mtu: int | None = None
    mac: str | None = None
    vni: int | None = None
    local: str | None = None
    port: int | None = None
    parent: str | None = None
    mode: str | None = None
    learning: bool | None = None
    stp: bool | None = None
    limited: bool | None = None

    def expected(self) -> str:
        if not self.exists:
            return f"no link {self.name} in {self.node}"
        words = [f"link {self.name} in {self.node}"]
        words += [f"{key} {_word(key, value)}" for key, value in self._wanted()]
        return ", ".join(words)

    def _wanted(self) -> list[tuple[str, object]]:
        return [(key, value) for key in MEANINGS if (value := getattr(self, key)) is not None]

    def judge(self, world: World) -> Verdict:
        links = world.links(self.node)
        link = links.get(self.name)
        if not self.exists or link is None:
            there = f"links in {self.node}: {', '.join(links)}"
            meaning = "it is still there" if link else f"{self.node} has no such interface"
            return self.answer((link is None) == (not self.exists), there, meaning)
        for key, want in self._wanted():
            found = getattr(link, key)
            if key == "mac":
                want = world.mac(str(want))
            if found != want:
                words = f"{key} {_word(key, found)}"
                return self.answer(False, f"{self.name}: {words}", MEANINGS[key])
        return self.answer(True, f"{self.name}, {link.kind or 'loopback'}, as expected")


def _word(key: str, value: object) -> str:
    if isinstance(value, bool):
        return {True: "yes", False: "no"}[value]
    return str(value) or "none"


class PortCheck(Check):
    """Links of a bridge: `of` are nodes whose cable ends there, `links` names of ports."""

    word: ClassVar[str] = "port"
    node: str
    bridge: str
    of: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    state: str = "forwarding"
    isolated: bool = False
    hairpin: bool | None = None

    def expected(self) -> str:
        what = [f"the cable of {name}" for name in self.of] + list(self.links)
        return f"ports of {self.bridge} in {self.node}, {self.state}: {', '.join(what)}"

    def judge(self, world: World) -> Verdict:
        near = world.links(self.node)
        if self.bridge not in near:
            return self.answer(False, f"no link {self.bridge} in {self.node}", "make it first")
        wanted: list[tuple[str, LinkState | None]] = [(n, near.get(n)) for n in self.links]
        wanted += [(f"the cable of {n}", far_end(near, world.links(n))) for n in self.of]
        for what, link in wanted:
            if link is None:
                meaning = "what has no cable to the bridge cannot reach anybody through it"
                return self.answer(False, f"{what} does not end in {self.node}", meaning)
            if link.master != self.bridge:
                found = f"{link.name} belongs to {link.master or 'no bridge'}"
                meaning = "only ports of the same bridge exchange frames"
                return self.answer(False, found, meaning)
            if link.port_state != self.state:
                found = f"port {link.name} is {link.port_state}{'' if link.up else ' (down)'}"
                meaning = "a bridge passes frames through ports that forward, and no others"
                return self.answer(False, found, meaning)
            if link.isolated != self.isolated:
                found = f"port {link.name} is {'' if link.isolated else 'not '}isolated"
                return self.answer(False, found, "isolated ports do not reach each other")
            if self.hairpin is not None and link.hairpin != self.hairpin:
                found = f"port {link.name} has hairpin {'on' if link.hairpin else 'off'}"
                meaning = "without hairpin a bridge never sends a frame back where it came from"
                return self.answer(False, found, meaning)
        ports = [link.name for link in near.values() if link.master == self.bridge]
        return self.answer(True, f"ports: {', '.join(ports)}")


def far_end(near: dict[str, LinkState], far: dict[str, LinkState]) -> LinkState | None:
    """The veth end here whose other end is in the other node: each names the other's index."""
    for link in near.values():
        for other in far.values():
            if (
                link.kind == other.kind == "veth"
                and link.peer_index == other.index
                and other.peer_index == link.index
            ):
                return link
    return None


class FdbCheck(Check):
    """A forwarding entry: behind which port, or which tunnel end, a MAC lives."""

    word: ClassVar[str] = "fdb"
    node: str
    dev: str
    mac: str = "00:00:00:00:00:00"
    remote: str | None = None
    permanent: bool | None = None
    exists: bool = True

    def expected(self) -> str:
        where = f" -> {self.remote}" if self.remote else ""
        return f"{'' if self.exists else 'no '}entry {self.mac}{where} on {self.dev} in {self.node}"

    def judge(self, world: World) -> Verdict:
        mac = world.mac(self.mac)
        held = [e for e in inspect.read_fdb(world.fd(self.node)) if e.mac == mac]
        fitting = [
            entry
            for entry in held
            if entry.device == self.dev
            and self.remote in (None, entry.remote)
            and self.permanent in (None, entry.permanent)
        ]
        where = ", ".join(f"{e.device}{f' -> {e.remote}' if e.remote else ''}" for e in held)
        if self.exists:
            meaning = "without it the frame is flooded, or dropped where nothing floods"
        else:
            meaning = "frames for this MAC are sent where nobody with it lives"
        return self.answer(bool(fitting) == self.exists, where or "no entry for this MAC", meaning)


class NeighCheck(Check):
    """An entry of the neighbour table: which MAC has an address."""

    word: ClassVar[str] = "neigh"
    node: str
    address: str
    mac: str | None = None
    permanent: bool | None = None
    exists: bool = Field(default=True)

    def expected(self) -> str:
        mac = f" at {self.mac}" if self.mac else ""
        return f"{'' if self.exists else 'no '}neighbour {self.address}{mac} of {self.node}"

    def judge(self, world: World) -> Verdict:
        address = world.address(self.address)
        want = world.mac(self.mac) if self.mac else None
        held = [e for e in inspect.read_neighbours(world.fd(self.node)) if e.address == address]
        fitting = [
            entry
            for entry in held
            if not entry.failed
            and want in (None, entry.mac)
            and self.permanent in (None, entry.permanent)
        ]
        words = [f"{e.mac or '(no answer)'} on {e.device}" for e in held]
        meaning = "an address can be reached on a link only once its MAC is known"
        if fitting:
            meaning = "frames for this address go to that MAC, whoever has it"
        found = ", ".join(words) or "nothing about this address"
        return self.answer(bool(fitting) == self.exists, found, meaning)
