"""Which processes of a namespace hold ports: NETLINK_SOCK_DIAG, sock_diag(7).

Hand-packed: one request of 72 bytes and a fixed answer, on the path of each ADD that
publishes a port, where importing the library would cost more than the question.
The structures are inet_diag_req_v2 and inet_diag_msg of linux/inet_diag.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from netplug.errors import Conflict, KernelRefused
from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.netlink import (
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    attributes,
    each_message,
    read_refusal,
)
from netplug.model import Family, IPAddress, Protocol

Request = tuple[Family, IPAddress | None, Protocol, int]  # host address None: every address

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
TCP_CLOSE, TCP_LISTEN = 7, 10  # a UDP socket that is bound and not connected is in CLOSE
INET_DIAG_SKV6ONLY = 11

_REQUEST = struct.Struct("=BBBxI HH 16s 16s I II")  # inet_diag_req_v2
_ANSWER = struct.Struct(">4x H 2x 16s 16x")  # inet_diag_msg up to idiag_dst: network order
_OWNER = struct.Struct("=4x 8x 12x II")  # its rest: idiag_if, cookie, ..., uid, inode
_NO_COOKIE = 0xFFFF_FFFF

_PROTOCOLS: dict[Protocol, tuple[int, int]] = {  # number, state of a socket that waits for peers
    "tcp": (socket.IPPROTO_TCP, TCP_LISTEN),
    "udp": (socket.IPPROTO_UDP, TCP_CLOSE),
    "sctp": (socket.IPPROTO_SCTP, TCP_LISTEN),
}
_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


@dataclass(frozen=True, slots=True)
class Listener:
    """A socket that waits on a port. `pid` and `command` are filled in by `read_processes`."""

    address: IPAddress
    port: int
    protocol: Protocol
    inode: int
    uid: int = 0
    dual_stack: bool = False  # an IPv6 wildcard socket that takes IPv4 as well
    pid: int | None = None
    command: str = ""

    def __str__(self) -> str:
        if self.pid is not None:
            return f"{self.command or 'process'} (PID {self.pid})"
        # Sockets of the kernel (tunnels, NFS) look like those of processes that we may not see.
        return f"the kernel, or a process of uid {self.uid} that cannot be seen from here,"


def listeners(
    fd: int, *, family: Family, protocol: Protocol, port: int = 0
) -> tuple[Listener, ...]:
    """Sockets that IPv4 (or IPv6) traffic to `port` may reach in the namespace behind `fd`.

    Listening TCP and SCTP sockets, and bound UDP sockets that are not connected. Port 0
    is every port. For IPv4 the answer includes dual-stack IPv6 sockets. Empty where the
    kernel lacks the protocol. Raises KernelRefused.
    """
    with netlink_socket(fd, NETLINK_SOCK_DIAG) as netlink:
        return tuple(
            listener
            for source in _sources({family})
            for listener in _dump(netlink, source, protocol, port)
            if listener.dual_stack or listener.address.version == family
        )


def read_conflicts(fd: int, requested: Sequence[Request]) -> tuple[tuple[Request, Listener], ...]:
    """Requested ports that processes of the namespace hold, each with its process.

    One dump for each family and protocol, however many ports; /proc is read only when
    there is a conflict.
    """
    found: list[Listener] = []
    with netlink_socket(fd, NETLINK_SOCK_DIAG) as netlink:
        for protocol in dict.fromkeys(request[2] for request in requested):
            ports = {request[3] for request in requested if request[2] == protocol}
            port = ports.pop() if len(ports) == 1 else 0
            for source in _sources({r[0] for r in requested if r[2] == protocol}):
                found += _dump(netlink, source, protocol, port)
    conflicts = compute_conflicts(requested, found)
    if not conflicts:
        return ()
    known = read_processes(tuple(listener for _, listener in conflicts))
    return tuple(zip((request for request, _ in conflicts), known, strict=True))


NAME_SERVER = "netplug.dns"  # in the command line of our own


def check_free(fd: int, requested: Sequence[Request], *, container: str = "") -> None:
    """Raises Conflict with the process that holds one of the requested ports.

    A process whose command line names the container is its engine's: podman's conmon
    holds published ports with sockets that nobody answers.
    """
    for (_, _, protocol, port), listener in read_conflicts(fd, requested):
        if container and _mentions(listener.pid, container):
            continue
        address = listener.address
        where = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        if _mentions(listener.pid, NAME_SERVER):
            raise Conflict(
                f"port {port}/{protocol} is taken",
                f"netplug's name server answers containers on {where}",
                f"publish it on one address of the host (ADDRESS:{port}:PORT), or set names: false"
                " in the networks of this host",
            )
        raise Conflict(
            f"port {port}/{protocol} is taken",
            f"{listener} listens on {where}",
            "publish another port of the host, or stop that process first",
        )


def compute_conflicts(
    requested: Sequence[Request], found: Iterable[Listener]
) -> tuple[tuple[Request, Listener], ...]:
    """Pairs that bind(2) would refuse: same protocol and port, same address or a wildcard.

    A requested IPv6 wildcard is IPv6 alone; a dual-stack listener takes both families.
    """
    by_port: dict[tuple[Protocol, int], list[Listener]] = {}
    for listener in found:
        by_port.setdefault((listener.protocol, listener.port), []).append(listener)
    return tuple(
        (request, listener)
        for request in requested
        for listener in by_port.get((request[2], request[3]), ())
        if _meet(request[0], request[1], listener)
    )


def _meet(family: Family, host_ip: IPAddress | None, listener: Listener) -> bool:
    if listener.dual_stack:
        return True
    if listener.address.version != family:
        return False
    if host_ip is None or host_ip.is_unspecified or listener.address.is_unspecified:
        return True
    return host_ip == listener.address


def read_processes(found: Sequence[Listener]) -> tuple[Listener, ...]:
    """The same listeners with `pid` and `command`, as far as /proc shows them to this user."""
    wanted = {f"socket:[{listener.inode}]": listener.inode for listener in found if listener.inode}
    owners: dict[int, int] = {}
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        if len(owners) == len(wanted):
            break
        for target in _descriptors(pid):
            if target in wanted:
                owners.setdefault(wanted[target], pid)
    return tuple(
        replace(listener, pid=owners[listener.inode], command=_command(owners[listener.inode]))
        if listener.inode in owners
        else listener
        for listener in found
    )


def _descriptors(pid: int) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:  # ended, or another user's
        return
    for name in names:
        try:
            yield os.readlink(f"{folder}/{name}")
        except OSError:
            continue


def _mentions(pid: int | None, word: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return word.encode() in file.read().split(b"\0")
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _sources(families: set[Family]) -> tuple[Family, ...]:
    """The kinds of socket that traffic of these families may reach: IPv4 ends in IPv6 ones too."""
    return (4, 6) if 4 in families else (6,)


def _dump(
    netlink: socket.socket, family: Family, protocol: Protocol, port: int
) -> Iterator[Listener]:
    if protocol == "sctp" and not os.path.exists("/proc/net/sctp"):
        return  # no such sockets yet, and asking would make the kernel load the module
    number, state = _PROTOCOLS[protocol]
    body = _REQUEST.pack(
        _FAMILIES[family], number, 0, 1 << state,
        socket.htons(port), 0, b"", b"", 0, _NO_COOKIE, _NO_COOKIE,
    )  # fmt: skip
    size, flags = HEADER.size + len(body), NLM_F_REQUEST | NLM_F_DUMP
    netlink.send(HEADER.pack(size, SOCK_DIAG_BY_FAMILY, flags, 0, 0) + body)
    for message in _messages(netlink, protocol):
        yield _parse_listener(message, protocol)


def _messages(netlink: socket.socket, protocol: Protocol) -> Iterator[bytes]:
    """Payloads of one dump. NLMSG_DONE carries an error as NLMSG_ERROR does."""
    while True:
        for kind, _, _, payload in each_message(netlink.recv(1 << 16)):
            if kind not in (NLMSG_ERROR, NLMSG_DONE):
                yield payload
                continue
            refusal = read_refusal(0, payload) if payload else None
            if refusal and refusal.errno != errno.ENOENT:  # ENOENT: no such protocol in this kernel
                raise KernelRefused(
                    f"{protocol} sockets cannot be listed", refusal.words, errno=refusal.errno
                )
            return


def _parse_listener(message: bytes, protocol: Protocol) -> Listener:
    port, raw = _ANSWER.unpack_from(message)
    uid, inode = _OWNER.unpack_from(message, _ANSWER.size)
    plain = message[0] == socket.AF_INET
    address: IPAddress = IPv4Address(raw[:4]) if plain else IPv6Address(raw)
    dual = not plain and address.is_unspecified and not _v6only(message)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return Listener(address, port, protocol, inode, uid=uid, dual_stack=dual)


def _v6only(message: bytes) -> bool:
    found = attributes(message, _ANSWER.size + _OWNER.size)
    return any(found.get(INET_DIAG_SKV6ONLY, b""))
