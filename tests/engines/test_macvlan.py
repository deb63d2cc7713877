"""Containers of podman and of containerd on a macvlan, beside the host and its LAN."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from engines.cell import Cell, eventually
from engines.containerd import Containerd
from engines.flavour import Flavour
from engines.images import NAME, WEB_SERVER
from engines.podman import Podman

PARENT = "lan0"
LAN = """
ip link add lan0 type veth peer name lan1
ip link set lan0 up
ip link set lan1 up
ip address add 10.89.9.10/24 dev lan0
"""


@contextmanager
def a_lan(cell: Cell, flavour: Flavour) -> Iterator[dict[str, object]]:
    """The cell has an interface into a LAN; a network on it."""
    if flavour.name == "reference":
        pytest.skip("the reference stands in for the bridge driver alone")
    cell.run("sh", "-ec", LAN)
    plugin = {
        "type": "netplug",
        "driver": "macvlan",
        "master": PARENT,
        "hostAccess": True,
        "ipam": {
            "type": "netplug",
            "ranges": [[{"subnet": "10.89.9.0/24", "rangeStart": "10.89.9.100"}]],
        },
        "capabilities": {"ips": True, "mac": True, "aliases": True},
    }
    try:
        yield {"cniVersion": "1.0.0", "name": "street", "plugins": [plugin]}
    finally:
        cell.run("ip", "link", "del", PARENT)


def test_podman(podman: Podman, flavour: Flavour) -> None:
    with a_lan(podman.cell, flavour) as network:
        podman.add_network(network)
        podman.run("web", "--network", "street", command=WEB_SERVER)
        address = podman.address("web", "street")
        assert address == "10.89.9.100"
        podman("run", "--rm", "--network", "street", NAME, "ping", "-c1", "-W2", address)
        assert podman.cell.fetch(f"http://{address}/") == "ok\n"  # from the host
        podman("rm", "--force", "--time", "0", "web")


def test_containerd(containerd: Containerd, flavour: Flavour) -> None:
    cell = containerd.cell
    with a_lan(cell, flavour) as network:
        cell.write_network(network, order=0)  # ctr takes the first one by name
        try:
            with containerd.running("web", *WEB_SERVER):
                address = eventually(lambda: containerd.address("web"))
                assert address == "10.89.9.100"
                containerd.run_attached("once", "ping", "-c1", "-W2", address)
                assert cell.fetch(f"http://{address}/") == "ok\n"
        finally:
            cell.run("rm", "/etc/cni/net.d/0-street.conflist")
