"""Bridges of a host and their addresses, as the kernel last told them.

rtnetlink notifies of every change before the system call that makes it returns. So what no
notification has spoken of is as it was read, and an agent need not read again, for each
container, what all containers share.
"""

from __future__ import annotations

import socket
import threading

from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.netlink import each_message, waiting
from netplug.kernel.rtmessages import (
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_NEWADDR,
    RTM_NEWLINK,
    HeldAddress,
    Link,
    index_of,
    index_of_address,
)
from netplug.kernel.rtnl import Rtnl

GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
IDLE = 16  # sockets kept: one for each thread that works at once
LINKS = (RTM_NEWLINK, RTM_DELLINK)
ADDRESSES = (RTM_NEWADDR, RTM_DELADDR)


class Mirror:
    """Of the namespace behind `fd`. Safe to share between threads; close it."""

    def __init__(self, fd: int) -> None:
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._addresses: dict[int, tuple[HeldAddress, ...]] = {}
        self._told = netlink_socket(fd, socket.NETLINK_ROUTE)
        self._told.bind((0, GROUPS))
        self._told.setblocking(False)

    def close(self) -> None:
        self._told.close()

    def link(self, rtnl: Rtnl, name: str) -> Link | None:
        """The link of this name; remembered where it is a bridge."""
        with self._lock:
            self._catch_up()
            found = self._links.get(name) or rtnl.link(name)
            if found is not None and found.kind == "bridge":
                self._links[name] = found
            return found

    def addresses(self, rtnl: Rtnl, link: Link) -> tuple[HeldAddress, ...]:
        """Addresses of a link; remembered where it is a bridge."""
        with self._lock:
            self._catch_up()
            found = self._addresses.get(link.index)
            if found is None:
                found = rtnl.addresses(link.index)
                if link.kind == "bridge":
                    self._addresses[link.index] = found
            return found

    def _catch_up(self) -> None:
        """Forgets whatever the kernel has spoken of since."""
        for data in waiting(self._told):
            if not data:
                self._links.clear()
                self._addresses.clear()
            for kind, _, _, body in each_message(data):
                if kind in LINKS:
                    self._forget(index_of(body))
                elif kind in ADDRESSES:
                    self._addresses.pop(index_of_address(body), None)

    def _forget(self, index: int) -> None:
        self._addresses.pop(index, None)
        for name in [name for name, link in self._links.items() if link.index == index]:
            del self._links[name]


class Warm:
    """What a host's agent keeps between requests: its mirror, and netlink sockets to take."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._idle: list[Rtnl] = []
        self.mirror = Mirror(fd)

    def take(self) -> Rtnl:
        try:
            return self._idle.pop()
        except IndexError:  # all are taken; `pop` is atomic, asking beforehand would not be
            return Rtnl(self._fd, prompt=True)

    def give_back(self, rtnl: Rtnl) -> None:
        if len(self._idle) < IDLE:
            rtnl.forget()
            self._idle.append(rtnl)
        else:
            rtnl.close()

    def close(self) -> None:
        self.mirror.close()
        while self._idle:
            self._idle.pop().close()
