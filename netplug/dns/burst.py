"""Many datagrams by one system call: recvmmsg(2) and sendmmsg(2), which Python does not offer.

Beside a recvfrom() and a sendto() for each question this saves a quarter of the processor time.
"""

from __future__ import annotations

import ctypes
import socket
from functools import cache

BURST = 64  # questions of one socket before the others get their turn
ROOM = 4096  # bytes of one datagram


class _Part(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("size", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_size", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("part_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_size", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("size", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg = _libc.recvmmsg, _libc.sendmmsg
_receive_types = ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p
_recvmmsg.argtypes, _sendmmsg.argtypes = _receive_types, _receive_types[:4]
MESSAGE = ctypes.sizeof(_Message)
INTEGER = ctypes.sizeof(ctypes.c_uint32)


class Burst:
    """Room for questions of one family, and for the reply to each in a slot of the same number.

    Reply n goes to where question n came from. `slots` are (number, where the datagram begins,
    where its text behind the id begins, begin and end of the sender's address in `addresses`).
    """

    def __init__(self, family: socket.AddressFamily) -> None:
        # struct sockaddr_in, sockaddr_in6: their sizes, and where the address is
        size, host, host_end = (16, 4, 8) if family == socket.AF_INET else (28, 8, 24)
        self._family, self._address_size = family, size
        rooms = [ctypes.create_string_buffer(BURST * each) for each in (ROOM, ROOM, size)]
        self.questions, self.replies, self.addresses = (memoryview(one).cast("B") for one in rooms)
        self.slots = tuple(
            (n, n * ROOM, n * ROOM + 2, n * size + host, n * size + host_end) for n in range(BURST)
        )
        self._incoming, parts = self._make_messages(rooms[0], rooms[2])
        self._outgoing, replies = self._make_messages(rooms[1], rooms[2])
        self._parts = parts, replies  # the kernel reads them: they must live on
        self._in, self._out = ctypes.addressof(self._incoming), ctypes.addressof(self._outgoing)
        integers = memoryview(self._incoming).cast("B").cast("I")
        self._sizes = integers[_Message.size.offset // INTEGER :: MESSAGE // INTEGER]
        self.reply_sizes = memoryview(replies).cast("B").cast("L")[1::2]  # size_t

    def _make_messages(
        self, data: ctypes.Array[ctypes.c_char], addresses: ctypes.Array[ctypes.c_char]
    ) -> tuple[ctypes.Array[_Message], ctypes.Array[_Part]]:
        messages, parts = (_Message * BURST)(), (_Part * BURST)()
        at, addresses_at = ctypes.addressof(data), ctypes.addressof(addresses)
        parts_at = ctypes.addressof(parts)
        for number in range(BURST):
            parts[number] = _Part(at + number * ROOM, ROOM)
            header = messages[number].header
            header.name = addresses_at + number * self._address_size
            header.name_size = self._address_size
            header.parts = parts_at + number * ctypes.sizeof(_Part)
            header.part_count = 1
        return messages, parts

    def receive(self, fd: int) -> list[int]:
        """The sizes of what waited; the rest stays for the next time."""
        count = _recvmmsg(fd, self._in, BURST, socket.MSG_DONTWAIT, None)
        return self._sizes[:count].tolist() if count > 0 else []

    def send(self, fd: int, first: int, end: int) -> int:
        """Sends the replies of these slots; how many the kernel refused (by a firewall: EPERM)."""
        refused = 0
        while first < end:
            sent = _sendmmsg(fd, self._out + first * MESSAGE, end - first, socket.MSG_DONTWAIT)
            refused += sent < 1
            first += max(1, sent)
        return refused

    def peer(self, number: int) -> tuple[str, int] | tuple[str, int, int, int]:
        """Where question `number` came from, as sockets of Python say it."""
        _, _, _, host, end = self.slots[number]
        start = number * self._address_size
        name = socket.inet_ntop(self._family, self.addresses[host:end])
        port = int.from_bytes(self.addresses[start + 2 : start + 4], "big")
        if self._family == socket.AF_INET:
            return name, port
        return name, port, 0, self.addresses[end : end + 4].cast("I")[0]


@cache
def burst_of(family: socket.AddressFamily) -> Burst:
    """One for all sockets: between two of them nothing is in it."""
    return Burst(family)
