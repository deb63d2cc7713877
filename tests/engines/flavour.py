"""What the engines are given: netplug as their only plugin, or the reference plugins.

`NETPLUG_TEST_PLUGIN=reference` runs the same tests with the reference bridge under netplug's
name, and host-local and portmap beside it. That tells a fault of the engine, or of these
tests, from one of ours. `NETPLUG_TEST_PLUGIN=/path` takes another executable for netplug.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from .unpack import Tree, Unavailable

CAPABILITIES = dict.fromkeys(("portMappings", "ips", "mac", "bandwidth", "aliases"), True)
SUBNET = "10.89.7.0/24"
SUBNET_6 = "fd89:7::/64"
DEFAULT_ROUTES = {4: "0.0.0.0/0", 6: "::/0"}


@dataclass(frozen=True, slots=True)
class Flavour:
    """The plugin folder, and how networks are written for it."""

    name: str
    plugins: Path

    def judge(self, left: list[str]) -> list[str]:
        """The leftovers that count: the reference keeps its bridge and base chains for ever."""
        if self.name != "reference":
            return left
        kinds = (
            "links: veth*",
            "files: /var/lib/cni/results/*",
            "files: /var/lib/cni/networks/*/*",
        )
        return [line for line in left if any(fnmatch(line, kind) for kind in kinds)]

    def network(
        self, name: str, *subnets: str, bridge: str = "np0", version: str = "1.0.0"
    ) -> dict[str, object]:
        """A conflist for a bridge network over `subnets` (one range set each)."""
        subnets = subnets or (SUBNET,)
        families = sorted({6 if ":" in subnet else 4 for subnet in subnets})
        plugin: dict[str, object] = {
            "type": "netplug",
            "bridge": bridge,
            "isGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "netplug",
                "ranges": [[{"subnet": subnet}] for subnet in subnets],
                "routes": [{"dst": DEFAULT_ROUTES[family]} for family in families],
            },
        }
        if self.name == "reference":
            plugin["ipam"] = {**ipam_of(plugin), "type": "host-local"}
            portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
            plugins = [plugin, portmap]
        else:
            plugins = [{**plugin, "driver": "bridge", "capabilities": CAPABILITIES}]
        return {"cniVersion": version, "name": name, "plugins": plugins}


def ipam_of(plugin: dict[str, object]) -> dict[str, object]:
    ipam = plugin["ipam"]
    assert isinstance(ipam, dict)
    return ipam


def make_flavour(choice: str, tree: Tree, folder: Path) -> Flavour:
    """Put the plugins of NETPLUG_TEST_PLUGIN (`choice`; empty: netplug) into `folder`."""
    if choice == "reference":
        shutil.copy(tree.plugins / "bridge", folder / "netplug")
        for name in ("host-local", "portmap"):
            shutil.copy(tree.plugins / name, folder / name)
        return Flavour("reference", folder)
    if choice:
        shutil.copy(choice, folder / "netplug")
        return Flavour("netplug", folder)
    command = Path(sys.executable).with_name("netplug")
    if not os.access(command, os.X_OK):
        raise Unavailable(f"netplug is not installed in {sys.prefix}: no {command}")
    subprocess.run([command, "install", "--bin-dir", folder], check=True, capture_output=True)
    return Flavour("netplug", folder)
