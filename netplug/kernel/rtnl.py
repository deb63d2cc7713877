"""rtnetlink in one network namespace: links, addresses, routes, queues, as plain values."""

from __future__ import annotations

import _thread
import errno
import queue
import socket
from collections.abc import Sequence
from typing import Any

from netplug.errors import KernelRefused
from netplug.kernel import rtmessages as rt
from netplug.kernel import tcmessages as tc
from netplug.kernel.namespaces import cookie_of, netlink_socket
from netplug.kernel.netlink import (
    HEADER,
    NETLINK_CAP_ACK,
    NETLINK_EXT_ACK,
    NETLINK_GET_STRICT_CHK,
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
)
from netplug.kernel.rtmessages import HeldAddress, Link, Message
from netplug.model import IPInterface, Route

RTPROT_RA = 9
RTMGRP_LINK = 1
EVENT_SECONDS = 0.2  # far beyond the 0.7 ms of a notification; then the acknowledgement counts
DUMP_TRIES = 10
# ENXIO: the link has no IPv6 at all, and so no address
GONE = (errno.ENODEV, errno.ENOENT, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO)
HINTS = {
    errno.EPERM: "root, or a network namespace of one's own, is needed",
    errno.ENETUNREACH: "the gateway must be reachable through an address of this interface",
    errno.EHOSTUNREACH: "the gateway must be reachable through an address of this interface",
    errno.EOPNOTSUPP: "this kernel lacks that kind of link",
    errno.EADDRINUSE: "another interface on the same parent has this MAC: choose another one",
}


