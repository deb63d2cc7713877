"""Links on top of another link (macvlan, ipvlan, vlan), dummies, and links that move inside."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar

from netplug.errors import Conflict, NotFound
from netplug.kernel import Kernel
from netplug.kernel import rtmessages as rt
from netplug.kernel.rtmessages import Link
from netplug.kernel.rtnl import Rtnl
from netplug.kernel.uppermessages import Kind, move_link, new_upper, read_kind
from netplug.model import Place
from netplug.resources import Shell
from netplug.resources.links import differences

__all__ = ["WAS", "Kind", "Moved", "Upper"]
FREE_INDEXES = 1 << 20  # numbers of links start here where both namespaces must have them free


def _sandbox(kernel: Kernel, place: Place = "sandbox") -> tuple[Rtnl, int]:
    rtnl, fd = kernel.rtnl(place), kernel.fd(place)
    if rtnl is None or fd is None:
        raise NotFound(
            "the container's network namespace is gone",
            "no link can be put into it",
            "start the container again",
        )
    return rtnl, fd


def _taken(name: str) -> Conflict:
    return Conflict(
        f"interface {name} already exists in the container",
        "another plugin or the user made it",
        "choose another interface name (CNI_IFNAME, --ifname)",
    )


@dataclass(frozen=True, slots=True)
class Upper:
    """A link on top of `parent`, or a dummy, which has none; born under its final name.

    The kernel removes it with its parent, and with its namespace. One of the host's own
    (`place` "host") is shared by those who reach the host through it, and is up.
    """

    ifname: str
    kind: Kind
    parent: str
    mac: str  # "" for kinds that have their parent's
    mtu: int  # 0 compares equal to any
    alias: str
    place: Place = "sandbox"
    parent_place: Place = "host"

    loose: ClassVar[tuple[str, ...]] = ("mtu",)

    @property
    def key(self) -> str | None:
        return f"{self.kind.name}:{self.ifname}" if self.place == "host" else None

    def describe(self) -> str:
        on = f" on {self.parent}" if self.parent else ""
        return f"{self.kind.name} {self.ifname}{on}"

    def present(self, kernel: Kernel) -> str | None:
        side = kernel.rtnl(self.place)
        inner = side.link(self.ifname) if side else None
        parent = self._parent(kernel)
        if self.parent and parent is None:
            return f"its parent {self.parent} is gone" if side else None
        if inner is None:
            return None
        found = read_kind(inner)
        lower = parent.mtu if parent else self.mtu
        shrunk = f" (its parent {self.parent} has {lower})" if lower < self.mtu else ""
        wanted = [
            ("kind", self.kind.name, found.name),
            ("mode", self.kind.mode, found.mode),
            ("VLAN", self.kind.vlan, found.vlan),
            ("sources", self.kind.sources, found.sources),
            ("MAC", self.mac or inner.mac, inner.mac),
            ("MTU", self.mtu or inner.mtu, f"{inner.mtu}{shrunk}" if shrunk else inner.mtu),
        ]
        if parent:
            here = inner.parent == parent.index
            wanted.append(("parent", self.parent, self.parent if here else "another link"))
        if self.place == "host":
            wanted.append(("state", "up", "up" if inner.up else "down"))
        return differences(*wanted)

    def _parent(self, kernel: Kernel) -> Link | None:
        side = kernel.rtnl(self.parent_place)
        return side.link(self.parent) if side and self.parent else None

    def apply(self, kernel: Kernel) -> bool:
        side, _ = _sandbox(kernel, self.place)
        parent = self._parent(kernel)
        if self.parent and parent is None:
            raise NotFound(
                f"{self.parent} is gone",
                f"{self.ifname} lives on top of it",
                f"bring {self.parent} back, then run: netplug repair",
            )
        self._demand_fit(parent)
        link = side.link(self.ifname)
        if link is not None and not self._ours(link):
            raise _taken(self.ifname)
        if link is None:
            self._make(kernel, side, parent)
        elif (self.mtu and link.mtu != self.mtu) or (self.mac and link.mac != self.mac):
            side.change(rt.change_link(link.index, mtu=self.mtu, mac=self.mac))
        if self.place == "host":
            index = side.index(self.ifname)
            side.change(rt.set_up(index or 0))
        return link is None

    def _demand_fit(self, parent: Link | None) -> None:
        if parent is not None and self.mtu > parent.mtu:
            raise Conflict(
                f"{self.ifname} cannot have an MTU of {self.mtu}",
                f"its parent {self.parent} has {parent.mtu}",
                f"run: ip link set {self.parent} mtu {self.mtu}; or lower 'mtu'",
            )

    def _make(self, kernel: Kernel, side: Rtnl, parent: Link | None) -> None:
        maker = kernel.rtnl(self.parent_place if self.parent else self.place)
        assert maker is not None
        fd = None if maker is side else kernel.fd(self.place)

        def making(index: int = 0) -> rt.Message:
            return new_upper(
                self.ifname,
                self.kind,
                parent=parent.index if parent else 0,
                mac=self.mac,
                mtu=self.mtu,
                fd=fd,
                index=index,
            )

        refused = maker.change(making(), tolerate=(errno.EEXIST,))[0]
        if refused:  # the name is free inside: an older kernel looked on the wrong side
            taken = {link.index for each in (maker, side) for link in each.links()}
            maker.change(making(next(n for n in range(FREE_INDEXES, 1 << 31) if n not in taken)))
        side.change(rt.set_alias(self.ifname, self.alias))

    def _ours(self, link: Link) -> bool:
        """By its mark; between its making and its marking by what it is."""
        unmarked = not link.alias and link.mac == self.mac and not link.up
        return link.kind == self.kind.name and (link.alias == self.alias or unmarked)

    def undo(self, kernel: Kernel) -> None:
        side = kernel.rtnl(self.place)
        if side is None:
            return
        link = side.link(self.ifname)
        if link is None or not self._ours(link):  # one that was renamed keeps its alias
            link = next((one for one in side.links() if one.alias == self.alias), None)
        if link is not None and self._ours(link):
            side.delete_link(link.index)

    def shell(self, shell: Shell) -> list[str]:
        inside = shell.ip(self.place)
        across = self.place != self.parent_place and bool(self.parent)
        maker = shell.ip(self.parent_place) if across else inside
        words = [f"link {self.parent}"] if self.parent else []
        words.append(f"name {self.ifname}")
        words += [f"address {self.mac}"] if self.mac else []
        words += [f"mtu {self.mtu}"] if self.mtu else []
        words += [f"netns {shell.sandbox}"] if across else []
        up = " up" if self.place == "host" else ""
        return [
            f"{maker} link add {' '.join(words)} type {self.kind.words()}",
            f"{inside} link set {self.ifname} alias {self.alias}{up}",
        ]


UPPER_KINDS = ("macvlan", "ipvlan", "vlan", "dummy")
WAS = ":"  # in a moved link's alias, before the name that it had on the host; in no link's name


def remove_marked(kernel: Kernel, mark: str) -> None:
    """Removes or gives back the sandbox's links with this mark, for lack of a plan that tells."""
    side, host = kernel.rtnl("sandbox"), kernel.fd("host")
    for link in side.links() if side else ():
        owner, moved, device = link.alias.partition(WAS)
        if side is None or host is None or owner != mark:
            continue
        if moved:
            side.change(move_link(link.index, device, host, ""))
        elif link.kind in UPPER_KINDS:
            side.delete_link(link.index)
    for link in kernel.host.links():  # the kernel's own way of giving a device back
        owner, moved, device = link.alias.partition(WAS)
        if moved and owner == mark:
            kernel.host.change(rt.rename_link(link.index, device, ""))


