"""A plan beside what was built by hand: for each step its counterpart, and what differs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from netplug.kernel import inspect
from netplug.kernel.inspect import RT_TABLE_MAIN, LinkState
from netplug.kernel.sysctl import read_sysctls
from netplug.labs.checks.addresses import render_route
from netplug.labs.checks.links import far_end
from netplug.labs.world import World
from netplug.plan import Plan
from netplug.resources import Resource
from netplug.resources.addresses import Addresses, Routes, Sysctl
from netplug.resources.links import Bridge, Veth
from netplug.resources.rules import Rules
from netplug.resources.shaping import Shaping

NOTHING = "nothing of the kind"


@dataclass(frozen=True, slots=True)
class Row:
    """One step: what netplug would make, what was made by hand ("" for nothing), and why."""

    planned: str
    found: str
    difference: str


@dataclass(frozen=True, slots=True)
class Built:
    """What was built around one container: its cable, the bridge that this ends in."""

    inner: LinkState | None
    port: LinkState | None
    bridge: LinkState | None


def compare_with_plan(world: World, node: str, target: str, plan: Plan) -> list[Row]:
    """A row for each step of the plan, and one for each thing that only one of the two has."""
    near, far = world.links(node), world.links(target)
    port = far_end(near, far)
    inner = next((link for link in far.values() if port and link.peer_index == port.index), None)
    built = Built(inner, port, near.get(port.master) if port and port.master else None)
    return [_row(world, node, target, built, step) for step in plan]


def _row(world: World, node: str, target: str, built: Built, step: Resource) -> Row:
    planned = step.describe()
    if isinstance(step, Bridge):
        found, words = _bridge(built, step)
    elif isinstance(step, Veth):
        found, words = _veth(built, step)
    elif isinstance(step, Addresses):
        place = node if step.place == "host" else target
        link = built.bridge if step.place == "host" else built.inner
        found, words = _addresses(world, place, link, step)
    elif isinstance(step, Routes):
        place = node if step.place == "host" else target
        found, words = _routes(world, place, step)
    elif isinstance(step, Sysctl):
        found, words = _sysctl(world, node if step.place == "host" else target, built, step)
    elif isinstance(step, Rules):
        found, words = _rules(world, node, step)
    else:
        words = ["a limit of its rate"] if isinstance(step, Shaping) else []
        found = "none" if words else NOTHING
    return Row(planned, found, "; ".join(words) or "the same")


def _differ(*pairs: tuple[str, object, object, str]) -> list[str]:
    """(what, planned, built, why) -> words for those that differ."""
    return [
        f"{what} is {built}, not {planned}{f' ({why})' if why else ''}"
        for what, planned, built, why in pairs
        if planned != built
    ]


def _bridge(built: Built, step: Bridge) -> tuple[str, list[str]]:
    if built.bridge is None:
        return "", [NOTHING]
    pinned = "its own; it follows the ports" if built.port else ""
    words = _differ(
        ("the name", step.name, built.bridge.name, "derived from the network's"),
        ("the MAC", step.mac, built.bridge.mac, f"fixed by netplug, here {pinned}"),
        ("the MTU", step.mtu or built.bridge.mtu, built.bridge.mtu, ""),
    )
    return built.bridge.name, [*words, "it has no alias netplug/... by which it is known again"]


def _veth(built: Built, step: Veth) -> tuple[str, list[str]]:
    if built.port is None or built.inner is None:
        return "", [NOTHING]
    words = _differ(
        ("the port's name", step.host_name, built.port.name, "a hash of who it is for"),
        ("the inner name", step.ifname, built.inner.name, ""),
        ("the MAC inside", step.mac, built.inner.mac, "from the address: the same at each start"),
        ("the MTU", step.mtu or built.inner.mtu, built.inner.mtu, "as the way out has it"),
        ("hairpin", step.hairpin, built.port.hairpin, "so that it reaches its own published ports"),
        ("isolation", step.isolated, built.port.isolated, ""),
    )
    return f"{built.port.name} - {built.inner.name}", [*words, f"its alias would be {step.alias}"]


def _addresses(
    world: World, place: str, link: LinkState | None, step: Addresses
) -> tuple[str, list[str]]:
    if step.device == "lo":
        lo = world.links(place)["lo"]
        return "lo", [] if lo.up else ["lo is down here: programs that talk to themselves fail"]
    held = inspect.read_addresses(world.fd(place)).get(link.name, []) if link else []
    mine = [address for address in held if not address.startswith("fe80:")]
    if not mine:
        return "", [NOTHING]
    wanted = ", ".join(map(str, step.addresses))
    return ", ".join(mine), _differ(("the address", wanted, ", ".join(mine), "its own subnet"))


def _routes(world: World, place: str, step: Routes) -> tuple[str, list[str]]:
    wanted = {"default" if not r.dst.prefixlen else str(r.dst) for r in step.routes}
    held = [
        route
        for route in inspect.read_routes(world.fd(place))
        if route.destination in wanted and route.table == RT_TABLE_MAIN
    ]
    if not held:
        return "", [NOTHING]
    planned = ", ".join(str(r.gw) for r in step.routes if r.gw)
    found = ", ".join(r.via for r in held if r.via)
    words = _differ(("the gateway", planned, found, "its own subnet"))
    return ", ".join(map(render_route, held)), [*words, "netplug's have the protocol number 110"]


def _sysctl(world: World, place: str, built: Built, step: Sysctl) -> tuple[str, list[str]]:
    """A setting of the plan's link is looked for at the link in its place."""
    wanted = {_own_key(key, built): value for key, value in step.values}
    found = read_sysctls(world.fd(place), tuple(wanted))
    words = _differ(*((key, value, found[key], "") for key, value in wanted.items()))
    return ", ".join(f"{key}={value}" for key, value in found.items()), words


REASONS = {
    "Base": "a table of its own: maps of ports, sets of sources, in which all rules look up",
    "BridgePolicy": "nobody outside may route to the containers; isolation is a set of bridges",
    "Accept": "an accept in foreign chains that drop, such as Docker's",
    "Subnet": "an element of a set, not a rule: a thousand networks cost a packet no more",
    "Publish": "an element of a map for each port",
    "SpoofGuard": "frames with a false source MAC are dropped",
}


def _rules(world: World, node: str, step: Rules) -> tuple[str, list[str]]:
    lines = world.run(node, "nft list ruleset").stdout.splitlines()
    tables = [line.split("{")[0].strip() for line in lines if line.startswith("table")]
    rules = [line.strip() for line in lines if _is_rule(line)]
    if not rules:
        return "", [NOTHING]
    own = f"{len(rules)} rule{'s' if len(rules) > 1 else ''} in {', '.join(tables)}"
    return own, [REASONS.get(type(step.intent).__name__, "")]


def _own_key(key: str, built: Built) -> str:
    parts = key.split("/")
    link = built.bridge if "np-" in key else built.inner
    if "conf" in parts and link is not None and parts[-2] not in ("all", "default"):
        parts[-2] = link.name
    return "/".join(parts)


def _is_rule(line: str) -> bool:
    words = line.split()
    return line.startswith("\t\t") and bool(words) and words[0] not in ("type", "policy", "}")


def render_rows(rows: list[Row]) -> str:
    """Three lines for each step."""
    return "\n".join(line for row in rows for line in _lines(row))


def _lines(row: Row) -> Iterator[str]:
    yield f"netplug: {row.planned}"
    yield f"you:     {row.found or '-'}"
    yield f"         {row.difference}"
