"""Links: a bridge, and a veth pair whose host end is a bridge port."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import ClassVar

from netplug.errors import Conflict, KernelRefused, NotFound
from netplug.kernel import Kernel
from netplug.kernel import rtmessages as rt
from netplug.kernel.rtmessages import Link
from netplug.kernel.rtnl import set_vlans
from netplug.model import MARK, Place
from netplug.resources import Shell


def differences(*pairs: tuple[str, object, object]) -> str:
    """Words for (field, wanted, found) triples that differ."""
    return ", ".join(
        f"{name} is {found}, not {want}" for name, want, found in pairs if want != found
    )


def _flag(value: bool) -> str:
    return "on" if value else "off"


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that is up. One that exists already is used as it is, and never removed.

    The MAC is pinned: a bridge without a set address takes its lowest port's, and
    neighbours would lose it when that port leaves.
    """

    name: str
    mac: str
    mtu: int = 0  # at creation; 0 leaves it to the kernel
    promisc: bool = False
    vlan_filtering: bool = False

    loose: ClassVar[tuple[str, ...]] = ("mac", "mtu", "promisc", "vlan_filtering")

    @property
    def key(self) -> str:
        return f"bridge:{self.name}"

    def describe(self) -> str:
        return f"bridge {self.name}"

    def present(self, kernel: Kernel) -> str | None:
        link = kernel.host.link(self.name)
        if link is None:
            return None
        wanted = [("kind", "bridge", link.kind), ("state", "up", "up" if link.up else "down")]
        if self.promisc:  # an admin's own promiscuous mode is no difference
            wanted.append(("promiscuous mode", "on", _flag(link.promisc)))
        if self.vlan_filtering:
            wanted.append(("VLAN filtering", "on", _flag(link.vlan_filtering)))
        return differences(*wanted)

    def apply(self, kernel: Kernel) -> bool:
        link = kernel.link(self.name)
        created = link is None
        if created:
            kernel.host.change(
                rt.new_bridge(
                    self.name, mac=self.mac, mtu=self.mtu, vlan_filtering=self.vlan_filtering
                ),
                rt.set_alias(self.name, MARK + f"bridge/{self.name}"),
            )
            link = kernel.link(self.name)
            if link is None:
                raise KernelRefused(f"bridge {self.name} vanished while it was set up")
        assert link is not None
        self._demand_fit(link)
        if not link.up:
            kernel.host.change(rt.set_up(link.index))
        if self.promisc and not link.promisc:
            kernel.host.change(rt.set_promisc(link.index))
        return created

    def _demand_fit(self, link: Link) -> None:
        if link.kind != "bridge":
            raise Conflict(
                f"link {self.name} is no bridge",
                f"it is of kind {link.kind or 'device'}",
                "choose another name with the key 'bridge', or remove that link",
            )
        if self.vlan_filtering and not link.vlan_filtering:
            raise Conflict(
                f"bridge {self.name} does not filter VLANs",
                "'vlan' or 'vlanTrunk' is set, and the bridge exists without vlan_filtering",
                f"run: ip link set {self.name} type bridge vlan_filtering 1",
            )

    def undo(self, kernel: Kernel) -> None:
        link = kernel.host.link(self.name)
        if link is None or link.kind != "bridge":
            return
        ours = link.alias.startswith(MARK) or (not link.alias and link.mac == self.mac)
        if ours and not any(port.master == link.index for port in kernel.host.links()):
            kernel.host.delete_link(link.index)

    def shell(self, shell: Shell) -> list[str]:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        filtering = " vlan_filtering 1" if self.vlan_filtering else ""
        lines = [f"ip link add {self.name} address {self.mac}{mtu} type bridge{filtering}"]
        promisc = " promisc on" if self.promisc else ""
        lines.append(f"ip link set {self.name} alias {MARK}bridge/{self.name} up{promisc}")
        return lines


