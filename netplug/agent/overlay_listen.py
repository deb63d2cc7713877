"""Threads that wait for the overlay loop: for the store, the lease, the kernel."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable

from netplug.errors import NetplugError
from netplug.kernel import tunnels
from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.netlink import each_message
from netplug.store import Deleted, Lease, Put, Resync, Watch

# RTMGRP_LINK, RTMGRP_NEIGH, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE
GROUPS = 0x1 | 0x4 | 0x40 | 0x400
log = logging.getLogger("netplug.overlay")


class Watcher:
    """Tells of every change of the store; of an empty list where changes were lost."""

    def __init__(self, watch: Watch, tell: Callable[[list[Put | Deleted]], None]) -> None:
        self._watch, self._tell = watch, tell
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="overlay-watch", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._watch.close()

    def _run(self) -> None:
        try:
            for event in self._watch:
                if self._closed:
                    return
                if isinstance(event, Resync):
                    log.info("the store is listed anew: %s", event.why)
                    break
                self._tell([event])
        except NetplugError as error:
            log.warning("the watch ended: %s", error)
        if not self._closed:
            self._tell([])


class Keeper:
    """Refreshes the lease three times in its life."""

    def __init__(self, lease: Lease, tell: Callable[[bool, str], None]) -> None:
        self._lease, self._tell = lease, tell
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="overlay-lease", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(self._lease.seconds / 3):
            try:
                alive, why = self._lease.refresh(), ""
            except NetplugError as error:
                alive, why = True, str(error)
            if self._closed.is_set():
                return
            self._tell(alive, why)
            if not alive:
                return


class LinkEvents:
    """Tells of links that changed, and of links that lost an entry."""

    def __init__(self, fd: int, tell: Callable[[str, int], None]) -> None:
        self._tell = tell
        self._socket = netlink_socket(fd, socket.NETLINK_ROUTE)
        self._socket.bind((0, GROUPS))
        self._socket.settimeout(1.0)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="overlay-links", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        while not self._closed:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            except OSError:  # more came than the socket holds: look at everything
                self._tell("", -1)
                continue
            for kind, _, _, body in each_message(data):
                name, index = tunnels.changed_link(kind, body)
                if name or index:
                    self._tell(name, index)
