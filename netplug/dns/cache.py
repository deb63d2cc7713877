"""Replies of upstream servers, kept as long as their TTL says, bounded in number and bytes. Pure.

One cache belongs to one set of upstream servers, so that what a network's own server says is
never told to another network.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from netplug.dns import wire

TTL_LIMIT = 3600  # seconds, whatever a server says
NEGATIVE_LIMIT = 300
FAILURE_SECONDS = 1  # RFC 9520 section 3.2: at least one second

Key = tuple[bytes, bool, bool]  # question in lower case; DNSSEC OK; checking disabled


@dataclass(frozen=True, slots=True)
class Kept:
    message: bytes  # without OPT
    ttls: tuple[int, ...]
    since: float
    until: float


class Cache:
    """The least recently used go first."""

    def __init__(self, *, entries: int = 10_000, size: int = 8 << 20) -> None:
        self._entries, self._size = entries, size
        self._kept: OrderedDict[Key, Kept] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, now: float) -> bytes | None:
        """The message with its TTLs as they are by now."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return wire.age(kept.message, kept.ttls, int(now - kept.since))

    def put(self, key: Key, message: bytes, reply: wire.Reply, now: float) -> None:
        seconds = lifetime(reply)
        if seconds <= 0 or len(message) > self._size // 8:
            return
        self._drop(key)
        self._kept[key] = Kept(message, reply.ttls, now, now + seconds)
        self.bytes += len(message)
        while len(self._kept) > self._entries or self.bytes > self._size:
            self._drop(next(iter(self._kept)))

    def clear(self) -> None:
        self._kept.clear()
        self.bytes = 0

    def _drop(self, key: Key) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.bytes -= len(kept.message)


def lifetime(reply: wire.Reply) -> int:
    """Seconds that a reply may be kept (RFC 2308); 0: not at all."""
    if reply.rcode == wire.SERVFAIL:
        return FAILURE_SECONDS
    if reply.rcode not in (wire.NOERROR, wire.NXDOMAIN) or reply.ttl is None:
        return 0  # a negative one without SOA is not to be kept
    positive = reply.rcode == wire.NOERROR
    return min(reply.ttl, TTL_LIMIT if positive else NEGATIVE_LIMIT)
