"""libcni's result cache: /var/lib/cni/results/NETWORK-CONTAINER-IFNAME.

`netplug connect` writes it, so that cnitool and engines can remove what it made. Ours
is written by rename; libcni's own files can be empty or cut off after a power failure.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from netplug.cni.files import read_file, remove_file, write_file
from netplug.cni.golang import parse_object
from netplug.errors import InputError, NetplugError

DIRECTORY = "/var/lib/cni"
KIND = "cniCacheV1"


@dataclass(frozen=True, slots=True)
class CachedAttachment:
    """What libcni remembers of an ADD; `config` is the text of the conflist."""

    network: str
    container: str
    ifname: str
    netns: str = ""
    config: bytes = b""
    args: tuple[tuple[str, str], ...] = ()
    capability_args: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)


def cnitool_container(netns: str) -> str:
    """The container ID that cnitool derives from an absolute namespace path."""
    return "cnitool-" + hashlib.sha512(netns.encode()).hexdigest()[:20]


def _file(network: str, container: str, ifname: str) -> str:
    return f"{network}-{container}-{ifname}"


def write_cached(cached: CachedAttachment, directory: str = DIRECTORY) -> None:
    """Stores an attachment (folder 0700, file 0600). Raises InputError."""
    value: dict[str, Any] = {
        "kind": KIND,
        "containerId": cached.container,
        "config": base64.b64encode(cached.config).decode(),
        "ifName": cached.ifname,
        "networkName": cached.network,
    }
    if cached.netns:
        value["netns"] = cached.netns
    if cached.args:
        value["cniArgs"] = [list(pair) for pair in cached.args]
    if cached.capability_args:
        value["capabilityArgs"] = cached.capability_args
    if cached.result:
        value["result"] = cached.result
    folder = f"{directory}/results"
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made", error.strerror or str(error)) from error
    file = _file(cached.network, cached.container, cached.ifname)
    write_file(folder, file, json.dumps(value).encode(), mode=0o600)


def read_cached(
    network: str, container: str, ifname: str, directory: str = DIRECTORY
) -> CachedAttachment | None:
    """The stored attachment; None where there is none, or none that can be read.

    A legacy file is a bare result: everything but `result` is then as asked for.
    """
    path = f"{directory}/results/{_file(network, container, ifname)}"
    try:
        value = parse_object(read_file(path), path)
        if "kind" not in value:
            return CachedAttachment(network, container, ifname, result=dict(value))
        return _from_json(value)
    except (OSError, ValueError, TypeError, KeyError, NetplugError):
        return None


def _from_json(value: Mapping[str, Any]) -> CachedAttachment | None:
    if value["kind"] != KIND:
        return None
    return CachedAttachment(
        network=str(value["networkName"]),
        container=str(value["containerId"]),
        ifname=str(value["ifName"]),
        netns=str(value.get("netns", "")),
        config=base64.b64decode(value.get("config", ""), validate=True),
        args=tuple((str(key), str(item)) for key, item in value.get("cniArgs", ())),
        capability_args=dict(value.get("capabilityArgs", {})),
        result=dict(value.get("result", {})),
    )


def remove_cached(network: str, container: str, ifname: str, directory: str = DIRECTORY) -> None:
    """Forgets an attachment; silent where it is gone."""
    remove_file(f"{directory}/results", _file(network, container, ifname))


def list_cached(directory: str = DIRECTORY) -> list[CachedAttachment]:
    """All readable attachments, by file name; legacy files tell too little to be listed."""
    folder = f"{directory}/results"
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    found = []
    for name in names:
        try:
            cached = _from_json(parse_object(read_file(f"{folder}/{name}"), name))
        except (OSError, ValueError, TypeError, KeyError, NetplugError):
            continue
        if cached is not None:
            found.append(cached)
    return found
