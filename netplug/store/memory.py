"""The store in memory: for tests, and as the plainest statement of what a store does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from netplug.store import Deleted, Entry, Event, Lease, Put, Resync, unreachable


class MemoryStore:
    """Shared by threads of one process. `clock` counts seconds and never goes back.

    `cut` makes every method raise Unreachable, as a store does whose network is gone.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self._entries: dict[str, tuple[Entry, MemoryLease | None]] = {}
        self._history: list[Put | Deleted] = []
        self._revision = 0
        self._compacted = 0
        self.cut = False

    def get(self, key: str) -> Entry | None:
        with self._settled("get"):
            held = self._entries.get(key)
            return held[0] if held else None

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        with self._settled("list"):
            found = [
                self._entries[key][0] for key in sorted(self._entries) if key.startswith(prefix)
            ]
            return found, self._revision

    def create(self, key: str, value: bytes, lease: Lease | None = None) -> int | None:
        with self._settled("create"):
            return None if key in self._entries else self._put(key, value, lease)

    def replace(
        self, key: str, value: bytes, revision: int, lease: Lease | None = None
    ) -> int | None:
        with self._settled("replace"):
            held = self._entries.get(key)
            if held is None or held[0].revision != revision:
                return None
            return self._put(key, value, lease)

    def delete(self, key: str, revision: int | None = None) -> bool:
        with self._settled("delete"):
            held = self._entries.get(key)
            if held is None or revision not in (None, held[0].revision):
                return False
            self._remove(key)
            return True

    def lease(self, seconds: float) -> Lease:
        with self._settled("lease"):
            return MemoryLease(self, seconds, self._clock() + seconds)

    def watch(self, prefix: str, after: int) -> MemoryWatch:
        return MemoryWatch(self, prefix, after)

    def close(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def compact(self) -> None:
        """Forgets the history up to now."""
        with self._changed:
            self._compacted = self._revision
            self._history.clear()

    # common

    def _settled(self, what: str) -> threading.Condition:
        """The lock, with what has expired gone."""
        if self.cut:
            raise unreachable(what, "it was cut off")
        with self._changed:
            now = self._clock()
            for key, (_, lease) in tuple(self._entries.items()):
                if lease is not None and lease.until <= now:
                    self._remove(key)
        return self._changed

    def _put(self, key: str, value: bytes, lease: Lease | None) -> int:
        assert lease is None or isinstance(lease, MemoryLease)
        self._revision += 1
        self._entries[key] = Entry(key, value, self._revision), lease
        self._history.append(Put(key, value, self._revision))
        self._changed.notify_all()
        return self._revision

    def _remove(self, key: str) -> None:
        del self._entries[key]
        self._revision += 1
        self._history.append(Deleted(key, self._revision))
        self._changed.notify_all()


@dataclass(eq=False, slots=True)
class MemoryLease:
    store: MemoryStore
    seconds: float
    until: float

    def refresh(self) -> bool:
        with self.store._settled("lease"):
            if self.until <= self.store._clock():
                return False
            self.until = self.store._clock() + self.seconds
            return True

    def release(self) -> None:
        with self.store._settled("lease"):
            self.until = 0
        with self.store._settled("lease"):
            pass


class MemoryWatch:
    def __init__(self, store: MemoryStore, prefix: str, after: int) -> None:
        self._store, self._prefix, self._after = store, prefix, after
        self._closed = False

    def close(self) -> None:
        self._closed = True
        self._store.close()

    def __iter__(self) -> Iterator[Event]:
        store = self._store
        while True:
            with store._changed:
                if self._closed:
                    return
                if self._after < store._compacted:
                    yield Resync(f"revision {self._after} was compacted")
                    return
                if not store.cut:
                    store._settled("watch")
                news = [] if store.cut else [e for e in store._history if e.revision > self._after]
                if not news:
                    store._changed.wait(0.02)  # a lease may expire meanwhile
                    continue
                self._after = news[-1].revision
            yield from (e for e in news if e.key.startswith(self._prefix))
