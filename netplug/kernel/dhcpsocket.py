"""Sockets for DHCP: frames before an interface has an address, datagrams after.

They carry the bytes of messages; `netplug.dhcp` knows what is in them.
"""

from __future__ import annotations

import socket
import struct
import time
from ipaddress import IPv4Address

from netplug.kernel.namespaces import in_namespace

ETH_P_IP = 0x0800
CLIENT, SERVER = 68, 67
EVERYONE = b"\xff" * 6
LARGEST = 1 << 16
_IP = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")


class FrameSocket:
    """Talks as 0.0.0.0 on a link that has no address yet (packet(7)). Close it."""

    def __init__(self, fd: int, ifname: str) -> None:
        self._ifname = ifname
        self._socket = in_namespace(fd, self._open)

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, 0)
        made.bind((self._ifname, ETH_P_IP))
        return made

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        """To everyone on the link. Raises OSError."""
        target = (self._ifname, ETH_P_IP, 0, 0, EVERYONE)
        self._socket.sendto(render_packet(message), target)

    def receive(self, deadline: float) -> bytes | None:
        """The next datagram to the client's port; None at the deadline (time.monotonic)."""
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                packet = self._socket.recv(LARGEST)
            except TimeoutError:
                break
            message = parse_packet(packet)
            if message is not None:
                return message
        return None


class DatagramSocket:
    """Talks with the address that the link has. `server` None: to everyone. Close it."""

    def __init__(self, fd: int, ifname: str, server: IPv4Address | None) -> None:
        self._ifname = ifname
        self._target = (str(server or "255.255.255.255"), SERVER)
        self._socket = in_namespace(fd, self._open)

    def _open(self) -> socket.socket:
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            for option in (socket.SO_REUSEADDR, socket.SO_BROADCAST):
                made.setsockopt(socket.SOL_SOCKET, option, 1)
            if self._ifname:
                device = self._ifname.encode() + b"\0"
                made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
                made.bind(("", CLIENT))
        except OSError:
            made.close()
            raise
        return made

    def close(self) -> None:
        self._socket.close()

    def send(self, message: bytes) -> None:
        self._socket.sendto(message, self._target)

    def receive(self, deadline: float) -> bytes | None:
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        self._socket.settimeout(left)
        try:
            return self._socket.recv(LARGEST)
        except TimeoutError:
            return None


def render_packet(message: bytes) -> bytes:
    """An IPv4 packet with a datagram from 0.0.0.0:68 to 255.255.255.255:67."""
    source, target = bytes(4), b"\xff" * 4
    length = _UDP.size + len(message)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_UDP, length)
    bare = _UDP.pack(CLIENT, SERVER, length, 0) + message
    datagram = _UDP.pack(CLIENT, SERVER, length, _checksum(pseudo + bare) or 0xFFFF) + message
    size = _IP.size + length

    def header(checksum: int) -> bytes:
        udp = socket.IPPROTO_UDP
        return _IP.pack(0x45, 0x10, size, 0, 0, 64, udp, checksum, source, target)

    return header(_checksum(header(0))) + datagram


def parse_packet(packet: bytes) -> bytes | None:
    """The message in a packet to the client's port; None for any other packet.

    The datagram's checksum is not looked at: between two links of one host it is never
    computed (checksum offload).
    """
    if len(packet) < _IP.size or packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP:
        return None
    start = (packet[0] & 0xF) * 4
    fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
    if fragment or len(packet) < start + _UDP.size:
        return None
    _, port, length, _ = _UDP.unpack_from(packet, start)
    return packet[start + _UDP.size : start + length] if port == CLIENT else None


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
