"""/etc/netplug/agent.toml: who this node is, and where the cluster's store is.

The file may hold a password, so it must belong to the reader and be closed to others.
Nothing of it ever goes into a network's file, a log or an answer.
"""

from __future__ import annotations

import os
import socket
import stat
import tomllib
from dataclasses import dataclass, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from netplug.errors import ConfigError, UnsupportedError
from netplug.model import IPAddress
from netplug.overlay.keys import DEFAULT_ROOT
from netplug.overlay.view import HOLD_SECONDS
from netplug.store import Store

DEFAULT_FILE = Path("/etc/netplug/agent.toml")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`endpoints` (etcd, HOST:PORT), or `path` (SQLite); neither: SQLite beside the state."""

    endpoints: tuple[str, ...] = ()
    path: str = ""
    root: str = DEFAULT_ROOT
    ca: str = ""
    certificate: str = ""
    key: str = ""
    user: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class OverlaySettings:
    """`address` or `interface` of the underlay; seconds of a lease and of the hold-down."""

    address: str = ""
    interface: str = ""
    ttl: float = 30.0
    hold: float = HOLD_SECONDS


@dataclass(frozen=True, slots=True)
class Settings:
    node: str = ""
    store: StoreSettings = StoreSettings()
    overlay: OverlaySettings = OverlaySettings()

    @property
    def underlay_address(self) -> IPAddress | None:
        return ip_address(self.overlay.address) if self.overlay.address else None

    @property
    def shared(self) -> bool:
        """Is the store one that other machines reach?"""
        return bool(self.store.endpoints)


def read_settings(path: Path = DEFAULT_FILE) -> Settings:
    """The file's settings; the defaults where there is none.

    Raises ConfigError for a wrong key or value, and for a file that others may read.
    """
    try:
        with open(path, "rb", opener=_open_unlinked) as file:
            _demand_private(path, os.fstat(file.fileno()))
            data = tomllib.load(file)
    except FileNotFoundError:
        data = {}
    except OSError as error:
        raise ConfigError(f"{path} cannot be read", error.strerror or "", "check it") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML", str(error), "correct it") from error
    known = {"node", "store", "overlay"}
    _demand_known(data, known, path, "")
    settings = Settings(
        node=_typed(data.get("node", socket.gethostname()), str, "node", path),
        store=_section(StoreSettings, data.get("store", {}), path, "store"),
        overlay=_section(OverlaySettings, data.get("overlay", {}), path, "overlay"),
    )
    _check(settings, path)
    return settings


def _open_unlinked(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC)


def _demand_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise ConfigError(
            f"{path} is not private",
            f"it may hold a password, and has mode {stat.S_IMODE(status.st_mode):04o}"
            f" and owner {status.st_uid}",
            f"run: chmod 600 {path}",
        )


def _section(kind: Any, data: Any, path: Path, name: str) -> Any:
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: {name} is no table", "", f"write [{name}]")
    known = {field.name: field for field in fields(kind)}
    _demand_known(data, known, path, f"{name}.")
    found: dict[str, Any] = {}
    for key, value in data.items():
        default = known[key].default
        if isinstance(default, tuple):
            items = [value] if isinstance(value, str) else value
            whole = _typed(items, list, f"{name}.{key}", path)
            found[key] = tuple(_typed(item, str, f"{name}.{key}", path) for item in whole)
        elif isinstance(default, float):
            found[key] = float(_typed(value, (int, float), f"{name}.{key}", path))
        else:
            found[key] = _typed(value, str, f"{name}.{key}", path)
    return kind(**found)


def _demand_known(data: dict[str, Any], known: Any, path: Path, prefix: str) -> None:
    from difflib import get_close_matches

    for key in data:
        if key not in known:
            near = get_close_matches(key, list(known), 1)
            raise ConfigError(
                f"{path}: unknown key {prefix}{key}",
                f"there are {', '.join(known)}",
                f"did you mean {near[0]}?" if near else "remove it",
            )


def _typed(value: Any, kind: Any, key: str, path: Path) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ConfigError(f"{path}: {key} is wrong", f"{value!r} has the wrong type", "correct it")
    return value


def _check(settings: Settings, path: Path) -> None:
    store = settings.store
    if not settings.node or "/" in settings.node or len(settings.node) > 253:
        raise ConfigError(
            f"{path}: node {settings.node!r} is wrong", "it must have 1..253 characters and no '/'"
        )
    if store.endpoints and store.path:
        raise ConfigError(
            f"{path}: store.endpoints and store.path exclude each other", "", "remove one"
        )
    for endpoint in store.endpoints:
        host, _, port = endpoint.rpartition(":")
        if not host or not port.isdigit() or "//" in endpoint:
            raise ConfigError(
                f"{path}: store.endpoints has {endpoint!r}", "it must be HOST:PORT", "correct it"
            )
    if bool(store.certificate) != bool(store.key):
        raise ConfigError(
            f"{path}: store.certificate and store.key belong together", "one of them is missing"
        )
    if bool(store.user) != bool(store.password):
        raise ConfigError(
            f"{path}: store.user and store.password belong together", "one of them is missing"
        )
    if settings.overlay.ttl < 1:
        raise ConfigError(f"{path}: overlay.ttl is {settings.overlay.ttl:g}", "1 s at least")
    try:
        settings.underlay_address  # noqa: B018
    except ValueError as error:
        raise ConfigError(f"{path}: overlay.address is wrong", str(error), "correct it") from error


def open_store(settings: Settings, folder: Path) -> Store:
    """The store of these settings; `folder` is the state's.

    Raises UnsupportedError where etcd is wanted and its client is not installed.
    """
    wanted = settings.store
    if not wanted.endpoints:
        from netplug.store.sqlite import SqliteStore

        return SqliteStore(wanted.path or folder / "cluster.db")
    try:
        from netplug.store.etcd import Credentials, EtcdStore
    except ImportError as error:
        raise UnsupportedError(
            "etcd cannot be used",
            f"its client is not installed ({error})",
            "run: pip install 'netplug[etcd]'",
        ) from error
    return EtcdStore(
        wanted.endpoints,
        Credentials(wanted.ca, wanted.certificate, wanted.key, wanted.user, wanted.password),
    )
