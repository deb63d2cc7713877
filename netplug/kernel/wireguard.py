"""WireGuard devices over generic netlink, by pyroute2. Not run on a kernel with WireGuard yet:
the tests drive it with a stand-in for pyroute2's class, so what it asks for is checked, and
not what a kernel answers."""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from netplug.errors import KernelRefused, UnsupportedError
from netplug.kernel import namespaces
from netplug.kernel.rtmessages import new_link
from netplug.kernel.rtnl import Rtnl
from netplug.model import IPAddress, IPNetwork

T = TypeVar("T")
OVERHEAD = {4: 60, 6: 80}  # bytes: IP 20 or 40, UDP 8, WireGuard 32
FAMILIES = {2: 4, 10: 6}
_probed: list[bool] = []


@dataclass(frozen=True, slots=True)
class Peer:
    """A node: its public key, where it is, and the subnets that are behind it."""

    key: str
    address: IPAddress
    port: int
    subnets: tuple[IPNetwork, ...]


def probe() -> bool:
    """Can this kernel make a WireGuard device (CONFIG_WIREGUARD)? Asked once."""
    if not _probed:
        fd = namespaces.new_namespace()
        rtnl = Rtnl(fd)
        try:
            rtnl.change(new_link("probe", "wireguard"))
            _probed.append(True)
        except KernelRefused:
            _probed.append(False)
        finally:
            rtnl.close()
            os.close(fd)
    return _probed[0]


def demand_wireguard(network: str) -> None:
    """Raises UnsupportedError where this kernel has no WireGuard."""
    if not probe():
        raise UnsupportedError(
            f"'encrypt' of network {network} cannot be served",
            "this kernel has no WireGuard (CONFIG_WIREGUARD)",
            "load the module wireguard, or remove the key 'encrypt' on all nodes",
        )


def new_private_key() -> str:
    """Random, clamped as RFC 7748, 5, says, in Base64. The public one the kernel derives."""
    raw = bytearray(os.urandom(32))
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    return binascii.b2a_base64(raw, newline=False).decode()


def configure(fd: int, name: str, *, private_key: str, port: int) -> None:
    _ask(fd, lambda wg: wg.set(name, private_key=private_key, listen_port=port))


def change(fd: int, name: str, *, add: Iterable[Peer] = (), remove: Iterable[Peer] = ()) -> None:
    """New peers first, so that a subnet that moves is never nobody's."""
    added, removed = list(add), list(remove)
    kept = {peer.key for peer in added}

    def work(wg: Any) -> None:
        for peer in added:
            wg.set(
                name,
                peer={
                    "public_key": peer.key,
                    "endpoint_addr": str(peer.address),
                    "endpoint_port": peer.port,
                    "allowed_ips": [str(subnet) for subnet in peer.subnets],
                    "replace_allowed_ips": True,
                },
            )
        for peer in removed:
            if peer.key not in kept:
                wg.set(name, peer={"public_key": peer.key, "remove": True})

    _ask(fd, work)


@dataclass(frozen=True, slots=True)
class Held:
    public_key: str
    port: int
    peers: frozenset[Peer]


def read(fd: int, name: str) -> Held:
    """The device's public key, port and peers; a large answer comes in pieces."""
    messages = _ask(fd, lambda wg: tuple(wg.info(name)))
    peers: dict[str, Peer] = {}
    for message in messages:
        for entry in message.get_attr("WGDEVICE_A_PEERS") or ():
            peer = _parse_peer(entry)
            known = peers.get(peer.key)
            subnets = (*known.subnets, *peer.subnets) if known else peer.subnets
            peers[peer.key] = Peer(
                peer.key, peer.address, peer.port, tuple(sorted(subnets, key=str))
            )
    first = messages[0]
    return Held(
        _text(first.get_attr("WGDEVICE_A_PUBLIC_KEY")),
        int(first.get_attr("WGDEVICE_A_LISTEN_PORT") or 0),
        frozenset(peers.values()),
    )


def _parse_peer(entry: Any) -> Peer:
    endpoint = entry.get_attr("WGPEER_A_ENDPOINT") or {}
    subnets = []
    for allowed in entry.get_attr("WGPEER_A_ALLOWEDIPS") or ():
        raw = allowed.get_attr("WGALLOWEDIP_A_IPADDR")
        packed = bytes.fromhex(raw.replace(":", "")) if isinstance(raw, str) else raw
        subnets.append(ip_network((packed, allowed.get_attr("WGALLOWEDIP_A_CIDR_MASK"))))
    return Peer(
        _text(entry.get_attr("WGPEER_A_PUBLIC_KEY")),
        ip_address(endpoint.get("addr", "0.0.0.0")),
        int(endpoint.get("port", 0)),
        tuple(subnets),
    )


def _text(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("value", b"")
    return value.decode() if isinstance(value, bytes) else str(value or "")


def _ask(fd: int, work: Callable[[Any], T]) -> T:
    """Runs `work` with pyroute2's WireGuard in the namespace behind `fd`."""
    from pyroute2 import WireGuard
    from pyroute2.netlink.exceptions import NetlinkError

    def run() -> T:
        wg = WireGuard()
        try:
            return work(wg)
        except NetlinkError as error:
            raise KernelRefused(
                "the WireGuard device refuses", str(error), errno=error.code
            ) from error
        finally:
            wg.close()

    return namespaces.in_namespace(fd, run)
