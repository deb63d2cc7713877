"""rtnetlink messages for links on top of another one (macvlan, ipvlan, vlan), and for dummies.

Layouts and numbers: include/uapi/linux/if_link.h (IFLA_MACVLAN_*, IFLA_IPVLAN_*, IFLA_VLAN_*).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from netplug.kernel import rtmessages as rt
from netplug.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_EXCL,
    attribute,
    attributes,
    each_attribute,
    nest,
    text,
)
from netplug.kernel.rtmessages import Link, Message, pack_mac, u32

MACVLAN_MODE, MACVLAN_MACADDR_MODE, MACVLAN_MACADDR = 1, 3, 4
MACVLAN_MACADDR_DATA, MACVLAN_BC_QUEUE_LEN = 5, 7
MACADDR_SET = 3
IPVLAN_MODE, VLAN_ID = 1, 1
MODES: dict[str, dict[str, int]] = {
    "macvlan": {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8, "source": 16},
    "ipvlan": {"l2": 0, "l3": 1, "l3s": 2},
}


@dataclass(frozen=True, slots=True)
class Kind:
    """What is particular to a kind of link: the words of `ip link add ... type`.

    `sources`: MACs that a macvlan of mode "source" takes frames from. `queue`: broadcasts that
    may wait (bcqueuelen); 0 leaves it to the kernel.
    """

    name: str
    mode: str = ""
    vlan: int = 0
    queue: int = 0
    sources: tuple[str, ...] = ()

    def pack(self) -> bytes:
        """The attributes inside IFLA_INFO_DATA."""
        if self.name == "vlan":
            return attribute(VLAN_ID, struct.pack("=H", self.vlan))
        if self.name == "ipvlan":
            return attribute(IPVLAN_MODE, struct.pack("=H", MODES["ipvlan"][self.mode]))
        if self.name != "macvlan":
            return b""
        data = u32(MACVLAN_MODE, MODES["macvlan"][self.mode])
        if self.sources:
            data += u32(MACVLAN_MACADDR_MODE, MACADDR_SET)
            listed = b"".join(pack_mac(MACVLAN_MACADDR, mac) for mac in self.sources)
            data += nest(MACVLAN_MACADDR_DATA, listed)
        return data + (u32(MACVLAN_BC_QUEUE_LEN, self.queue) if self.queue else b"")

    def words(self) -> str:
        """As one types them."""
        parts = [self.name]
        parts += ["mode", self.mode] if self.mode else []
        parts += ["id", str(self.vlan)] if self.name == "vlan" else []
        parts += ["bcqueuelen", str(self.queue)] if self.queue else []
        parts += ["macaddr", "set", *self.sources] if self.sources else []
        return " ".join(parts)


def read_kind(link: Link) -> Kind:
    """What a link is. The kernel tells a macvlan's sources in no stable order: sorted."""
    data = attributes(link.data)
    if link.kind == "vlan":
        return Kind("vlan", vlan=int.from_bytes(data.get(VLAN_ID, b""), rt.BYTE_ORDER))
    modes = {number: name for name, number in MODES.get(link.kind, {}).items()}
    raw = data.get(MACVLAN_MODE if link.kind == "macvlan" else IPVLAN_MODE, b"")
    mode = modes.get(int.from_bytes(raw, rt.BYTE_ORDER), "")
    listed = [mac.hex(":") for _, mac in each_attribute(data.get(MACVLAN_MACADDR_DATA, b""))]
    queue = int.from_bytes(data.get(MACVLAN_BC_QUEUE_LEN, b""), rt.BYTE_ORDER)
    macs = tuple(sorted(listed)) if mode == "source" else ()
    return Kind(link.kind, mode, queue=queue, sources=macs)


def new_upper(
    name: str, kind: Kind, *, parent: int, mac: str, mtu: int, fd: int | None, index: int = 0
) -> Message:
    """A link on `parent`, born down inside the namespace behind `fd` under its final name.

    `index`: its number there, of the kernel's choice for 0. Older kernels look for the name
    in the caller's namespace, and refuse where that has such a link (EEXIST); with a number
    that is free in both they look for the number.
    """
    body = rt.link_body(index) + text(rt.IFLA_IFNAME, name)
    body += u32(rt.IFLA_LINK, parent) if parent else b""
    body += pack_mac(rt.IFLA_ADDRESS, mac) if mac else b""
    body += u32(rt.IFLA_MTU, mtu) if mtu else b""
    body += u32(rt.IFLA_NET_NS_FD, fd) if fd is not None else b""
    data = kind.pack()
    info = text(rt.IFLA_INFO_KIND, kind.name) + (nest(rt.IFLA_INFO_DATA, data) if data else b"")
    body += nest(rt.IFLA_LINKINFO, info)
    what = f"{kind.name} {name} cannot be created"
    return Message(rt.RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, what)


def move_link(index: int, name: str, fd: int, alias: str) -> Message:
    """Puts a link, down, into the namespace behind `fd` under another name, marked; one request.

    The kernel renames a link that moves in the same step: neither namespace ever sees it
    under the wrong name.
    """
    body = rt.link_body(index, down=True) + u32(rt.IFLA_NET_NS_FD, fd)
    body += text(rt.IFLA_IFNAME, name) + attribute(rt.IFLA_IFALIAS, alias.encode())
    return Message(rt.RTM_SETLINK, 0, body, f"link {index} cannot be moved")
