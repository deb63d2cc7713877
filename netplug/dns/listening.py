"""Where questions come in: a UDP socket and a TCP listener for each address that is asked.

On the host's address of a network (its gateway), bound to that network's device, so that
the kernel itself hands over nothing that came another way; else on 127.0.0.11 in the
container's own namespace, where nobody but the container can ask.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from fcntl import ioctl
from ipaddress import ip_address

from netplug.dns.registry import Client
from netplug.kernel import namespaces, sockdiag
from netplug.model import IPAddress

PORT = 53
INSIDE = ip_address("127.0.0.11")  # where Docker's resolver is too: programs know it
RECEIVE_BYTES = 4 << 20  # questions that may wait, of a burst
BACKLOG = 128
IP_FREEBIND, IPV6_FREEBIND = 15, 78  # bind before the address is there (ip(7))
SO_RCVBUFFORCE = 33
SIOCGIFINDEX = 0x8933
log = logging.getLogger("netplug.dns")


class Taken(Exception):
    """Another process has the port; the text names it."""


@dataclass(eq=False, slots=True)
class Place:
    """One address with its two sockets. `users` are the attachments that ask there.

    `clients` are those of the device by their packed address; `only` is the one that can ask
    inside.
    """

    namespace: tuple[int, int]
    device: str
    address: IPAddress
    udp: socket.socket
    tcp: socket.socket
    index: int = 0
    clients: dict[bytes, Client] = field(default_factory=dict)
    only: Client | None = None
    users: set[tuple[str, str]] = field(default_factory=set)

    def client(self, peer: str) -> Client | None:
        """Who asks from this address, as a socket says it."""
        return self.only or self.clients.get(ip_address(peer.partition("%")[0]).packed)

    def close(self) -> None:
        self.udp.close()
        self.tcp.close()

    @property
    def stale(self) -> bool:
        """Was the device removed, or made anew under its name? Then nothing arrives here."""
        return bool(self.device) and _index(self.udp, self.device) != self.index


def open_place(fd: int, device: str, address: IPAddress) -> Place:
    """Raises Taken, or OSError for what the kernel refuses."""

    def make() -> Place:
        udp = _bound(socket.SOCK_DGRAM, device, address)
        try:
            tcp = _bound(socket.SOCK_STREAM, device, address)
        except BaseException:
            udp.close()
            raise
        tcp.listen(BACKLOG)
        index = _index(udp, device) if device else 0
        return Place(namespaces.identity(fd), device, address, udp, tcp, index)

    try:
        return namespaces.in_namespace(fd, make)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise Taken(_describe_taken(fd, address)) from error


def _bound(kind: socket.SocketKind, device: str, address: IPAddress) -> socket.socket:
    four = address.version == 4
    family = socket.AF_INET if four else socket.AF_INET6
    flags = kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    made = socket.socket(family, flags)
    try:
        if four:
            made.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        if device:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        if kind == socket.SOCK_STREAM:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            with suppress(OSError):  # only in a user namespace
                made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BYTES)
        made.bind((str(address), PORT))
    except BaseException:
        made.close()
        raise
    return made


def _index(own: socket.socket, device: str) -> int:
    """Index of the link in the socket's namespace, wherever the caller is; 0 for none."""
    request = struct.pack("16si20x", device.encode(), 0)
    try:
        found: int = struct.unpack("16si20x", ioctl(own.fileno(), SIOCGIFINDEX, request))[1]
    except OSError:
        return 0
    return found


def _describe_taken(fd: int, address: IPAddress) -> str:
    family = 4 if address.version == 4 else 6
    requests: list[sockdiag.Request] = [
        (family, address, "udp", PORT),  # type: ignore[list-item]
        (family, address, "tcp", PORT),  # type: ignore[list-item]
    ]
    for _, listener in sockdiag.read_conflicts(fd, requests):
        if listener.pid != os.getpid():
            return f"{listener} listens on port {PORT} of {listener.address}"
    return f"port {PORT} of {address} is taken"


def open_sandbox(path: str, cookie: int) -> int | None:
    """The namespace at the path, where that is still the one that was attached."""
    try:
        fd = namespaces.open_namespace(path)
    except Exception:  # of another kind, or not to be opened: as good as gone
        return None
    if fd is None or not cookie or namespaces.cookie(fd) == cookie:
        return fd
    os.close(fd)
    return None


Opened = Callable[[Place], None]
