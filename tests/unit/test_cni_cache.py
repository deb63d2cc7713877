"""libcni's result cache, as libcni writes and reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netplug.cni.cache import (
    CachedAttachment,
    cnitool_container,
    list_cached,
    read_cached,
    remove_cached,
    write_cached,
)

CACHED = CachedAttachment(
    network="lan",
    container="c1",
    ifname="eth0",
    netns="/run/netns/c1",
    config=b'{"name":"lan"}',
    args=(("IgnoreUnknown", "1"),),
    capability_args={"ips": ["10.1.0.5"]},
    result={"cniVersion": "1.0.0"},
)


def read(folder: Path) -> CachedAttachment | None:
    return read_cached("lan", "c1", "eth0", str(folder))


def test_the_format_of_libcni(tmp_path: Path) -> None:
    write_cached(CACHED, str(tmp_path))
    path = tmp_path / "results" / "lan-c1-eth0"
    assert json.loads(path.read_text()) == {
        "kind": "cniCacheV1",
        "containerId": "c1",
        "config": "eyJuYW1lIjoibGFuIn0=",
        "ifName": "eth0",
        "networkName": "lan",
        "netns": "/run/netns/c1",
        "cniArgs": [["IgnoreUnknown", "1"]],
        "capabilityArgs": {"ips": ["10.1.0.5"]},
        "result": {"cniVersion": "1.0.0"},
    }
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_cached(CACHED, str(tmp_path))
    write_cached(CACHED, str(tmp_path))
    assert read(tmp_path) == CACHED
    assert list_cached(str(tmp_path)) == [CACHED]


def test_empty_parts_are_left_out(tmp_path: Path) -> None:
    bare = CachedAttachment("lan", "c1", "eth0")
    write_cached(bare, str(tmp_path))
    stored = json.loads((tmp_path / "results" / "lan-c1-eth0").read_text())
    assert set(stored) == {"kind", "containerId", "config", "ifName", "networkName"}
    assert read(tmp_path) == bare


NAMED = '{"kind":"cniCacheV1","networkName":"a","containerId":"b","ifName":"c",'
DAMAGED = ["", "{", "[]", "null", '{"kind":"other"}', '{"kind":"cniCacheV1"}', "\0" * 50]


@pytest.mark.parametrize(
    "text",
    [*DAMAGED, *(NAMED + rest for rest in ('"config":"%%"}', '"result":5}', '"cniArgs":[5]}'))],
)
def test_a_damaged_file_is_no_file(tmp_path: Path, text: str) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "lan-c1-eth0").write_text(text)
    found = read(tmp_path)
    assert found is None or found == CachedAttachment("lan", "c1", "eth0")
    assert list_cached(str(tmp_path)) == []


def test_a_legacy_file_is_a_bare_result(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "lan-c1-eth0").write_text('{"cniVersion":"0.2.0"}')
    assert read(tmp_path) == CachedAttachment("lan", "c1", "eth0", result={"cniVersion": "0.2.0"})


def test_nothing_there(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert list_cached(str(tmp_path)) == []
    remove_cached("lan", "c1", "eth0", str(tmp_path))


def test_removal(tmp_path: Path) -> None:
    write_cached(CACHED, str(tmp_path))
    remove_cached("lan", "c1", "eth0", str(tmp_path))
    assert read(tmp_path) is None


def test_the_container_id_of_cnitool() -> None:
    assert cnitool_container("/run/netns/c1") == "cnitool-20b4ff582526573bbe7d"
