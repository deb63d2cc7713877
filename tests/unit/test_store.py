"""What a store must do, asked of each of them: memory, SQLite, etcd."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from etcd_cluster import Cluster

from netplug.store import Deleted, Event, Put, Resync, Store, Watch
from netplug.store.memory import MemoryStore
from netplug.store.sqlite import SqliteStore

PATIENCE = 10.0
RACERS, PRIZES = 2, 200


class Kind:
    """One kind of store: `open` gives another client of the same data."""

    def __init__(self, open_store: Callable[[], Store], compact: Callable[[], None]) -> None:
        self.open = open_store
        self.compact = compact


@pytest.fixture(scope="module", params=["memory", "sqlite", "etcd"])
def kind(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kind]:
    folder: Path = tmp_path_factory.mktemp("store")
    if request.param == "memory":
        memory = MemoryStore()
        yield Kind(lambda: memory, memory.compact)
    elif request.param == "sqlite":
        file = SqliteStore(folder / "cluster.db")
        yield Kind(lambda: SqliteStore(file.path), file.compact)
        file.close()
    else:
        from netplug.store.etcd import EtcdStore

        cluster = Cluster(folder)
        try:
            cluster.start()
            yield Kind(lambda: EtcdStore(cluster.endpoints), cluster.compact)
        finally:
            cluster.close()


@pytest.fixture
def store(kind: Kind, request: pytest.FixtureRequest) -> Iterator[Store]:
    opened = kind.open()
    yield opened
    for entry in opened.list("/")[0]:
        opened.delete(entry.key)
    opened.close()


class Reader:
    """Reads a watch in a thread; `next` waits for the next event."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._events: queue.Queue[Event] = queue.Queue()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        for event in self.watch:
            self._events.put(event)

    def next(self) -> Event:
        return self._events.get(timeout=PATIENCE)

    def close(self) -> None:
        self.watch.close()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def reading(store: Store, prefix: str, after: int) -> Iterator[Reader]:
    reader = Reader(store.watch(prefix, after))
    try:
        yield reader
    finally:
        reader.close()


def test_a_key_is_created_once(store: Store) -> None:
    revision = store.create("/a/x", b"1")
    assert revision is not None
    assert store.create("/a/x", b"2") is None
    entry = store.get("/a/x")
    assert entry is not None and (entry.value, entry.revision) == (b"1", revision)
    assert store.get("/a/y") is None


def test_replace_and_delete_compare_revisions(store: Store) -> None:
    first = store.create("/a/x", b"1")
    assert first is not None
    second = store.replace("/a/x", b"2", first)
    assert second is not None and second > first
    assert store.replace("/a/x", b"3", first) is None
    assert store.replace("/a/none", b"3", first) is None
    assert not store.delete("/a/x", first)
    assert store.delete("/a/x", second)
    assert not store.delete("/a/x")


def test_a_list_is_ordered_and_of_one_prefix(store: Store) -> None:
    for key in ("/a/2", "/a/1", "/ab", "/b/1"):
        store.create(key, key.encode())
    entries, revision = store.list("/a/")
    assert [(e.key, e.value) for e in entries] == [("/a/1", b"/a/1"), ("/a/2", b"/a/2")]
    assert revision >= max(e.revision for e in entries)
    later = store.create("/c", b"")
    assert later is not None and later > revision


def test_a_watch_goes_on_from_a_list(store: Store) -> None:
    store.create("/a/old", b"")
    _, revision = store.list("/a/")
    one = store.create("/a/x", b"1")
    assert one is not None
    with reading(store, "/a/", revision) as reader:
        assert reader.next() == Put("/a/x", b"1", one)
        two = store.replace("/a/x", b"2", one)
        assert two is not None
        assert reader.next() == Put("/a/x", b"2", two)
        store.create("/other", b"")
        store.delete("/a/x", two)
        last = reader.next()
        assert isinstance(last, Deleted) and last.key == "/a/x" and last.revision > two


def test_a_watch_sees_what_another_client_does(kind: Kind, store: Store) -> None:
    other = kind.open()
    with reading(store, "/a/", store.list("/a/")[1]) as reader:
        began = time.monotonic()
        revision = other.create("/a/x", b"1")
        assert reader.next() == Put("/a/x", b"1", revision or 0)
        assert time.monotonic() - began < 1  # "visible within a second"
    if other is not store:
        other.close()


def test_a_compacted_watch_says_so(kind: Kind, store: Store) -> None:
    _, before = store.list("/a/")
    store.create("/a/x", b"1")
    store.delete("/a/x")
    kind.compact()
    with reading(store, "/a/", before) as reader:
        assert isinstance(reader.next(), Resync)


def test_compaction_does_not_disturb_a_running_watch(kind: Kind, store: Store) -> None:
    with reading(store, "/a/", store.list("/a/")[1]) as reader:
        store.create("/a/x", b"1")
        assert isinstance(reader.next(), Put)
        kind.compact()
        store.create("/a/y", b"1")
        event = reader.next()
        assert isinstance(event, Put | Resync)
        if isinstance(event, Put):
            assert event.key == "/a/y"


def test_a_lease_takes_its_keys_along(store: Store) -> None:
    lease = store.lease(60)
    store.create("/a/x", b"1", lease)
    store.create("/a/y", b"1")
    assert lease.refresh()
    with reading(store, "/a/", store.list("/a/")[1]) as reader:
        lease.release()
        event = reader.next()
        assert isinstance(event, Deleted) and event.key == "/a/x"
    assert [e.key for e in store.list("/a/")[0]] == ["/a/y"]
    assert not lease.refresh()


def test_a_lease_ends_when_it_is_not_refreshed(store: Store) -> None:
    lease = store.lease(1)
    store.create("/a/x", b"1", lease)
    with reading(store, "/a/", store.list("/a/")[1]) as reader:
        event = reader.next()
    assert isinstance(event, Deleted) and event.key == "/a/x"
    assert not lease.refresh()


def test_a_replaced_value_leaves_its_lease(store: Store) -> None:
    """The lease is part of what a put says: without one the key stays."""
    lease = store.lease(60)
    revision = store.create("/a/x", b"1", lease)
    assert revision is not None
    assert store.replace("/a/x", b"2", revision) is not None
    lease.release()
    assert store.get("/a/x") is not None


def test_of_two_racers_one_wins_each_key(kind: Kind, store: Store) -> None:
    won: list[list[int]] = [[] for _ in range(RACERS)]

    def race(number: int) -> None:
        own = kind.open()
        for prize in range(PRIZES):
            if own.create(f"/race/{prize}", str(number).encode()) is not None:
                won[number].append(prize)
        if own is not store:
            own.close()

    threads = [threading.Thread(target=race, args=(n,)) for n in range(RACERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(prize for prizes in won for prize in prizes) == list(range(PRIZES))
    for number, prizes in enumerate(won):
        for prize in prizes:
            entry = store.get(f"/race/{prize}")
            assert entry is not None and entry.value == str(number).encode()


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("make", [MemoryStore, None], ids=["memory", "sqlite"])
def test_leases_follow_the_clock_that_never_jumps(make: Any, tmp_path: Path) -> None:
    clock = Clock()
    store: Store = make(clock) if make else SqliteStore(tmp_path / "cluster.db", clock)
    lease = store.lease(30)
    store.create("/x", b"", lease)
    clock.now += 29
    assert lease.refresh()
    clock.now += 29
    assert store.get("/x") is not None
    clock.now += 2
    assert store.get("/x") is None
    store.close()
