"""nfnetlink: the netlink protocol of nf_tables and connection tracking, packed by hand.

pyroute2's encoder takes 0.35 ms for one map element and cannot put several objects into
one transaction; a port range is thousands of elements. This takes some 10 us for each.
The tests decode what is packed here with pyroute2's decoder.

A message is nlmsghdr, nfgenmsg (family, version, resource id), attributes. Numbers inside
attributes are big endian, headers are in host order (include/uapi/linux/netfilter/nfnetlink.h).
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from netplug.errors import KernelRefused
from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.netlink import (
    HEADER,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RECEIVE,
    SOL_NETLINK,
    Refusal,
    each_message,
    read_refusal,
    unpack_text,
)

NETLINK_NETFILTER = 12
SUBSYSTEM_CTNETLINK, SUBSYSTEM_NFTABLES = 1, 10

NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 0x10, 0x11

SO_SNDBUFFORCE = 32
SEND_BUFFER = 8 << 20  # bytes: a batch is one sendmsg, and 5000 ports with comments are 0.7 MB
IN_FLIGHT = 64  # questions in one sendmsg: their answers wait in a receive buffer of 208 KiB
DUMP_TRIES = 10

_FAMILY = struct.Struct("!BBH")


@dataclass(frozen=True, slots=True)
class Message:
    """One request without its sequence number; `kind` is subsystem << 8 | message number."""

    kind: int
    flags: int
    family: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    kind: int
    family: int
    body: bytes


def number(kind: int, value: int) -> bytes:
    """An attribute of 32 bits, big endian; negative values are wrapped (hook priorities)."""
    return struct.pack("=HH", 8, kind) + (value & 0xFFFFFFFF).to_bytes(4, "big")


def pack_comment(comment: str) -> bytes:
    """nft's user data: type, length, value. Type 0 is the comment of a rule or an element."""
    value = comment.encode() + b"\0"
    return bytes((0, len(value))) + value


def unpack_comment(userdata: bytes) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        kind, length = userdata[offset], userdata[offset + 1]
        if kind == 0:
            return unpack_text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