class Rtnl:
    """Reads and changes the namespace behind `fd`. The kernel answers inside send(2)."""

    def __init__(self, fd: int, *, prompt: bool = False) -> None:
        self.fd = fd
        self._prompt = prompt
        self._socket = netlink_socket(fd, socket.NETLINK_ROUTE)
        self._sequence = 1
        self.forget()
        for option in (NETLINK_CAP_ACK, NETLINK_EXT_ACK, NETLINK_GET_STRICT_CHK):
            self._socket.setsockopt(SOL_NETLINK, option, 1)

    def close(self) -> None:
        self._socket.close()

    @property
    def cookie(self) -> int:
        """Of the namespace; see `namespaces.cookie`."""
        return cookie_of(self._socket)

    def forget(self) -> None:
        """Before another request uses it: indexes of links may have changed meanwhile."""
        self._indexes = {"lo": 1}  # loopback is born first in every namespace

    # --- requests

    def change(self, *messages: Message, tolerate: tuple[int, ...] = ()) -> list[int]:
        """Sends all in one go, in order; for each the error number it was tolerated with, or 0.

        Raises KernelRefused for the first other refusal; later messages have run by then.
        """
        first = self._sequence
        self._sequence += len(messages)
        packed = (_pack(m, first + i, NLM_F_ACK) for i, m in enumerate(messages))
        self._socket.send(b"".join(packed))
        answers: dict[int, Refusal | None] = {}
        while len(answers) < len(messages):
            for kind, flags, sequence, body in each_message(self._socket.recv(RECEIVE)):
                if kind == NLMSG_ERROR and sequence >= first:
                    answers[sequence - first] = read_refusal(flags, body)
        found = []
        for index, message in enumerate(messages):
            refusal = answers[index]
            if refusal is not None and refusal.errno not in tolerate:
                raise _refused(message.what, refusal)
            found.append(refusal.errno if refusal else 0)
        return found

    def _get(self, message: Message) -> bytes | Refusal:
        sequence = self._take()
        self._socket.send(_pack(message, sequence, 0))
        while True:
            for kind, flags, number, body in each_message(self._socket.recv(RECEIVE)):
                if number == sequence:
                    refusal = read_refusal(flags, body) if kind == NLMSG_ERROR else None
                    return refusal or body

    def dump(self, message: Message) -> list[bytes]:
        """Bodies of all objects; read again when the kernel says that they changed meanwhile."""
        for _ in range(DUMP_TRIES):
            bodies, consistent = self._dump(message)
            if consistent:
                break
        return bodies  # a list that keeps changing is still the best there is

    def _dump(self, message: Message) -> tuple[list[bytes], bool]:
        sequence = self._take()
        self._socket.send(_pack(message, sequence, NLM_F_DUMP))
        bodies: list[bytes] = []
        consistent = True
        while True:
            for kind, flags, number, body in each_message(self._socket.recv(RECEIVE)):
                if number != sequence:
                    continue
                consistent = consistent and not flags & NLM_F_DUMP_INTR
                if kind == NLMSG_DONE:
                    return bodies, consistent
                if kind == NLMSG_ERROR:
                    refusal = read_refusal(flags, body)
                    if refusal is not None and refusal.errno not in GONE:
                        raise _refused(message.what, refusal)
                    return bodies, consistent
                bodies.append(body)

    def _take(self) -> int:
        self._sequence += 1
        return self._sequence - 1

    # --- links

    def links(self) -> tuple[Link, ...]:
        return tuple(rt.parse_link(body) for body in self.dump(rt.get_links()))

    def link(self, name: str) -> Link | None:
        """The link of this name, or None."""
        message = rt.get_link(name)
        answer = self._get(message)
        if isinstance(answer, bytes):
            found = rt.parse_link(answer)
            self._indexes[name] = found.index
            return found
        if answer.errno == errno.ENODEV:
            self._indexes.pop(name, None)
            return None
        raise _refused(message.what, answer)

    def index(self, name: str) -> int | None:
        """Index of the link of this name; asked once, for it is what later requests name."""
        if name not in self._indexes:
            link = self.link(name)
            if link is None:
                return None
            self._indexes[name] = link.index
        return self._indexes[name]

    def nsid(self, fd: int) -> int:
        """This namespace's number for the one behind `fd`; -1 where no link leads there."""
        answer = self._get(rt.get_nsid(fd))
        return rt.parse_nsid(answer) if isinstance(answer, bytes) else -1

    def delete_link(self, index: int) -> None:
        """Deletes a link; silent when it is gone. With `prompt`, returns on its notification."""
        self._indexes.clear()
        if self._prompt:
            _delete_promptly(self.fd, index)
        else:
            self.change(rt.delete_link(index), tolerate=GONE)

    # --- addresses

    def addresses(self, index: int) -> tuple[HeldAddress, ...]:
        """Addresses of one link, link-local ones included."""
        return tuple(rt.parse_address(body) for body in self.dump(rt.get_addresses(index)))

    def add_addresses(
        self, index: int, addresses: Sequence[IPInterface], *, nodad: bool, up: bool = False
    ) -> bool:
        """Adds addresses and, with `up`, raises the link first; whether any was absent."""
        messages = [rt.new_address(index, address, nodad=nodad) for address in addresses]
        raised = [rt.set_up(index)] if up else []
        if not messages and not raised:
            return False
        answers = self.change(*raised, *messages, tolerate=(errno.EEXIST,))
        return any(not answer for answer in answers[len(raised) :])

    def delete_addresses(self, index: int, addresses: Sequence[IPInterface]) -> None:
        if addresses:
            self.change(*(rt.delete_address(index, a) for a in addresses), tolerate=GONE)

    # --- routes

    def routes(self, index: int | None = None) -> tuple[Route, ...]:
        """Unicast routes of all tables, of one link when `index` is given."""
        return tuple(held.route for held in self._routes(4, 6) if index in (None, held.oif))

    def _routes(self, *versions: int) -> list[rt.HeldRoute]:
        bodies = [body for version in versions for body in self.dump(rt.get_routes(version))]
        return [held for body in bodies for held in rt.parse_routes(body)]

    def add_routes(self, index: int, routes: Sequence[Route]) -> bool:
        """Adds routes; an identical one that is there already is fine. Whether any was absent."""
        messages = (rt.new_route(index, route) for route in routes)
        return any(not answer for answer in self.change(*messages, tolerate=(errno.EEXIST,)))

    def delete_routes(self, index: int, routes: Sequence[Route]) -> None:
        self.change(*(rt.delete_route(index, route) for route in routes), tolerate=GONE)

    def default_interface(self) -> Link | None:
        """The link of the preferred default route, IPv4 first."""
        for version in (4, 6):
            defaults = [h for h in self._routes(version) if not h.route.dst.prefixlen]
            if defaults:
                best = min(defaults, key=lambda held: held.route.priority or 0)
                return next((link for link in self.links() if link.index == best.oif), None)
        return None

    def ra_interfaces(self) -> tuple[str, ...]:
        """Names of links with routes learned from router advertisements (proto ra)."""
        indexes = {held.oif for held in self._routes(6) if held.protocol == RTPROT_RA}
        if not indexes:
            return ()
        return tuple(sorted(link.name for link in self.links() if link.index in indexes))

    # --- queues

    def rate(self, index: int) -> int:
        """Bytes/s that the token bucket of a link lets through; 0 without one."""
        for body in self.dump(tc.get_qdiscs(index)):
            link, kind, rate = tc.parse_qdisc(body)
            if link == index and kind == "tbf":
                return rate
        return 0

    def redirected(self, index: int) -> bool:
        """Is what the link receives filtered (its ingress has a filter)?"""
        return bool(self.dump(tc.get_filters(index)))


