"""Packets of our own: echo, connections, names, captures. No program is needed in the lab."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from netplug.kernel.namespaces import in_namespace

ANSWER_SECONDS = 0.5  # here an answer takes a millisecond, on a busy machine some more
TRIES = 2  # the first packet may wait for ARP, or be the one that random loss takes
IP_MTU_DISCOVER, IP_PMTUDISC_DONT = 10, 0
IP_PMTUDISC_PROBE = 3  # don't fragment, and no remembered path MTU
IP_RECVERR, IPV6_RECVERR = 11, 25
ECHO, ECHO_REPLY, ECHO6, ECHO6_REPLY = 8, 0, 128, 129
IP_HEADER, ICMP_HEADER = 20, 8
SO_REUSE = (socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
WHY = {
    errno.ENETUNREACH: "no route: the kernel does not even send it",
    errno.EHOSTUNREACH: "nobody answered the question who has the next address (ARP)",
    errno.EACCES: "a route or rule prohibits it",
    errno.EPERM: "a firewall rule of the sender drops it",
    errno.EINVAL: "a blackhole route swallows it",
    errno.EMSGSIZE: "larger than the MTU of the way",
    errno.ECONNREFUSED: "refused: it arrived, and nobody listens, or a rule rejects",
    errno.EADDRNOTAVAIL: "the sender has no address for it",
}
SILENT = "sent, and no answer came: lost on the way there, or back"


@dataclass(frozen=True, slots=True)
class Outcome:
    """`source` is the sender's address as the receiver saw it; `errno` 0 for mere silence."""

    ok: bool
    why: str = ""
    errno: int = 0
    source: str = ""


def _refused(error: OSError) -> Outcome:
    number = error.errno or 0
    return Outcome(False, WHY.get(number, error.strerror or ""), number)


def _checksum(data: bytes) -> int:
    data += b"\0" * (len(data) & 1)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


def echo(
    fd: int, target: str, *, size: int = 84, tries: int = TRIES, whole: bool = True
) -> Outcome:
    """ICMP echo out of the namespace; `size` in bytes with the IP header.

    `whole`: it may not be fragmented (DF).
    """
    v6 = ":" in target
    family, protocol = (socket.AF_INET6, 58) if v6 else (socket.AF_INET, 1)

    def make() -> socket.socket:
        return socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)

    with in_namespace(fd, make) as carrier:
        level = socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP
        carrier.setsockopt(level, IPV6_RECVERR if v6 else IP_RECVERR, 1)
        if not v6 and whole:
            carrier.setsockopt(level, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE)
        if not v6 and not whole:
            carrier.setsockopt(level, IP_MTU_DISCOVER, IP_PMTUDISC_DONT)
        payload = os.urandom(8).ljust(max(8, size - IP_HEADER - ICMP_HEADER), b".")
        outcome = Outcome(False, SILENT)
        for sequence in range(1, tries + 1):
            outcome = _echo_once(carrier, target, payload, sequence)
            if outcome.ok or outcome.errno in (errno.ENETUNREACH, errno.EMSGSIZE):
                break
        return outcome


def burst(fd: int, target: str, count: int) -> Outcome:
    """That many echoes, each sent once; the first that is lost decides."""
    if not (outcome := echo(fd, target)).ok:  # the first one may wait for ARP
        return outcome
    for number in range(1, count + 1):
        if not (outcome := echo(fd, target, tries=1)).ok:
            return Outcome(False, f"packet {number} of {count} was lost", outcome.errno)
    return outcome


def _echo_once(carrier: socket.socket, target: str, payload: bytes, sequence: int) -> Outcome:
    v6 = carrier.family == socket.AF_INET6
    kind = ECHO6 if v6 else ECHO
    mark = os.getpid() & 0xFFFF
    packet = struct.pack("!BBHHH", kind, 0, 0, mark, sequence) + payload
    if not v6:  # the kernel sums ICMPv6 itself
        packet = packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:]
    deadline = time.monotonic() + ANSWER_SECONDS
    try:
        carrier.sendto(packet, (target, 0))
        while (left := deadline - time.monotonic()) > 0:
            carrier.settimeout(left)
            data, (source, *_) = carrier.recvfrom(65535)
            body = data if v6 else data[(data[0] & 15) * 4 :]
            reply = ECHO6_REPLY if v6 else ECHO_REPLY
            if body[0] == reply and body[8 : 8 + len(payload)] == payload:
                return Outcome(True, "answered", 0, source)
    except TimeoutError:
        pass
    except OSError as error:
        return _refused(error)
    return Outcome(False, SILENT)


@dataclass(frozen=True, slots=True)
class Target:
    """`address`:`port` is where it is sent, `listener`:`listen_port` who should get it."""

    address: str
    port: int
    listener: int
    listen_port: int
    protocol: Literal["tcp", "udp"] = "tcp"
    data: int = 0  # bytes to send beside the question, over TCP


