"""Puts the CNI plugin into an engine's plugin folder.

The file, a launcher (netplug/agent/build.py) or one process alone, is put in place by
rename: an engine may be executing the old one (ETXTBSY).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from netplug.agent.build import PATHS, Launcher, Settings, make_launcher
from netplug.alone.make import ensure_bundle
from netplug.cni.conflist import conflist_file, pod_network_file, write_conflist
from netplug.cni.files import write_file
from netplug.errors import Conflict
from netplug.networks import NewNetwork, choose_subnet, compute_conflist, read_used_subnets
from netplug.plugins import driver_names

DNSNAME = "dnsname"


def plugin_names() -> list[str]:
    """Names that lead to the one plugin; the first is its file, the others symbolic links."""
    return ["netplug", "netplug-ipam", *(f"netplug-{driver}" for driver in driver_names())]


def install_plugin(
    folder: Path,
    launcher: Launcher | None = None,
    *,
    dnsname: bool = False,
    dry_run: bool = False,
    warn: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Writes the plugin, one process alone where no launcher is given, and its links; their paths.

    `dnsname`: also under the name of podman's plugin for names. podman 4 writes that into every
    network that it creates as soon as the file is there, so nobody gets it unasked. Raises
    InputError, Conflict.
    """
    launcher = launcher or make_launcher(Settings(), "one-process")
    first, *links = [*plugin_names(), *([DNSNAME] if dnsname else [])]
    for link in links:
        _demand_vacant(folder / link)
    if not dry_run:
        if problem := ensure_bundle(PATHS):
            warn(f"calls without an agent will take three times as long: {problem}")
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_file(str(folder), first, launcher.program, mode=0o755)
        for link in links:
            _link(folder, link, first)
    return [str(folder / name) for name in (first, *links)]


def _demand_vacant(path: Path) -> None:
    if path.exists() and not path.is_symlink():
        raise Conflict(f"{path} is in the way", "it is no link of ours", "remove it")


def _link(folder: Path, name: str, target: str) -> None:
    path = folder / name
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.rename(path)


def install_network(folder: Path, *, dry_run: bool = False) -> str | None:
    """Writes the network `netplug` where the folder has no network; its path."""
    folder_text = str(folder)
    if folder.is_dir() and pod_network_file(folder_text):
        return None
    path = f"{folder_text}/{conflist_file('netplug')}"
    if not dry_run:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_conflist(
            folder_text,
            compute_conflist(
                NewNetwork("netplug", subnets=(choose_subnet(read_used_subnets([])),))
            ),
        )
    return path
