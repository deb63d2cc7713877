"""Network files: found as libcni finds them, written whole."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from netplug.cni.conflist import (
    Conflist,
    becomes_pod_network,
    find_network,
    list_networks,
    parse_conflist,
    pod_network_file,
    read_conflist,
    remove_conflist,
    write_conflist,
)
from netplug.errors import ConfigError, Conflict, InputError, NetplugError, NotFound

PLUGIN = {"type": "netplug"}


def conflist(name: str = "lan", **keys: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [PLUGIN], **keys}


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))


def parsed(path: str = "x.conflist", **keys: Any) -> Conflist:
    return parse_conflist(json.dumps(conflist(**keys)).encode(), path)


def names(*directories: Path) -> list[str]:
    return [network.name for network in list_networks([str(path) for path in directories])[0]]


def test_lists_come_before_single_plugins_each_by_name(tmp_path: Path) -> None:
    put(tmp_path / "00-d.conf", {"name": "d", "type": "netplug"})
    put(tmp_path / "10-b.conflist", conflist("b"))
    put(tmp_path / "05-c.conflist", conflist("c"))
    put(tmp_path / "99-e.json", {"name": "e", "type": "netplug"})
    put(tmp_path / "README", "nothing")
    put(tmp_path / "a.conflist.tmp", "{")
    assert names(tmp_path) == ["c", "b", "d", "e"]


def test_the_first_file_of_a_name_counts(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.conflist", conflist(disableCheck=True))
    put(tmp_path / "b" / "1.conflist", conflist())
    folders = [str(tmp_path / "missing"), str(tmp_path / "a"), str(tmp_path / "b")]
    networks, warnings = list_networks(folders)
    assert [network.disable_check for network in networks] == [True]
    assert len(warnings) == 1
    assert "b/1.conflist is hidden" in warnings[0]


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"name":"x","plugins":[]}', "\0", '{"name":5}'])
def test_a_malformed_file_hides_no_other(tmp_path: Path, broken: str) -> None:
    put(tmp_path / "00-broken.conflist", broken)
    put(tmp_path / "10-lan.conflist", conflist())
    found, warnings = find_network("lan", [str(tmp_path)])
    assert found.path == str(tmp_path / "10-lan.conflist")
    assert len(warnings) == 1
    assert "00-broken.conflist is skipped" in warnings[0]


def test_what_is_no_file_is_skipped(tmp_path: Path) -> None:
    (tmp_path / "dir.conflist").mkdir()
    (tmp_path / "link.conflist").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.conflist")
    networks, warnings = list_networks([str(tmp_path)])
    assert networks == []
    assert len(warnings) == 2


def test_a_symlinked_file_counts(tmp_path: Path) -> None:
    put(tmp_path / "real", conflist())
    (tmp_path / "lan.conflist").symlink_to(tmp_path / "real")
    assert names(tmp_path) == ["lan"]


def test_not_found_names_files_and_the_nearest_name(tmp_path: Path) -> None:
    put(tmp_path / "0.conflist", "{")
    put(tmp_path / "1.conflist", conflist("frontend"))
    with pytest.raises(NotFound) as caught:
        find_network("fontend", [str(tmp_path)])
    assert "0.conflist is skipped" in caught.value.why
    assert caught.value.hint == 'did you mean "frontend"?'


def test_a_single_plugin_is_a_list_of_one(tmp_path: Path) -> None:
    put(tmp_path / "x.conf", {"name": "lan", "type": "netplug", "mtu": 1400})
    found = read_conflist(str(tmp_path / "x.conf"))
    assert found.plugins == ({"name": "lan", "type": "netplug", "mtu": 1400},)
    assert found.version == "0.1.0"


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "1.0.0"),
        ({"cniVersions": ["0.4.0", "1.1.0"]}, "1.1.0"),
        ({"cniVersions": ["0.4.0", "1.2.0", "9.0.0"]}, "1.0.0"),
        ({"cniVersion": "0.3.1", "cniVersions": []}, "0.3.1"),
        ({"cniVersion": "", "cniVersions": ["0.4.0"]}, "0.4.0"),
        ({"cniVersion": ""}, "0.1.0"),
        ({"cniVersion": "7.0.0"}, "7.0.0"),
    ],
)
def test_the_highest_version_that_we_speak(keys: dict[str, Any], expected: str) -> None:
    assert parsed(**keys).version == expected


def test_plugins_beside_the_list_are_appended(tmp_path: Path) -> None:
    put(tmp_path / "lan" / "20-b.conf", {"type": "b"})
    put(tmp_path / "lan" / "10-a.conf", {"type": "a"})
    put(tmp_path / "lan" / "30-c.json", {"type": "c"})
    put(tmp_path / "1.conflist", conflist())
    put(tmp_path / "2.conflist", conflist(loadOnlyInlinedPlugins="true"))
    put(tmp_path / "3.conflist", {"name": "lan"})

    def types(file: str) -> list[str]:
        return [plugin["type"] for plugin in read_conflist(str(tmp_path / file)).plugins]

    assert types("1.conflist") == ["netplug", "a", "b"]
    assert types("2.conflist") == ["netplug"]
    assert types("3.conflist") == ["a", "b"]


@pytest.mark.parametrize(
    "keys",
    [
        {"name": ""},
        {"name": "../x"},
        {"plugins": []},
        {"plugins": {}},
        {"plugins": [5]},
        {"plugins": [{}]},
        {"plugins": [{"type": ""}]},
        {"plugins": None},
        {"plugins": None, "loadOnlyInlinedPlugins": True},
        {"disableCheck": "maybe"},
        {"disableGC": 1},
        {"cniVersion": 1},
        {"cniVersions": "1.0.0"},
        {"cniVersions": ["x"]},
    ],
)
def test_malformed_lists(keys: dict[str, Any]) -> None:
    with pytest.raises(NetplugError, match=r"x\.conflist|version"):
        parsed(**keys)


@pytest.mark.parametrize(("value", "expected"), [(True, True), ("TRUE", True), ("false", False)])
def test_booleans_may_be_strings(value: object, expected: bool) -> None:
    assert parsed(disableCheck=value, disableGC=value).disable_check is expected


def test_the_stdin_that_libcni_would_compose() -> None:
    plugin = {
        "type": "netplug",
        "name": "other",
        "cniVersion": "0.1.0",
        "capabilities": {"ips": True, "mac": False, "dns": "true"},
    }
    capability_args = {"ips": ["10.1.0.5"], "mac": "x", "dns": {}, "aliases": []}
    config = parsed(plugins=[PLUGIN, plugin]).request_config(
        1, capability_args=capability_args, prev_result={"cniVersion": "1.0.0"}
    )
    assert config == {
        **plugin,
        "name": "lan",
        "cniVersion": "1.0.0",
        "runtimeConfig": {"ips": ["10.1.0.5"]},
        "prevResult": {"cniVersion": "1.0.0"},
    }
    assert "runtimeConfig" not in parsed().request_config()


def test_written_files_are_whole_and_readable(tmp_path: Path) -> None:
    written = write_conflist(str(tmp_path), conflist())
    path = tmp_path / "90-netplug-lan.conflist"
    assert written.path == str(path)
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert read_conflist(str(path)) == written


def test_an_existing_file_is_kept_unless_told(tmp_path: Path) -> None:
    write_conflist(str(tmp_path), conflist())
    with pytest.raises(Conflict, match="exists already"):
        write_conflist(str(tmp_path), conflist(disableCheck=True))
    assert write_conflist(str(tmp_path), conflist(disableCheck=True), replace=True).disable_check
    assert len(list(tmp_path.iterdir())) == 1


def test_a_symlink_is_replaced_never_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "net.d"
    folder.mkdir()
    (folder / "90-netplug-lan.conflist").symlink_to(victim)
    with pytest.raises(Conflict):
        write_conflist(str(folder), conflist())
    write_conflist(str(folder), conflist(), replace=True)
    assert victim.read_text() == "precious"
    assert not (folder / "90-netplug-lan.conflist").is_symlink()


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"password": "x"}, "password"),
        ({"plugins": [{**PLUGIN, "store": {"API_Key": "x"}}]}, "plugins[0].store.API_Key"),
        ({"args": {"x": [{"auth-token": "x"}]}}, "args.x[0].auth-token"),
        ({"plugins": [{**PLUGIN, "privateKey": "x"}]}, "plugins[0].privateKey"),
    ],
)
def test_secrets_are_refused(tmp_path: Path, keys: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        write_conflist(str(tmp_path), conflist(**keys))
    assert caught.value.what.startswith(f"{path} must not be in")
    assert list(tmp_path.iterdir()) == []


def test_an_invalid_network_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_conflist(str(tmp_path), conflist("../../etc/x"))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder() -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_conflist("/nonexistent", conflist())


def test_removal_happens_once_or_twice(tmp_path: Path) -> None:
    written = write_conflist(str(tmp_path), conflist())
    remove_conflist(written)
    remove_conflist(written)
    assert list(tmp_path.iterdir()) == []


def test_which_file_pods_would_get(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert pod_network_file(folder) is None
    assert becomes_pod_network(folder, "90-netplug-lan.conflist")
    put(tmp_path / "50-pods.conf", {})
    assert pod_network_file(folder) == f"{folder}/50-pods.conf"
    assert not becomes_pod_network(folder, "90-netplug-lan.conflist")
    assert becomes_pod_network(folder, "10-netplug-lan.conflist")
