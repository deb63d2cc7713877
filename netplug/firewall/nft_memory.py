"""What was found whole, for as long as nobody else changes the ruleset.

nf_tables tells of every change before the call that makes it returns. While it tells of
none but our own, an agent need not read again, for each container, what all containers share.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from netplug.firewall.intent import Intent
from netplug.kernel.namespaces import netlink_socket
from netplug.kernel.netlink import NETLINK_ADD_MEMBERSHIP, SOL_NETLINK, senders, waiting

NETLINK_NETFILTER = 12
NFNLGRP_NFTABLES = 7


class Memory:
    """Intents that are whole in the namespace behind `fd`. Changes made through the netlink
    port `own` touch none of them. Safe to share between threads; close it."""

    def __init__(self, fd: int, own: int) -> None:
        self._own = own
        self._lock = threading.Lock()
        self._whole: set[Intent] = set()
        self._changes = 0  # of somebody else
        self._told = netlink_socket(fd, NETLINK_NETFILTER)
        self._told.bind((0, 0))  # a socket without a port of its own is told nothing
        self._told.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
        self._told.setblocking(False)

    def close(self) -> None:
        self._told.close()

    def holds(self, intent: Intent) -> bool:
        """Was the intent found whole, and has nobody changed anything since?"""
        with self._lock:
            self._catch_up()
            return intent in self._whole

    @contextmanager
    def making(self, intent: Intent) -> Iterator[None]:
        """Around reading the intent and changing what it lacks: it is whole afterwards,
        unless somebody else changed the ruleset meanwhile."""
        with self._lock:
            self._catch_up()
            began = self._changes
        yield
        with self._lock:
            self._catch_up()
            if self._changes == began:
                self._whole.add(intent)

    def forget(self) -> None:
        """Before a change of ours that takes away what may be known here."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        self._changes += 1
        self._whole.clear()

    def _catch_up(self) -> None:
        for data in waiting(self._told):
            if not data or any(sender != self._own for sender in senders(data)):
                self._forget()