@dataclass(frozen=True, slots=True)
class Vlan:
    vid: int
    untagged: bool = False  # and the port's own VLAN (PVID)


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair: the host end a port of `bridge` ("": of none), the other `ifname` inside.

    Deleting either end deletes both. The host end's name derives from the
    attachment, which marks it even before its alias is set. With `peer_place`
    "host" the other end is the host's own leg in a VLAN, shared by its attachments.
    """

    host_name: str
    host_mac: str
    bridge: str
    ifname: str
    mac: str
    mtu: int  # 0 compares equal to any
    alias: str
    hairpin: bool = False
    isolated: bool = False
    vlans: tuple[Vlan, ...] = ()
    keep_default_vlan: bool = False
    peer_place: Place = "sandbox"

    @property
    def key(self) -> str | None:
        return f"veth:{self.ifname}" if self.peer_place == "host" else None

    def describe(self) -> str:
        return f"veth {self.host_name} - {self.ifname}"

    def present(self, kernel: Kernel) -> str | None:
        peer_side = kernel.rtnl(self.peer_place)
        host = kernel.host.link(self.host_name)
        bridge = kernel.host.link(self.bridge) if self.bridge else None
        inner = peer_side.link(self.ifname) if peer_side else None
        if host is None and inner is None:
            return None
        if host is None or inner is None:
            lost = self.host_name if host is None else f"{self.ifname} inside"
            return f"{lost} is gone"
        return differences(
            ("kind", "veth", host.kind),
            (f"{self.ifname}'s kind", "veth", inner.kind),
            (
                "bridge",
                self.bridge or "none",
                bridge.name if bridge and host.master == bridge.index else "none",
            ),
            (f"{self.host_name}'s state", "up", "up" if host.up else "down"),
            *(() if inner.up or not self._own_leg else ((f"{self.ifname}'s state", "up", "down"),)),
            (f"{self.ifname}'s MAC", self.mac, inner.mac),
            (f"{self.ifname}'s MTU", self.mtu or inner.mtu, inner.mtu),
            ("hairpin mode", _flag(self.hairpin), _flag(bool(host.hairpin))),
            ("port isolation", _flag(self.isolated), _flag(bool(host.isolated))),
        )

    def apply(self, kernel: Kernel) -> bool:
        bridge = kernel.link(self.bridge) if self.bridge else None
        if self.bridge and bridge is None:
            raise NotFound(
                f"bridge {self.bridge} is gone", "it was removed in the meantime", "retry"
            )
        master = bridge.index if bridge else 0
        made = self._make(kernel, master)
        if not made:
            self._repair(kernel, master)
        if self.vlans:
            self._apply_vlans(kernel)
        leg = kernel.host.link(self.ifname) if self._own_leg else None
        if leg is not None and not leg.up:
            kernel.host.change(rt.set_up(leg.index))
        return made

    def _make(self, kernel: Kernel, bridge: int) -> bool:
        """False where the host end is there already. Nobody is asked beforehand: the kernel
        refuses a name that is taken, at either end."""
        peer_fd = kernel.fd(self.peer_place)
        if peer_fd is None:
            raise NotFound(
                "the container's network namespace is gone",
                "no veth can be put into it",
                "start the container again",
            )
        making = rt.new_veth(
            rt.VethEnd(self.host_name, self.host_mac),
            rt.VethEnd(self.ifname, self.mac),
            mtu=self.mtu,
            master=bridge,
            peer_fd=peer_fd,
        )
        flags = [self._port] if self.hairpin or self.isolated else []
        try:
            kernel.host.change(making, rt.set_alias(self.host_name, self.alias), *flags)
        except KernelRefused as refusal:
            if refusal.errno != errno.EEXIST:
                raise
            if kernel.host.link(self.host_name) is not None:
                return False
            raise Conflict(
                f"interface {self.ifname} already exists in the container",
                "another plugin or the user made it",
                "choose another interface name (CNI_IFNAME, --ifname)",
            ) from refusal
        return True

    @property
    def _port(self) -> rt.Message:
        return rt.set_port(self.host_name, hairpin=self.hairpin, isolated=self.isolated)

    @property
    def _own_leg(self) -> bool:
        """Both ends are the host's; then no later step brings the other end up."""
        return self.peer_place == "host"

    def _apply_vlans(self, kernel: Kernel) -> None:
        link = kernel.host.link(self.host_name)
        if link is not None:
            add = {vlan.vid: vlan.untagged for vlan in self.vlans}
            remove = () if self.keep_default_vlan else (1,)
            set_vlans(kernel.host.fd, link.index, add=add, remove=remove)

    def _repair(self, kernel: Kernel, bridge: int) -> None:
        host = kernel.host.link(self.host_name)
        if host is None:
            raise NotFound(f"{self.host_name} is gone", "it was removed in the meantime", "retry")
        if host.master != bridge:
            kernel.host.change(rt.change_link(host.index, master=bridge))
        if not host.up:
            kernel.host.change(rt.set_up(host.index))
        peer_side = kernel.rtnl(self.peer_place)
        inner = peer_side.link(self.ifname) if peer_side else None
        if peer_side and inner is not None and (inner.mtu, inner.mac) != (self.mtu, self.mac):
            peer_side.change(rt.change_link(inner.index, mtu=self.mtu, mac=self.mac))
        if self.bridge:
            kernel.host.change(self._port)

    def undo(self, kernel: Kernel) -> None:
        host = kernel.host.link(self.host_name)
        if host is None:  # a link that was renamed keeps its alias
            veths = (link for link in kernel.host.links() if link.kind == "veth")
            host = next((link for link in veths if link.alias == self.alias), None)
        if host is not None and host.kind == "veth" and host.alias in ("", self.alias):
            kernel.host.delete_link(host.index)

    def shell(self, shell: Shell) -> list[str]:
        place = f" netns {shell.sandbox}" if self.peer_place == "sandbox" else ""
        master = f" master {self.bridge}" if self.bridge else ""
        lines = [
            f"ip link add {self.host_name} address {self.host_mac} mtu {self.mtu}{master}"
            f" type veth peer name {self.ifname}"
            f" address {self.mac} mtu {self.mtu}{place}",
            f"ip link set {self.host_name} alias {self.alias} up",
        ]
        if self._own_leg:
            lines.append(f"ip link set {self.ifname} up")
        if self.hairpin or self.isolated:
            lines.append(
                f"bridge link set dev {self.host_name}"
                f" hairpin {_flag(self.hairpin)} isolated {_flag(self.isolated)}"
            )
        if self.vlans and not self.keep_default_vlan:
            lines.append(f"bridge vlan del dev {self.host_name} vid 1")
        for vlan in self.vlans:
            own = " pvid untagged" if vlan.untagged else ""
            lines.append(f"bridge vlan add dev {self.host_name} vid {vlan.vid}{own}")
        return lines
