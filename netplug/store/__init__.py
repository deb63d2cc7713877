"""The cluster store: a small ordered map with compare-and-set, leases and watches.

Seven methods, four shapes of transaction (create, replace if unchanged, delete if
unchanged, list), so that one schema fits etcd (several nodes), SQLite (one machine)
and memory (tests). `tests/unit/test_store.py` says what each of them must do.

Every method raises `Unreachable` where the store does not answer: nothing is known
then, and whoever asked changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from netplug.errors import Unreachable


@dataclass(frozen=True, slots=True)
class Entry:
    """`revision` grows with every change of the store and is the compare of compare-and-set."""

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Deleted:
    """Removed by somebody, or with the lease that held it."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True)
class Resync:
    """Changes were lost (compaction, a silent stream): list anew, then watch from there."""

    why: str


Event = Put | Deleted | Resync


class Lease(Protocol):
    """Keys created under a lease go with it, `seconds` after the last refresh."""

    seconds: float

    def refresh(self) -> bool:
        """Prolongs it; False when it has expired, and its keys are gone."""

    def release(self) -> None:
        """Ends it now, and its keys."""


class Watch(Protocol):
    """Changes in order, waiting for each; the iteration ends after `close` from any thread.

    It outlives a store that does not answer for a while, and goes on where it was. Values
    that were replaced or deleted meanwhile may be left out. After a `Resync` it ends.
    """

    def __iter__(self) -> Iterator[Event]: ...

    def close(self) -> None: ...


class Store(Protocol):
    def get(self, key: str) -> Entry | None: ...

    def list(self, prefix: str) -> tuple[list[Entry], int]:
        """A snapshot in the order of keys, and the revision from which to watch on."""

    def create(self, key: str, value: bytes, lease: Lease | None = None) -> int | None:
        """The new revision; None when the key exists. Of many callers one succeeds."""

    def replace(
        self, key: str, value: bytes, revision: int, lease: Lease | None = None
    ) -> int | None:
        """The new revision; None when the key has another revision, or is gone."""

    def delete(self, key: str, revision: int | None = None) -> bool:
        """Whether it was there, unchanged since `revision` where that is given."""

    def lease(self, seconds: float) -> Lease: ...

    def watch(self, prefix: str, after: int) -> Watch:
        """Changes of keys with the prefix whose revision is greater than `after`."""

    def close(self) -> None: ...


def unreachable(what: str, why: str) -> Unreachable:
    return Unreachable(
        f"the cluster store does not answer ({what})",
        why,
        "networks go on as they are; see: netplug overlay status",
    )
