"""The framing that all netlink families share: headers, attributes, acknowledgements.

A message is nlmsghdr (length, kind, flags, sequence, port), a family's own header,
attributes (length, type, payload, padded to 4 bytes). See netlink(7).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x10, 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

SOL_NETLINK = 270
NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK = 1, 10, 11, 12
HEADER = struct.Struct("=IHHII")
RECEIVE = 1 << 16  # bytes of a datagram that is read
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The kernel's no to the message at `index` of a request."""

    index: int
    errno: int
    text: str = ""

    @property
    def words(self) -> str:
        return self.text or os.strerror(self.errno)


def attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + b"\0" * (-length & 3)


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def each_attribute(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of every attribute, in order."""
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield kind & NLA_TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """`each_attribute` as a dictionary; spelled out, for an ADD reads a thousand attributes."""
    found: dict[int, bytes] = {}
    end = len(data) - 4
    unpack = _ATTRIBUTE.unpack_from
    while offset <= end:
        length, kind = unpack(data, offset)
        if length < 4:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def unpack_text(payload: bytes) -> str:
    return payload.rstrip(b"\0").decode(errors="replace")


def each_message(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, flags, sequence, body) of every message in a datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def waiting(told: socket.socket) -> Iterator[bytes]:
    """Every notification that waits on a socket that does not block; b"" for those that were
    lost, where more came than its buffer holds."""
    while True:
        try:
            yield told.recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS
            yield b""


def senders(data: bytes) -> Iterator[int]:
    """The port of whoever sent each message of a datagram; in a notification, of whom it tells."""
    offset = 0
    while offset + 16 <= len(data):
        length, _, _, _, port = HEADER.unpack_from(data, offset)
        yield port
        offset += (length + 3) & ~3


def read_refusal(flags: int, body: bytes) -> Refusal | None:
    """What an NLMSG_ERROR says, with the kernel's own words; None for an acknowledgement."""
    errno: int = -struct.unpack_from("=i", body)[0]
    if not errno:
        return None
    words = ""
    if flags & NLM_F_ACK_TLVS:
        # After the errno: the header of the request, or all of it, padded.
        length: int = HEADER.size if flags & NLM_F_CAPPED else struct.unpack_from("=I", body, 4)[0]
        start = 4 + ((length + 3) & ~3)
        words = unpack_text(attributes(body, start).get(NLMSGERR_ATTR_MSG, b""))
    return Refusal(-1, errno, words)