class Nfnetlink:
    """A socket of one network namespace; safe to share between threads.

    The kernel answers inside send(2), so no answer is ever waited for.
    """

    def __init__(self, fd: int) -> None:
        self._socket = netlink_socket(fd, NETLINK_NETFILTER)
        self._socket.bind((0, 0))  # else the first request would give it a port
        self.port: int = self._socket.getsockname()[0]
        self._lock = threading.Lock()
        self._sequence = 1
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER)
        except PermissionError:  # root of a user namespace: net.core.wmem_max is the limit
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Nfnetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def transact(self, messages: Sequence[Message]) -> list[Refusal]:
        """One atomic nf_tables transaction: no refusal, or nothing was changed.

        Raises KernelRefused where the kernel refuses the transaction as a whole.
        """
        if not messages:
            return []
        count = len(messages)
        with self._lock:
            begin = self._take(count + 2)
            parts = [_pack_edge(NFNL_MSG_BATCH_BEGIN, begin)]
            for index, message in enumerate(messages, 1):
                # Errors are always told, so the last message alone asks for an answer.
                flags = message.flags | (NLM_F_ACK if index == count else 0)
                parts.append(_pack(message, begin + index, flags))
            parts.append(_pack_edge(NFNL_MSG_BATCH_END, begin + count + 1))
            self._send(b"".join(parts), "the firewall transaction")
            refusals = []
            for sequence, refusal, _ in self._answers(begin):
                if refusal and sequence == begin:
                    raise _refused("the firewall transaction", refusal)
                if refusal:
                    refusals.append(Refusal(sequence - begin - 1, refusal.errno, refusal.text))
                if sequence == begin + count:
                    return refusals
        raise AssertionError("unreachable: _answers never ends")

    def ask(self, messages: Sequence[Message]) -> list[Reply | Refusal]:
        """Questions about single objects: for each its object or the refusal (ENOENT mostly)."""
        answers: list[Reply | Refusal] = []
        for start in range(0, len(messages), IN_FLIGHT):
            answers += self._ask(messages[start : start + IN_FLIGHT], start)
        return answers

    def _ask(self, messages: Sequence[Message], offset: int) -> list[Reply | Refusal]:
        with self._lock:
            first = self._take(len(messages))
            packed = (_pack(m, first + i, m.flags) for i, m in enumerate(messages))
            self._send(b"".join(packed), "the question")
            found: dict[int, Reply | Refusal] = {}
            for sequence, refusal, reply in self._answers(first):
                index = sequence - first
                if reply:
                    found[index] = reply
                elif refusal:
                    found[index] = Refusal(offset + index, refusal.errno, refusal.text)
                if len(found) == len(messages):
                    break
            return [found[index] for index in range(len(messages))]

    def dump(self, message: Message) -> list[Reply]:
        """All objects that match. Raises KernelRefused; ENOENT (no such table) gives none."""
        for _ in range(DUMP_TRIES):
            replies, consistent = self._dump(message)
            if consistent:
                return replies
        raise KernelRefused(
            "the firewall's state cannot be read",
            f"it changed during each of {DUMP_TRIES} readings",
            "try again",
        )

    def _dump(self, message: Message) -> tuple[list[Reply], bool]:
        with self._lock:
            sequence = self._take(1)
            self._send(_pack(message, sequence, NLM_F_DUMP), "the dump")
            replies: list[Reply] = []
            consistent = True
            while True:
                data = self._receive()
                for kind, flags, number_, body in each_message(data):
                    if number_ != sequence:
                        continue
                    consistent = consistent and not flags & NLM_F_DUMP_INTR
                    if kind == NLMSG_DONE:
                        return replies, consistent
                    if kind == NLMSG_ERROR:
                        refusal = read_refusal(flags, body)
                        if refusal is None or refusal.errno == 2:
                            return replies, consistent
                        raise _refused("the dump", refusal)
                    replies.append(Reply(kind, body[0], body[4:]))

    def command(self, messages: Sequence[Message]) -> list[Refusal]:
        """Requests outside nf_tables, each on its own; those that were refused."""
        refusals = []
        for start in range(0, len(messages), IN_FLIGHT):
            chunk = messages[start : start + IN_FLIGHT]
            with self._lock:
                first = self._take(len(chunk))
                packed = (_pack(m, first + i, m.flags | NLM_F_ACK) for i, m in enumerate(chunk))
                self._send(b"".join(packed), "the request")
                left = len(chunk)
                for sequence, refusal, _ in self._answers(first):
                    if refusal:
                        index = start + sequence - first
                        refusals.append(Refusal(index, refusal.errno, refusal.text))
                    left -= 1
                    if not left:
                        break
        return refusals

    def _take(self, count: int) -> int:
        first = self._sequence
        self._sequence = (first + count) & 0x7FFFFFFF or 1
        return first

    def _send(self, data: bytes, what: str) -> None:
        try:
            self._socket.send(data)
        except OSError as error:
            hint = ""
            if error.errno == 90:  # EMSGSIZE
                hint = "publish fewer ports at once, or raise net.core.wmem_max"
            raise KernelRefused(
                f"the kernel takes {what} not at all",
                error.strerror or str(error),
                hint,
                errno=error.errno or 0,
            ) from error

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(RECEIVE, socket.MSG_DONTWAIT)
        except OSError as error:
            raise KernelRefused(
                "the kernel gives no answer about the firewall",
                error.strerror or str(error),
                errno=error.errno or 0,
            ) from error

    def _answers(self, first: int) -> Iterator[tuple[int, Refusal | None, Reply | None]]:
        """(sequence, refusal, object) of every answer since `first`; both None for a plain yes."""
        while True:
            for kind, flags, sequence, body in each_message(self._receive()):
                if sequence < first:  # a late answer to a request that was given up
                    continue
                if kind == NLMSG_ERROR:
                    yield sequence, read_refusal(flags, body), None
                elif kind != NLMSG_DONE:
                    yield sequence, None, Reply(kind, body[0], body[4:])


def _pack(message: Message, sequence: int, flags: int) -> bytes:
    header = HEADER.pack(20 + len(message.body), message.kind, NLM_F_REQUEST | flags, sequence, 0)
    return header + _FAMILY.pack(message.family, 0, 0) + message.body


def _pack_edge(kind: int, sequence: int) -> bytes:
    return HEADER.pack(20, kind, NLM_F_REQUEST, sequence, 0) + _FAMILY.pack(
        0, 0, SUBSYSTEM_NFTABLES
    )


def _refused(what: str, refusal: Refusal) -> KernelRefused:
    hint = ""
    if refusal.errno == 1:
        hint = "root, or a network namespace of one's own, is needed"
    elif refusal.errno in (93, 95):  # EPROTONOSUPPORT, EOPNOTSUPP
        hint = "the kernel lacks nf_tables; set firewall to iptables or none"
    return KernelRefused(f"the kernel refuses {what}", refusal.words, hint, errno=refusal.errno)
