"""podman on one simulated host, containerd on another, one overlay network over both."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from engines.cell import Cell, eventually
from engines.containerd import Containerd
from engines.flavour import Flavour
from engines.images import WEB_SERVER
from engines.podman import Podman

STORE = "192.0.2.1:23790"
CONFLIST: dict[str, object] = {
    "cniVersion": "1.0.0",
    "name": "wide",
    "plugins": [
        {
            "type": "netplug",
            "driver": "overlay",
            "names": True,
            "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.200.0.0/16"}]]},
            "capabilities": {"portMappings": True, "ips": True, "mac": True, "aliases": True},
        }
    ],
}
ETCD = (
    *("etcd", "--data-dir", "/run/etcd", "--listen-client-urls", f"http://{STORE}"),
    *("--advertise-client-urls", f"http://{STORE}", "--unsafe-no-fsync"),
    *("--listen-peer-urls", "http://127.0.0.1:23791"),
)
SOCKET = "/run/netplug/agent.sock"


@pytest.fixture
def joined(
    podman_of_root: Podman, containerd_of_ctr: Containerd, flavour: Flavour
) -> Iterator[None]:
    """The two cells on one wire, with an etcd in the first and an agent in each."""
    if flavour.name != "netplug":
        pytest.skip("the reference plugins have no overlay")
    cells = (podman_of_root.cell, containerd_of_ctr.cell)
    one, other = (cell.first_process for cell in cells)
    wire = f"ip link add wire0 netns {one} type veth peer wire1 netns {other}"
    subprocess.run(wire.split(), check=True)
    services = []
    try:
        for number, cell in enumerate(cells):
            cell.run("ip", "address", "add", f"192.0.2.{number + 1}/24", "dev", f"wire{number}")
            cell.run("ip", "link", "set", f"wire{number}", "up")
            if not number:
                services.append(cell.start(*ETCD))
            settings = (
                f'node = "n{number}"\n[store]\nendpoints = ["{STORE}"]\n'
                f'[overlay]\naddress = "192.0.2.{number + 1}"\n'
            )
            cell.write("/etc/netplug/agent.toml", settings)
            cell.run("chmod", "600", "/etc/netplug/agent.toml")
            cell.run("mkdir", "-p", "/run/netplug")
            agent = (sys.executable, "-I", "-m", "netplug.agent", SOCKET, "/var/lib/netplug")
            services.append(cell.start(*agent))
            eventually(partial(cell.run, "test", "-S", SOCKET), patience=20.0)
        yield
        for cell in cells:
            ask(cell, "overlay", "leave", "wide")
    finally:
        for cell in cells:
            ask(cell, "agent", "stop", check=False)
        for service in services:
            service.terminate()
            service.wait()
        cells[0].run("ip", "link", "del", "wire0", check=False)
        for cell in cells:
            cell.run("rm", "-rf", "/etc/netplug/agent.toml", "/run/etcd")


def ask(cell: Cell, *words: str, check: bool = True) -> str:
    """The command netplug in that cell."""
    return cell.run(Path(sys.executable).with_name("netplug"), *words, check=check)


def test_two_engines_on_two_hosts(
    joined: None, podman_of_root: Podman, containerd_of_ctr: Containerd
) -> None:
    podman, containerd = podman_of_root, containerd_of_ctr
    podman.add_network(CONFLIST)
    containerd.cell.write("/etc/cni/net.d/0-wide.conflist", json.dumps(CONFLIST))
    try:
        podman.run("web", "--network", "wide", command=WEB_SERVER)
        address = podman.address("web", "wide")
        with containerd.running("far", *WEB_SERVER):
            far = containerd.address("far")
            assert far.split(".")[:2] == address.split(".")[:2] and far != address
            ping = ("ping", "-c", "1", "-W", "2")
            eventually(lambda: containerd.execute("far", *ping, address), patience=10.0)
            podman("exec", "web", *ping, far)
            assert podman.cell.fetch(f"http://{far}/") == "ok\n"
            assert containerd.cell.fetch(f"http://{address}/") == "ok\n"
            gateway = f"{address.rpartition('.')[0]}.1"
            found = eventually(
                lambda: podman("exec", "web", "nslookup", "default-far", gateway), patience=5.0
            )
            assert far in found
    finally:
        podman.remove_all()
        containerd.cell.run("rm", "-f", "/etc/cni/net.d/0-wide.conflist")
