"""Network configuration files: found and read as libcni does, written so that it can.

One difference: a malformed file is a warning that names it, and the others still count
(libcni gives up at the first; then one broken file hides every network).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from netplug.cni.files import read_file, remove_file, write_file
from netplug.cni.golang import parse_object
from netplug.cni.protocol import check_network_name
from netplug.cni.reader import Reader
from netplug.cni.versions import CURRENT, DEFAULT, parse_version
from netplug.errors import ConfigError, InputError, NetplugError, NotFound

DEFAULT_DIRECTORY = "/etc/cni/net.d"
LIST = (".conflist",)
SINGLE = (".conf", ".json")  # one plugin; deprecated, still in use
SECRET = ("password", "passwd", "secret", "token", "credential", "privatekey", "apikey", "psk")


@dataclass(frozen=True, slots=True)
class Conflist:
    """One network as its file describes it. `text` is the file, for libcni's cache."""

    path: str
    name: str
    version: str
    plugins: tuple[dict[str, Any], ...]
    disable_check: bool = False
    disable_gc: bool = False
    raw: dict[str, Any] = field(default_factory=dict)
    text: bytes = b""

    def request_config(
        self,
        index: int = 0,
        *,
        capability_args: Mapping[str, Any] | None = None,
        prev_result: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The stdin of one plugin of the list, as libcni would compose it.

        Of `capability_args` a plugin gets those that its `capabilities` declare.
        """
        plugin = self.plugins[index]
        config = {**plugin, "name": self.name, "cniVersion": self.version}
        declared = plugin.get("capabilities")
        declared = declared if isinstance(declared, dict) else {}
        runtime = {
            key: value
            for key, value in (capability_args or {}).items()
            if declared.get(key) is True
        }
        if runtime:
            config["runtimeConfig"] = runtime
        if prev_result is not None:
            config["prevResult"] = dict(prev_result)
        return config


# --- reading


def read_conflist(path: str) -> Conflist:
    """The network in a file; *.conf and *.json hold one plugin, anything else a list.

    Raises InputError, DecodeError or ConfigError; each names the file.
    """
    try:
        text = read_file(path)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path} cannot be read", why) from error
    return parse_conflist(text, path)


def parse_conflist(text: bytes, path: str) -> Conflist:
    """The network that `text` describes; `path` says which form it has and where folders lie."""
    raw = parse_object(text, path)
    reader = Reader(path)
    name = reader.text(raw, "name")
    if not name:
        raise ConfigError(f"{path} has no network name", "", 'add "name": "NETWORK"')
    try:
        check_network_name(name)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.what}", error.why, error.hint) from None
    single = path.endswith(SINGLE)
    plugins = [dict(raw)] if single else _plugins(raw, reader)
    if not single and not _flag(raw, "loadOnlyInlinedPlugins", reader):
        plugins += _folder_plugins(os.path.join(os.path.dirname(path), name))
    if not plugins:
        raise ConfigError(f"{path} names no plugins", "", 'add "plugins": [{"type": "netplug"}]')
    for index, plugin in enumerate(plugins):
        if not reader.text(plugin, "type", f"plugins[{index}]"):
            raise ConfigError(
                f"{path}: plugins[{index}] has no type", "", "name the plugin under type"
            )
    return Conflist(
        path=path,
        name=name,
        version=_version(raw, reader),
        plugins=tuple(plugins),
        disable_check=_flag(raw, "disableCheck", reader),
        disable_gc=_flag(raw, "disableGC", reader),
        raw=dict(raw),
        text=text,
    )


def _plugins(raw: Mapping[str, Any], reader: Reader) -> list[dict[str, Any]]:
    if "plugins" not in raw:
        if _flag(raw, "loadOnlyInlinedPlugins", reader):
            raise reader.wrong("plugins", None, "is missing, and loadOnlyInlinedPlugins is true")
        return []
    plugins = [dict(reader.mapping(item, path)) for path, item in reader.items(raw, "plugins")]
    if not plugins:
        raise reader.wrong("plugins", raw["plugins"], "is an empty list")
    return plugins


def _folder_plugins(folder: str) -> list[dict[str, Any]]:
    """Plugins that other packages put beside the list: <conf dir>/<network>/*.conf, by name."""
    plugins = []
    for path in _files(folder, (".conf",)):
        try:
            plugins.append(dict(parse_object(read_file(path), path)))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise InputError(f"{path} cannot be read", why) from error
    return plugins


def _version(raw: Mapping[str, Any], reader: Reader) -> str:
    """The highest version that we speak among cniVersion and cniVersions."""
    own = reader.text(raw, "cniVersion")
    named = [*reader.texts(raw, "cniVersions"), *([own] if own else [])]
    spoken = [v for v in named if parse_version(v) <= parse_version(CURRENT)]
    return max(spoken, key=parse_version, default=own or DEFAULT)


def _flag(raw: Mapping[str, Any], key: str, reader: Reader) -> bool:
    value = raw.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise reader.wrong(key, value, "is neither true nor false")
    return value


def _files(directory: str, endings: tuple[str, ...]) -> list[str]:
    """Paths of the plain files with these endings, by name; none where there is no folder."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise InputError(f"{directory} cannot be read", error.strerror or str(error)) from error
    paths = [f"{directory}/{name}" for name in names if name.endswith(endings)]
    return [path for path in paths if not os.path.isdir(path)]


def _walk(directories: Iterable[str], warnings: list[str]) -> Iterator[Conflist]:
    """Networks in the order in which libcni would look: lists first, then single plugins."""
    for directory in directories:
        for endings in (LIST, SINGLE):
            try:
                paths = _files(directory, endings)
            except NetplugError as error:
                warnings.append(str(error))
                continue
            for path in paths:
                try:
                    yield read_conflist(path)
                except NetplugError as error:
                    warnings.append(f"{path} is skipped: {error}")


def list_networks(directories: Sequence[str]) -> tuple[list[Conflist], list[str]]:
    """All networks, and warnings; of several files with one name the first counts."""
    warnings: list[str] = []
    found: dict[str, Conflist] = {}
    for conflist in _walk(directories, warnings):
        first = found.setdefault(conflist.name, conflist)
        if first is not conflist:
            warnings.append(
                f"{conflist.path} is hidden: {first.path} holds the network {first.name} too"
            )
    return list(found.values()), warnings


def find_network(name: str, directories: Sequence[str]) -> tuple[Conflist, list[str]]:
    """The network of this name, and warnings about files passed on the way. Raises NotFound."""
    warnings: list[str] = []
    seen: list[str] = []
    for conflist in _walk(directories, warnings):
        if conflist.name == name:
            return conflist, warnings
        seen.append(conflist.name)
    from difflib import get_close_matches

    close = get_close_matches(name, seen, n=1)
    where = ", ".join(directories)
    raise NotFound(
        f'network "{name}" does not exist',
        "; ".join([f"no file in {where} names it", *warnings]),
        f'did you mean "{close[0]}"?' if close else "netplug network ls lists all networks",
    )


# --- writing


def conflist_file(name: str) -> str:
    return f"90-netplug-{name}.conflist"


def write_conflist(
    directory: str, raw: Mapping[str, Any], *, name: str = "", replace: bool = False
) -> Conflist:
    """Writes a network's file, readable for all, whole or not at all.

    Raises ConfigError for keys that hold secrets, Conflict where the file exists.
    """
    text = (json.dumps(raw, indent=2) + "\n").encode()
    file = name or conflist_file(str(raw.get("name", "")))
    conflist = parse_conflist(text, f"{directory}/{file}")
    secret = _find_secret(raw, "")
    if secret:
        raise ConfigError(
            f"{secret} must not be in {conflist.path}",
            "every user of the host can read this file",
            "put credentials into /etc/netplug/agent.toml (mode 0600)",
        )
    write_file(directory, file, text, mode=0o644, replace=replace)
    return conflist


def _find_secret(value: Any, path: str) -> str:
    """The path of the first key that sounds like a secret, else ""."""
    if isinstance(value, list | tuple):
        found = (_find_secret(item, f"{path}[{index}]") for index, item in enumerate(value))
        return next(filter(None, found), "")
    if not isinstance(value, Mapping):
        return ""
    for key, item in value.items():
        inner = f"{path}.{key}" if path else str(key)
        plain = str(key).casefold().replace("_", "").replace("-", "")
        found_here = inner if item and any(word in plain for word in SECRET) else ""
        if found_here or (found_here := _find_secret(item, inner)):
            return found_here
    return ""


def remove_conflist(conflist: Conflist) -> None:
    directory, _, name = conflist.path.rpartition("/")
    remove_file(directory, name)


def pod_network_file(directory: str) -> str | None:
    """The file that containerd takes for pods: the first by name of all three endings."""
    return next(iter(_files(directory, (*LIST, *SINGLE))), None)


def becomes_pod_network(directory: str, file: str) -> bool:
    """Would a new file of this name be the one that containerd takes?"""
    first = pod_network_file(directory)
    return first is None or f"{directory}/{file}" <= first
