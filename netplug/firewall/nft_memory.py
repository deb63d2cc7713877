"""What was found whole, for as long as nobody changes the ruleset.

nf_tables counts its changes (the generation of a namespace). While the count stays,
an agent need not read again, for each container, what all containers share.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from netplug.firewall.intent import Intent
from netplug.kernel.netlink import attributes
from netplug.kernel.nfnetlink import SUBSYSTEM_NFTABLES, Message, Nfnetlink, Reply

GETGEN = 16  # NFT_MSG_GETGEN
GEN_ID = 1  # NFTA_GEN_ID


class Memory:
    """Intents that were whole at the generation `_at`. Safe to share between threads."""

    def __init__(self, link: Nfnetlink) -> None:
        self._link = link
        self._lock = threading.Lock()
        self._at = -1
        self._whole: set[Intent] = set()

    def holds(self, intent: Intent) -> bool:
        """Was the intent found whole, and has nothing changed since?"""
        now = self._generation()
        with self._lock:
            if now != self._at:
                self._at = now
                self._whole.clear()
            return intent in self._whole

    @contextmanager
    def making(self, intent: Intent) -> Iterator[None]:
        """Around reading the intent and changing what it lacks: it is whole afterwards,
        unless somebody else changed the ruleset meanwhile."""
        with self._lock:
            began = self._at
        with self.changing():
            yield
        with self._lock:
            if self._at in (began, began + 1):
                self._whole.add(intent)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change of ours that touches nothing of what is known."""
        before = self._generation()
        yield
        after = self._generation()
        with self._lock:
            if self._at == before and after in (before, before + 1):
                self._at = after
            else:
                self._at = after
                self._whole.clear()

    def forget(self) -> None:
        with self._lock:
            self._at = -1
            self._whole.clear()

    def _generation(self) -> int:
        message = Message(SUBSYSTEM_NFTABLES << 8 | GETGEN, 0, 0, b"")
        (answer,) = self._link.ask([message])
        if not isinstance(answer, Reply):
            return -2  # never remembered
        return int(struct.unpack("!I", attributes(answer.body)[GEN_ID])[0])
