"""Puts the CNI plugin into an engine's plugin folder.

The file names its interpreter by absolute path: engines run plugins with next to
no environment, and copy plugin folders around. It is put in place by rename, for
an engine may be executing the old one (ETXTBSY).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from netplug.cni.conflist import conflist_file, pod_network_file, write_conflist
from netplug.cni.files import write_file
from netplug.errors import Conflict, InputError
from netplug.networks import NewNetwork, choose_subnet, compute_conflist
from netplug.plugins import driver_names

SCRIPT = """#!{python} -I
# The CNI plugin netplug; written by `netplug install`.
import os, sys
from netplug.cni.main import main
sys.exit(main(os.path.basename(sys.argv[0])))
"""
SHEBANG_LIMIT = 255  # bytes of the first line that the kernel reads (BINPRM_BUF_SIZE)


def plugin_names() -> list[str]:
    """Names that lead to the one plugin; the first is its file, the others symbolic links."""
    return ["netplug", "netplug-ipam", *(f"netplug-{driver}" for driver in driver_names())]


def install_plugin(folder: Path, *, dry_run: bool = False) -> list[str]:
    """Writes the plugin and its links; their paths."""
    script = SCRIPT.format(python=sys.executable)
    if len(script.partition("\n")[0].encode()) > SHEBANG_LIMIT or " " in sys.executable:
        raise InputError(
            f"the interpreter {sys.executable} cannot be named in a script's first line",
            f"the path is longer than {SHEBANG_LIMIT} bytes, or has a blank",
            "install netplug into a folder with a shorter path",
        )
    first, *links = plugin_names()
    if not dry_run:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_file(str(folder), first, script.encode(), mode=0o755)
        for link in links:
            _link(folder, link, first)
    return [str(folder / name) for name in (first, *links)]


def _link(folder: Path, name: str, target: str) -> None:
    path = folder / name
    if path.exists() and not path.is_symlink():
        raise Conflict(f"{path} is in the way", "it is no link of ours", "remove it")
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
            folder_text, compute_conflist(NewNetwork("netplug", subnets=(choose_subnet(()),)))
        )
    return path
