"""agent.toml: private or refused; what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from netplug.errors import ConfigError
from netplug.overlay.settings import open_store, read_settings
from netplug.store.sqlite import SqliteStore


def write(folder: Path, text: str, mode: int = 0o600) -> Path:
    path = folder / "agent.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_no_file_is_sqlite_beside_the_state(tmp_path: Path) -> None:
    settings = read_settings(tmp_path / "none.toml")
    assert settings.node and not settings.shared
    store = open_store(settings, tmp_path)
    assert isinstance(store, SqliteStore) and store.path == tmp_path / "cluster.db"
    store.close()


def test_everything(tmp_path: Path) -> None:
    text = """
        node = "n1"
        [store]
        endpoints = ["192.0.2.1:2379", "[2001:db8::1]:2379"]
        root = "/other"
        ca = "/ca"
        user = "netplug"
        password = "secret"
        [overlay]
        interface = "eth1"
        ttl = 10
        hold = 60.5
    """
    settings = read_settings(write(tmp_path, text))
    assert settings.node == "n1" and settings.shared
    assert settings.store.endpoints == ("192.0.2.1:2379", "[2001:db8::1]:2379")
    assert (settings.store.password, settings.store.root) == ("secret", "/other")
    assert (settings.overlay.ttl, settings.overlay.hold) == (10.0, 60.5)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigError, match="is not private") as caught:
        read_settings(write(tmp_path, "", mode))
    assert "chmod 600" in caught.value.hint


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    link = tmp_path / "link.toml"
    link.symlink_to(write(tmp_path, ""))
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(link)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("node = 1", "node is wrong"),
        ('node = "a/b"', "no '/'"),
        ("nodes = 1", "unknown key nodes"),
        ("[store]\nendpoint = 1", "unknown key store.endpoint"),
        ('[store]\nendpoints = ["http://192.0.2.1:2379"]', "must be HOST:PORT"),
        ('[store]\nendpoints = ["h:1"]\npath = "/x"', "exclude each other"),
        ('[store]\nuser = "u"', "belong together"),
        ('[store]\nkey = "k"', "belong together"),
        ("[overlay]\nttl = 0.1", "1 s at least"),
        ('[overlay]\naddress = "here"', "overlay.address is wrong"),
        ('[overlay]\nttl = "long"', "overlay.ttl is wrong"),
        ("store = 1", "store is no table"),
        ("=", "is no TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings(write(tmp_path, text))