def exchange(fd: int, target: Target) -> Outcome:
    """A question and its answer, over TCP or UDP; `source` as the listener saw it.

    Where a program of the student listens already, a TCP connection to it is enough.
    """
    kind = socket.SOCK_STREAM if target.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in target.address else socket.AF_INET

    def listen() -> socket.socket:
        server = socket.socket(family, kind)
        server.setsockopt(*SO_REUSE)
        try:
            server.bind(("", target.listen_port))
        except OSError:
            server.close()
            raise
        if target.protocol == "tcp":
            server.listen()
        return server

    try:
        server = in_namespace(target.listener, listen)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return _connect(fd, family, target)
    with server:
        return _converse(fd, family, target, server)


def _connect(fd: int, family: int, target: Target) -> Outcome:
    """Only whether somebody takes the connection."""
    with in_namespace(fd, lambda: socket.socket(family, socket.SOCK_STREAM)) as client:
        client.settimeout(ANSWER_SECONDS)
        try:
            client.connect((target.address, target.port))
            return Outcome(True, "connected", 0, "")
        except TimeoutError:
            return Outcome(False, SILENT)
        except OSError as error:
            return _refused(error)


def _converse(fd: int, family: int, target: Target, server: socket.socket) -> Outcome:
    nonce = os.urandom(8)
    end = os.eventfd(0, os.EFD_CLOEXEC)
    answering = threading.Thread(
        target=_answer, args=(server, nonce, target.data, end), daemon=True
    )
    answering.start()
    with in_namespace(fd, lambda: socket.socket(family, server.type)) as client:
        try:
            return _question(client, target, nonce)
        finally:
            os.eventfd_write(end, 1)
            answering.join()
            os.close(end)


def _answer(server: socket.socket, nonce: bytes, data: int, end: int) -> None:
    """Tells the asker the address that he was seen with; until `end` can be read."""
    tcp = server.type == socket.SOCK_STREAM
    watched: list[socket.socket | int] = [server, end]
    while end not in select.select(watched, [], [])[0]:
        try:
            if tcp:
                peer, address = server.accept()
                with peer:
                    peer.settimeout(ANSWER_SECONDS)
                    if _receive(peer, len(nonce) + data).startswith(nonce):
                        peer.sendall(nonce + address[0].encode())
                        return
            else:
                question, address = server.recvfrom(64)
                if question == nonce:
                    server.sendto(nonce + address[0].encode(), address)
                    return
        except OSError:
            return


def _receive(peer: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (part := peer.recv(1 << 16)):
        found += part
    return found


def _question(client: socket.socket, target: Target, nonce: bytes) -> Outcome:
    tries = 1 if target.protocol == "tcp" else TRIES
    client.settimeout(ANSWER_SECONDS * TRIES / tries)
    try:
        client.connect((target.address, target.port))
        for _ in range(tries):
            client.sendall(nonce + bytes(target.data))
            try:
                data = client.recv(200)
            except TimeoutError:
                continue
            if data.startswith(nonce):
                return Outcome(True, "answered", 0, data[len(nonce) :].decode())
            return Outcome(False, "somebody else answered")
    except TimeoutError:
        pass
    except OSError as error:
        return _refused(error)
    return Outcome(False, SILENT)


# --- captures

ETH_P_ALL, SOL_PACKET, PACKET_STATISTICS = 3, 263, 6
ETHERTYPES = {"arp": 0x0806, "ipv4": 0x0800, "ipv6": 0x86DD}
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17}
LINGER = 0.15  # seconds in which a packet sent may still come by


@contextmanager
def capture(fd: int, device: str) -> Iterator[Callable[[], list[bytes]]]:
    """Frames of a link, in both directions; the function gives those seen since."""

    def make() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC)
        tap.bind((device, ETH_P_ALL))
        return tap

    with in_namespace(fd, make) as tap:

        def read() -> list[bytes]:
            frames = []
            while select.select([tap], [], [], LINGER)[0]:
                frames.append(tap.recv(65535))
            return frames

        yield read


def fits(frame: bytes, proto: str, port: int | None) -> bool:
    """Is it a packet of that protocol, to or from that port? Or a "fragment" of any IPv4 one?"""
    ethertype = int.from_bytes(frame[12:14], "big")
    if proto in ETHERTYPES:
        return ethertype == ETHERTYPES[proto]
    if ethertype != ETHERTYPES["ipv4"] or len(frame) < 34:
        return False
    if proto == "fragment":
        return bool(int.from_bytes(frame[20:22], "big") & 0x3FFF)  # more follow, or an offset
    if frame[23] != PROTOCOLS[proto]:
        return False
    start = 14 + (frame[14] & 15) * 4
    return port is None or port in struct.unpack_from("!HH", frame, start)