def _delete_promptly(fd: int, index: int) -> None:
    """Deletes a link and returns when both its ends are gone.

    The request is acknowledged after 25 ms, when RCU has settled; the notification comes
    after 0.7 ms, and then the names and addresses are free already. The request waits in
    a thread of its own; where it is refused, its error is raised here.
    """
    outcome: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def delete() -> None:
        try:
            rtnl = Rtnl(fd)
            try:
                rtnl.change(rt.delete_link(index), tolerate=GONE)
            finally:
                rtnl.close()
            outcome.put(None)
        except BaseException as error:  # handed to the caller's thread
            outcome.put(error)

    with netlink_socket(fd, socket.NETLINK_ROUTE) as events:
        events.bind((0, RTMGRP_LINK))
        events.settimeout(EVENT_SECONDS)
        # `threading.Thread` would have us wait until it has begun.
        _thread.start_new_thread(delete, ())
        try:
            while not _tells_deletion(events.recv(RECEIVE), index):
                pass
            return
        except OSError:  # no notification (the link was gone), or too many of them
            pass
    refusal = outcome.get()
    if refusal is not None:
        raise refusal


def _tells_deletion(data: bytes, index: int) -> bool:
    return any(
        kind == rt.RTM_DELLINK and rt.index_of(body) == index
        for kind, _, _, body in each_message(data)
    )


def _pack(message: Message, sequence: int, flags: int) -> bytes:
    length = HEADER.size + len(message.body)
    flags |= NLM_F_REQUEST | message.flags
    padding = b"\0" * (-length & 3)
    return HEADER.pack(length, message.kind, flags, sequence, 0) + message.body + padding


def _refused(what: str, refusal: Refusal) -> KernelRefused:
    return KernelRefused(what, refusal.words, HINTS.get(refusal.errno, ""), errno=refusal.errno)


def set_vlans(fd: int, index: int, *, add: dict[int, bool], remove: Sequence[int]) -> None:
    """VLANs of a bridge port: `add` says for each id whether it is the port's own (PVID).

    Seldom wanted, so pyroute2 packs it, and is imported for it.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    with netlink_socket(fd, socket.NETLINK_ROUTE) as netlink:
        route = IPRoute(fileno=netlink.detach())
        try:
            for vid in remove:
                _vlan(route, "del", index, {"vid": vid})
            for vid, own in add.items():
                _vlan(route, "add", index, {"vid": vid, "flags": 0x2 | 0x4 if own else 0})
        except NetlinkError as error:
            raise KernelRefused(
                f"VLANs of bridge port {index} cannot be set", str(error), errno=error.code
            ) from error
        finally:
            route.close()


def _vlan(route: Any, command: str, index: int, info: dict[str, int]) -> None:
    route.vlan_filter(command, index=index, vlan_info=info)
