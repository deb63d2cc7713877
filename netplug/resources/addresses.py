"""Addresses and routes of one interface, and sysctls of one namespace."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import ClassVar

from netplug.errors import Conflict, KernelRefused, NotFound
from netplug.kernel import Kernel
from netplug.kernel.rtmessages import Link
from netplug.kernel.rtnl import Rtnl
from netplug.kernel.sysctl import fold
from netplug.model import IPInterface, Place, Route
from netplug.resources import Shell

SETTLE_SECONDS = 5.0  # the reference plugins' patience with duplicate address detection
SCOPES = {0: "global", 253: "link", 254: "host"}


def _find(kernel: Kernel, place: Place, device: str) -> tuple[Rtnl, Link] | None:
    rtnl = kernel.rtnl(place)
    link = rtnl.link(device) if rtnl else None
    return (rtnl, link) if rtnl and link else None


def _demand(kernel: Kernel, place: Place, device: str) -> tuple[Rtnl, int]:
    """rtnetlink there, and the link's index. Raises NotFound."""
    rtnl = kernel.rtnl(place)
    index = rtnl.index(device) if rtnl else None
    if rtnl is None or index is None:
        where = "in the container" if place == "sandbox" else "on the host"
        raise NotFound(f"interface {device} is gone", f"there is no such link {where}", "retry")
    return rtnl, index


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of one interface, and the interface up.

    `shared` marks a bridge's gateway addresses, which all attachments of a subnet use.
    `force` replaces an address of the same family that is in the way (forceAddress).
    `dad` waits until IPv6 duplicate address detection has settled.
    """

    place: Place
    device: str
    addresses: tuple[IPInterface, ...]
    shared: bool = False
    force: bool = False
    dad: bool = False
    up: bool = True

    loose: ClassVar[tuple[str, ...]] = ("force", "dad")

    @property
    def key(self) -> str | None:
        if not self.shared:
            return None
        return f"address:{self.device}:{','.join(str(a) for a in self.addresses)}"

    def describe(self) -> str:
        if not self.addresses:
            return f"interface {self.device} up"
        return f"{', '.join(str(a) for a in self.addresses)} on {self.device}"

    def present(self, kernel: Kernel) -> str | None:
        found = _find(kernel, self.place, self.device)
        if found is None:
            return None
        rtnl, link = found
        held = {address.interface for address in rtnl.addresses(link.index)}
        missing = [str(a) for a in self.addresses if a not in held]
        if self.addresses and len(missing) == len(self.addresses):
            return None
        words = [f"address {a} is missing" for a in missing]
        if self.up and not link.up:
            words.append(f"{self.device} is down")
        return ", ".join(words)

    def apply(self, kernel: Kernel) -> bool:
        if self.shared and self._made_room(kernel):
            return False
        rtnl, index = _demand(kernel, self.place, self.device)
        raising = self.up and self.place == "sandbox"
        created = rtnl.add_addresses(index, self.addresses, nodad=not self.dad, up=raising)
        if self.dad and self.up and any(a.version == 6 for a in self.addresses):
            self._settle(rtnl, index)
        return created

    def _made_room(self, kernel: Kernel) -> bool:
        """Whether all addresses are there. What is in a gateway's way: another address of the
        bridge whose subnet overlaps."""
        link = kernel.link(self.device)
        held = [a.interface for a in kernel.addresses(link)] if link else []
        missing = [address for address in self.addresses if address not in held]
        for address in missing:
            for other in held:
                if other.is_link_local or other.version != address.version:
                    continue
                if not other.network.overlaps(address.network):
                    continue
                if not self.force:
                    raise Conflict(
                        f"{self.device} already has the address {other}",
                        f"it overlaps the gateway {address} that this network wants",
                        "use that address as gateway, another bridge, or set 'forceAddress'",
                    )
                if link:
                    kernel.host.delete_addresses(link.index, [other])
        return not missing

    def _settle(self, rtnl: Rtnl, index: int) -> None:
        wanted = set(self.addresses)
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            held = [a for a in rtnl.addresses(index) if a.interface in wanted]
            failed = [a for a in held if a.dad_failed]
            if failed:
                raise Conflict(
                    f"address {failed[0].interface} is in use on the link",
                    "duplicate address detection found another owner",
                    "choose another address, or find the other owner",
                )
            if not any(a.tentative for a in held):
                return
            if time.monotonic() > deadline:
                raise KernelRefused(
                    f"addresses of {self.device} stay tentative",
                    f"duplicate address detection did not end within {SETTLE_SECONDS:.0f} s",
                    "is the bridge port up? set 'enabledad' to false to do without",
                )
            time.sleep(0.05)

    def undo(self, kernel: Kernel) -> None:
        found = _find(kernel, self.place, self.device) if self.addresses else None
        if found is None:
            return
        rtnl, link = found
        rtnl.delete_addresses(link.index, self.addresses)

    def shell(self, shell: Shell) -> list[str]:
        ip = shell.ip(self.place)
        lines = []
        if self.up and self.place == "sandbox":
            lines.append(f"{ip} link set {self.device} up")
        for address in self.addresses:
            extra = ""
            if address.version == 4 and address.network.prefixlen < 31:
                extra = " broadcast +"
            elif address.version == 6 and not self.dad:
                extra = " nodad"
            lines.append(f"{ip} address add {address}{extra} dev {self.device}")
        return lines


@dataclass(frozen=True, slots=True)
class Routes:
    """Routes through one interface; an identical route that is there already is success."""

    place: Place
    device: str
    routes: tuple[Route, ...]

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"routes to {', '.join(str(route.dst) for route in self.routes)}"

    def present(self, kernel: Kernel) -> str | None:
        found = _find(kernel, self.place, self.device)
        if found is None:
            return None
        rtnl, link = found
        held = rtnl.routes(link.index)
        missing = [r for r in self.routes if not any(_same_route(r, h) for h in held)]
        if self.routes and len(missing) == len(self.routes):
            return None
        return ", ".join(f"route to {route.dst} is missing" for route in missing)

    def apply(self, kernel: Kernel) -> bool:
        rtnl, index = _demand(kernel, self.place, self.device)
        return rtnl.add_routes(index, self.routes)

    def undo(self, kernel: Kernel) -> None:
        found = _find(kernel, self.place, self.device)
        if found is None:
            return
        rtnl, link = found
        rtnl.delete_routes(link.index, self.routes)

    def shell(self, shell: Shell) -> list[str]:
        ip = shell.ip(self.place)
        return [
            f"{ip} {_family(route)}route append {_route_words(route, self.device)}"
            for route in self.routes
        ]


def _same_route(wanted: Route, held: Route) -> bool:
    """Destination and gateway agree, and what the wanted one fixes; any table will do."""
    if wanted.dst != held.dst or (wanted.gw is not None and wanted.gw != held.gw):
        return False
    fixed = replace(held, gw=wanted.gw, scope=wanted.scope, table=wanted.table or held.table)
    for name in ("mtu", "advmss", "priority"):
        want = getattr(wanted, name)
        if want and want != getattr(fixed, name):
            return False
    return True


def _family(route: Route) -> str:
    return "-6 " if route.dst.version == 6 else ""


def _route_words(route: Route, device: str) -> str:
    words = [str(route.dst)]
    if route.gw is not None:
        words.append(f"via {route.gw}")
    words.append(f"dev {device} proto 110")
    if route.priority:
        words.append(f"metric {route.priority}")
    if route.table is not None:
        words.append(f"table {route.table}")
    if route.scope is not None and route.dst.version == 4:
        words.append(f"scope {SCOPES.get(route.scope, route.scope)}")
    if route.mtu:
        words.append(f"mtu {route.mtu}")
    if route.advmss:
        words.append(f"advmss {route.advmss}")
    return " ".join(words)


@dataclass(frozen=True, slots=True)
class Sysctl:
    """Kernel settings below net/. They are never undone: others may rely on them by now.

    `optional` keys may be unknown to the kernel (IPv6 switched off).
    """

    place: Place
    values: tuple[tuple[str, str], ...]
    optional: bool = False

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.values)

    def present(self, kernel: Kernel) -> str | None:
        if kernel.fd(self.place) is None:
            return None
        found = kernel.read_sysctls(self.place, tuple(key for key, _ in self.values))
        return ", ".join(
            f"{key} is {found[key]}, not {want}"
            for key, want in self.values
            if found[key] != fold(want) and not (self.optional and found[key] is None)
        )

    def apply(self, kernel: Kernel) -> bool:
        return kernel.ensure_sysctls(self.place, dict(self.values), optional=self.optional)

    def undo(self, kernel: Kernel) -> None:
        return None

    def shell(self, shell: Shell) -> list[str]:
        words = " ".join(f"{key}={_quoted(value)}" for key, value in self.values)
        return [shell.inside(self.place, f"sysctl -qw {words}")] if words else []


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value
