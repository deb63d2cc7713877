"""Checks of layer 3: addresses, routes, policy rules, settings."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from netplug.kernel import inspect
from netplug.kernel.inspect import RT_TABLE_MAIN, RouteState
from netplug.kernel.sysctl import read_sysctl
from netplug.labs.checks.base import Check, Verdict
from netplug.labs.world import World


class AddrCheck(Check):
    """An address with its prefix length, on one link or any."""

    word: ClassVar[str] = "addr"
    node: str
    address: str
    dev: str | None = None
    exists: bool = True

    def expected(self) -> str:
        where = f" on {self.dev}" if self.dev else ""
        return f"{'' if self.exists else 'no '}address {self.address}{where} in {self.node}"

    def judge(self, world: World) -> Verdict:
        held = inspect.read_addresses(world.fd(self.node))
        mine = [(dev, a) for dev, all_ in held.items() for a in all_ if self.dev in (None, dev)]
        ok = any(address == self.address for _, address in mine) == self.exists
        shown = ", ".join(f"{a} on {dev}" for dev, a in mine if not a.startswith("fe80:"))
        return self.answer(ok, shown or "no address", self._meaning([a for _, a in mine]))

    def _meaning(self, held: list[str]) -> str:
        plain, _, length = self.address.partition("/")
        if not self.exists:
            return "a second owner of an address takes away the other's packets"
        if any(address.partition("/")[0] == plain for address in held):
            return (
                f"the prefix length says who is on the same link: with /{length} it asks them"
                " directly, with another it asks too many or too few"
            )
        return "packets for this address are not taken here, and answers have no way back"


class RouteCheck(Check):
    """A route: `to` is a network, an address or "default"; `kind` may be blackhole."""

    word: ClassVar[str] = "route"
    node: str
    to: str
    via: str | None = None
    dev: str | None = None
    kind: str = "unicast"
    exists: bool = True

    def expected(self) -> str:
        words = [f"{'' if self.exists else 'no '}route to {self.to} in {self.node}"]
        words += [f"via {self.via}"] if self.via else []
        words += [f"dev {self.dev}"] if self.dev else []
        return " ".join(words if self.kind == "unicast" else [*words, f"({self.kind})"])

    def judge(self, world: World) -> Verdict:
        held = [r for r in inspect.read_routes(world.fd(self.node)) if r.table == RT_TABLE_MAIN]
        wanted = {self.to, f"{self.to}/32"} | ({"0.0.0.0/0"} if self.to == "default" else set())
        same = [route for route in held if route.destination in wanted]
        fitting = [
            route
            for route in same
            if self.via in (None, route.via)
            and self.dev in (None, route.device)
            and route.kind == self.kind
        ]
        if self.exists and same and not fitting:
            meaning = "packets take another way than they should"
        elif self.exists:
            meaning = "for a destination without a route the kernel says: network is unreachable"
        else:
            meaning = "the most specific route wins, so this one takes the packets"
        found = ", ".join(map(render_route, same or held)) or "no route at all"
        return self.answer(bool(fitting) == self.exists, found, meaning)


def render_route(route: RouteState) -> str:
    words = [route.destination] if route.kind == "unicast" else [route.kind, route.destination]
    words += [f"via {route.via}"] if route.via else []
    return " ".join(words + ([f"dev {route.device}"] if route.device else []))


class RuleCheck(Check):
    """A policy rule (`ip rule`), which is asked before any route."""

    word: ClassVar[str] = "rule"
    node: str
    to: str | None = None
    source: str | None = Field(default=None, alias="from")
    action: str | None = None
    table: int | None = None
    exists: bool = True

    def expected(self) -> str:
        words = [f"{'' if self.exists else 'no '}rule in {self.node}"]
        words += [f"to {self.to}"] if self.to else []
        words += [f"from {self.source}"] if self.source else []
        words += [self.action] if self.action else []
        return " ".join(words + ([f"table {self.table}"] if self.table else []))

    def judge(self, world: World) -> Verdict:
        held = [r for r in inspect.read_rules(world.fd(self.node)) if 0 < r.priority < 32766]
        fitting = [
            rule
            for rule in held
            if (self.to is None or rule.destination in (self.to, f"{self.to}/32"))
            and (self.source is None or rule.source in (self.source, f"{self.source}/32"))
            and self.action in (None, rule.action)
            and self.table in (None, rule.table)
        ]
        words = [f"{r.priority}: from {r.source} to {r.destination} {r.action}" for r in held]
        found = ", ".join(words) or "none beside the three of every namespace"
        meaning = "rules choose the table in which a route is looked up, before any route is"
        return self.answer(bool(fitting) == self.exists, found, meaning)


SYSCTLS = {
    "ip_forward": "a machine that does not forward drops every packet that is not for itself",
    "rp_filter": (
        "with strict reverse path filtering a packet is dropped when its sender would be"
        " answered through another link"
    ),
}


class SysctlCheck(Check):
    """A kernel setting of the node, by its key below net/."""

    word: ClassVar[str] = "sysctl"
    node: str
    key: str
    value: str

    def expected(self) -> str:
        return f"{self.key} = {self.value} in {self.node}"

    def judge(self, world: World) -> Verdict:
        key = self.key if "/" in self.key else self.key.replace(".", "/")
        found = read_sysctl(world.fd(self.node), key)
        meaning = SYSCTLS.get(key.rpartition("/")[2], "the kernel behaves otherwise")
        return self.answer(found == self.value, f"{self.key} = {found}", meaning)
