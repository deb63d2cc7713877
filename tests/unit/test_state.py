"""Records, their use of shared resources, locks, and the state file itself."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attaching import in_child

from netplug.errors import Busy, Conflict, PermissionRefused
from netplug.firewall.intent import BridgePolicy
from netplug.model import Attachment
from netplug.plan import Plan
from netplug.resources.addresses import Sysctl
from netplug.resources.links import Bridge
from netplug.resources.rules import Rules
from netplug.state import Record, State, Usage

BRIDGE = Bridge("br0", "02:00:00:00:00:01")
HOST = "boot:1"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "state")
    yield state
    state.close()


def make_record(container: str, *, network: str = "lan", **changes: Any) -> Record:
    attachment = Attachment(network, container, "eth0", f"/run/netns/{container}")
    plan = Plan((BRIDGE, Sysctl("host", (("net/ipv4/ip_forward", "1"),))))
    record = Record(HOST, attachment, "pending", "boot", 7, 1.5, plan, {"name": network})
    return replace(record, **changes)


def put(state: State, *records: Record) -> None:
    for record in records:
        with state.transaction() as db:
            state.put(db, record)


def drop(state: State, record: Record) -> None:
    with state.transaction() as db:
        state.drop(db, record.host, record.owner)


def use_of(state: State, record: Record) -> Usage:
    return Usage(state, record.host, record.owner)


def test_a_record_is_read_as_it_was_written(state: State) -> None:
    record = make_record("web")
    put(state, record)
    assert state.get(HOST, record.owner) == record
    assert state.get("boot:2", record.owner) is None


def test_a_failed_transaction_leaves_nothing(state: State) -> None:
    def fail() -> None:
        with state.transaction() as db:
            state.put(db, make_record("web"))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert state.get(HOST, make_record("web").owner) is None
    assert state.users(HOST, "bridge:br0") == []


def test_a_tombstone_stops_the_add(state: State) -> None:
    record = make_record("web")
    put(state, record)
    with state.transaction() as db:
        state.leave(db, HOST, record.owner)
    with state.transaction() as db:
        assert not state.ready(db, record.host, record.owner)
    found = state.get(HOST, record.owner)
    assert found is not None and found.phase == "leaving"


def test_the_last_user_may_undo_what_was_made_by_any(state: State) -> None:
    one, two = make_record("one"), make_record("two")
    put(state, one)
    use_of(state, one).claim("bridge:br0")
    put(state, two)
    use_of(state, one).leave()
    assert not use_of(state, one).may_undo("bridge:br0")
    drop(state, one)
    use_of(state, two).leave()
    assert use_of(state, two).may_undo("bridge:br0")


def test_what_was_there_before_is_never_undone(state: State) -> None:
    record = make_record("web")
    put(state, record)
    use_of(state, record).leave()
    assert not use_of(state, record).may_undo("bridge:br0")


def test_a_newcomer_inherits_from_one_who_is_leaving(state: State) -> None:
    """Between the old user's last look and the newcomer's first, the resource is still ours."""
    old, new = make_record("old"), make_record("new")
    put(state, old)
    use_of(state, old).claim("bridge:br0")
    use_of(state, old).leave()
    put(state, new)
    assert not use_of(state, old).may_undo("bridge:br0")
    drop(state, old)
    use_of(state, new).leave()
    assert use_of(state, new).may_undo("bridge:br0")


def test_a_pending_record_is_a_user(state: State) -> None:
    """Its process may be about to plug a port in."""
    ready, pending = make_record("one", phase="ready"), make_record("two")
    put(state, ready, pending)
    use_of(state, ready).claim("bridge:br0")
    use_of(state, ready).leave()
    assert not use_of(state, ready).may_undo("bridge:br0")


def test_hosts_do_not_see_each_other(state: State) -> None:
    here, there = make_record("web"), make_record("web", host="boot:2")
    put(state, here, there)
    assert state.users(HOST, "bridge:br0") == [here.owner]
    drop(state, here)
    assert state.get("boot:2", there.owner) == there


def test_different_values_under_one_key(state: State) -> None:
    policy = BridgePolicy("br0", 4)
    put(state, make_record("one", plan=Plan((Rules("nft", policy),))))
    other = Plan((Rules("nft", replace(policy, isolated=True)),))
    with pytest.raises(Conflict, match="network lan uses it too"):
        put(state, make_record("two", network="dmz", plan=other))
    with pytest.raises(Conflict, match="changed while containers are attached"):
        put(state, make_record("two", plan=other))
    assert state.get(HOST, "dmz/two/eth0") is None


def test_locks_are_exclusive_between_threads_and_freed(state: State, tmp_path: Path) -> None:
    other = State(tmp_path / "state")
    with state.locked("a"):
        with pytest.raises(Busy, match="a is in use"), other.locked("a", seconds=0):
            pass
        with other.locked("b", seconds=0):
            pass
    with other.locked("a", seconds=0):
        pass
    other.close()


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    def die_holding() -> None:
        with State(tmp_path / "state").locked("a"):
            os._exit(0)

    assert in_child(die_holding) == 0
    state = State(tmp_path / "state")
    with state.locked("a", seconds=0):
        pass
    state.close()


def test_waiting_for_a_lock(state: State, tmp_path: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def wait() -> None:
        other = State(tmp_path / "state")
        waiting.set()
        with other.locked("a"):
            order.append("second")
        other.close()

    with state.locked("a"):
        thread = threading.Thread(target=wait)
        thread.start()
        waiting.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_an_earlier_boot_is_forgotten_with_all_it_held(state: State) -> None:
    old, new = make_record("old", host="past:1", boot="past"), make_record("new")
    put(state, old, new)
    assert state.reclaim("boot") == [old.owner]
    assert state.reclaim("boot") == []
    assert state.get("past:1", old.owner) is None
    assert state.get(HOST, new.owner) == new
    assert state.users("past:1", "bridge:br0") == []


def test_the_folder_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "state"
    State(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "state.db").stat().st_mode) == 0o600
    folder.chmod(0o755)
    State(folder).close()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PermissionRefused):
        State(tmp_path / "state")


def test_a_damaged_file_is_set_aside(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    (folder / "state.db").write_bytes(b"this is no database, however long one looks at it" * 100)
    state = State(folder)
    put(state, make_record("web"))
    state.close()
    assert any("damaged" in path.name for path in folder.iterdir())


def test_what_is_ours_is_read_at_a_cost_that_does_not_grow(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    usage = Usage(state, "host", "lan/web/eth0")

    def steps() -> int:
        """Of SQLite's machine, for the look that each ADD and DEL takes."""
        count = 0

        def tick() -> None:
            nonlocal count
            count += 1

        usage._claimed = None
        state.connection.set_progress_handler(tick, 1)
        assert usage.claimed("bridge:br0")
        state.connection.set_progress_handler(None, 1)
        return count

    rows = [
        ("host", "bridge:br0", f"lan/c{number}/eth0", "lan", "", 1, 0) for number in range(3000)
    ]
    with state.transaction() as db:
        db.execute(
            "INSERT INTO usage VALUES (?,?,?,?,?,?,?)",
            ("host", "bridge:br0", "lan/web/eth0", "lan", "", 1, 0),
        )
    few = steps()
    with state.transaction() as db:
        db.executemany("INSERT INTO usage VALUES (?,?,?,?,?,?,?)", rows)
    assert steps() <= few * 1.2
    state.close()