@dataclass(frozen=True, slots=True)
class Moved:
    """A link of the host that moves into the sandbox under another name, and back.

    When the namespace dies first, the kernel gives a physical device back by itself, under
    the name that it had inside, and ends a virtual one. `device` and the other values are
    what it had on the host and gets back.
    """

    device: str
    device_mac: str
    device_mtu: int
    device_up: bool
    device_alias: str
    ifname: str
    mac: str
    mtu: int
    alias: str

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"device {self.device} as {self.ifname}"

    def present(self, kernel: Kernel) -> str | None:
        side = kernel.rtnl("sandbox")
        link = side.link(self.ifname) if side else None
        if link is None or link.alias != self.alias:
            return None
        return differences(("MAC", self.mac, link.mac), ("MTU", self.mtu or link.mtu, link.mtu))

    def apply(self, kernel: Kernel) -> bool:
        side, fd = _sandbox(kernel)
        link = side.link(self.ifname)
        if link is not None and link.alias != self.alias:
            raise _taken(self.ifname)
        moving = link is None
        if moving:
            device = kernel.host.link(self.device)
            if device is None:
                raise NotFound(
                    f"device {self.device} is gone",
                    "there is no such link on the host; another container may have it",
                    "see: ip link; netplug ps",
                )
            kernel.host.change(move_link(device.index, self.ifname, fd, self.alias))
            link = side.link(self.ifname)
        if link is not None and (link.mac != self.mac or (self.mtu and link.mtu != self.mtu)):
            side.change(rt.change_link(link.index, mtu=self.mtu, mac=self.mac))
        return moving

    def undo(self, kernel: Kernel) -> None:
        side, host = kernel.rtnl("sandbox"), kernel.fd("host")
        link = self._find(side) if side else None
        if side is None or link is None:  # perhaps the kernel gave it back
            self._give_back(kernel.host, self._find(kernel.host))
            return
        assert host is not None
        side.change(move_link(link.index, self.device, host, self.device_alias))
        self._give_back(kernel.host, kernel.host.link(self.device))

    def _find(self, side: Rtnl) -> Link | None:
        """By its mark alone: what lacks it is not ours."""
        return next((link for link in side.links() if link.alias == self.alias), None)

    def _give_back(self, host: Rtnl, link: Link | None) -> None:
        """MAC, MTU, name and state as they were; after the namespace's death name and mark too."""
        if link is None:
            return
        if link.name != self.device or link.alias != self.device_alias:
            host.change(rt.rename_link(link.index, self.device, self.device_alias))
        host.change(rt.change_link(link.index, mtu=self.device_mtu, mac=self.device_mac))
        if self.device_up:
            host.change(rt.set_up(link.index))

    def shell(self, shell: Shell) -> list[str]:
        inside = shell.ip("sandbox")
        lines = [
            f"ip link set {self.device} down",
            f"ip link set {self.device} netns {shell.sandbox} name {self.ifname}",
            f"{inside} link set {self.ifname} alias {self.alias}",
        ]
        if self.mac != self.device_mac:
            lines.append(f"{inside} link set {self.ifname} address {self.mac}")
        if self.mtu and self.mtu != self.device_mtu:
            lines.append(f"{inside} link set {self.ifname} mtu {self.mtu}")
        return lines
