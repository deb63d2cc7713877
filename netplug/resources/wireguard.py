"""An encrypted tunnel: a WireGuard device, and its peers with their subnets.

It takes the place of VXLAN in a routed overlay network. The kernel lets a peer send from its
own subnets alone, so no further filter is needed. See `kernel.wireguard` for what is untested.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netplug.errors import NotFound
from netplug.kernel import Kernel, wireguard
from netplug.kernel import rtmessages as rt
from netplug.kernel.wireguard import Peer
from netplug.model import Route
from netplug.resources import Shell
from netplug.resources.links import differences


@dataclass(frozen=True, slots=True)
class Wireguard:
    """The device. `key_file` (0600) holds its private key, which appears in no record."""

    name: str
    port: int
    mtu: int
    alias: str
    key_file: str

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"WireGuard {self.name}"

    def present(self, kernel: Kernel) -> str | None:
        link = kernel.host.link(self.name)
        if link is None:
            return None
        if link.kind != "wireguard":
            return f"{self.name} is of kind {link.kind or 'device'}"
        held = wireguard.read(kernel.host.fd, self.name)
        return differences(
            ("port", self.port, held.port),
            ("MTU", self.mtu, link.mtu),
            ("state", "up", "up" if link.up else "down"),
        )

    def apply(self, kernel: Kernel) -> bool:
        link = kernel.host.link(self.name)
        if link is None:
            making = rt.new_link(self.name, "wireguard", mtu=self.mtu)
            kernel.host.change(making, rt.set_alias(self.name, self.alias))
        else:
            kernel.host.change(rt.change_link(link.index, mtu=self.mtu), rt.set_up(link.index))
        private = read_private_key(Path(self.key_file))
        wireguard.configure(kernel.host.fd, self.name, private_key=private, port=self.port)
        return link is None

    def undo(self, kernel: Kernel) -> None:
        link = kernel.host.link(self.name)
        if link is not None and link.kind == "wireguard" and link.alias in ("", self.alias):
            kernel.host.delete_link(link.index)

    def shell(self, shell: Shell) -> list[str]:
        return [
            f"ip link add {self.name} mtu {self.mtu} type wireguard",
            f"wg set {self.name} listen-port {self.port} private-key {self.key_file}",
            f"ip link set {self.name} alias {self.alias} up",
        ]


@dataclass(frozen=True, slots=True)
class WireguardPeers:
    """The other nodes, and the routes to their subnets, as one set."""

    device: str
    items: tuple[Peer, ...] = ()

    @property
    def key(self) -> None:
        return None

    def describe(self) -> str:
        return f"{len(self.items)} peers of {self.device}"

    def read(self, kernel: Kernel) -> set[Peer] | None:
        """What the kernel holds, of a peer only the subnets that are routed to the device."""
        link = kernel.host.link(self.device)
        if link is None or link.kind != "wireguard":
            return None
        routed = {route.dst for route in kernel.host.routes(link.index)}
        held = wireguard.read(kernel.host.fd, self.device).peers
        return {
            Peer(p.key, p.address, p.port, tuple(s for s in p.subnets if s in routed)) for p in held
        }

    def present(self, kernel: Kernel) -> str | None:
        found = self.read(kernel)
        if found is None or (self.items and not found):
            return None
        wanted = set(self.items)
        words = [f"{p.address} is missing or differs" for p in wanted - found]
        words += [
            f"{p.address} is not wanted" for p in found - wanted if p.key not in _keys(wanted)
        ]
        return ", ".join(words)

    def apply(self, kernel: Kernel) -> bool:
        found = self.read(kernel)
        if found is None:
            raise NotFound(f"link {self.device} is gone", "it was removed meanwhile", "retry")
        return self.change(kernel, found)

    def change(self, kernel: Kernel, found: Iterable[Peer]) -> bool:
        """From `found`, which is taken for what the kernel holds, to what is wanted."""
        held, wanted = set(found), set(self.items)
        index = kernel.host.index(self.device)
        if index is None:
            raise NotFound(f"link {self.device} is gone", "it was removed meanwhile", "retry")
        wireguard.change(kernel.host.fd, self.device, add=wanted - held, remove=held - wanted)
        kept = {subnet for peer in wanted for subnet in peer.subnets}
        gone = {subnet for peer in held for subnet in peer.subnets} - kept
        if kept:
            kernel.host.add_routes(index, [Route(subnet) for subnet in sorted(kept, key=str)])
        if gone:
            kernel.host.delete_routes(index, [Route(subnet) for subnet in sorted(gone, key=str)])
        return bool(wanted - held)

    def undo(self, kernel: Kernel) -> None:
        found = self.read(kernel)
        if found:
            WireguardPeers(self.device).change(kernel, found)

    def shell(self, shell: Shell) -> list[str]:
        lines = []
        for peer in self.items:
            host = f"[{peer.address}]" if peer.address.version == 6 else str(peer.address)
            allowed = ",".join(str(subnet) for subnet in peer.subnets)
            lines.append(
                f"wg set {self.device} peer {peer.key} endpoint {host}:{peer.port}"
                f" allowed-ips {allowed}"
            )
            for subnet in peer.subnets:
                six = " -6" if subnet.version == 6 else ""
                lines.append(f"ip{six} route append {subnet} dev {self.device} proto 110")
        return lines


def _keys(peers: Iterable[Peer]) -> set[str]:
    return {peer.key for peer in peers}


def ensure_private_key(path: Path) -> None:
    """Makes the key where there is none; nobody else can read it at any moment."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        return
    with open(fd, "w") as file:
        file.write(wireguard.new_private_key() + "\n")


def read_private_key(path: Path) -> str:
    with open(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        return file.read().strip()
