"""Containers of real engines find each other by name."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engines.cell import Cell, CommandFailed, eventually
from engines.containerd import Containerd
from engines.flavour import Flavour
from engines.images import NAME, WEB_SERVER, Images
from engines.podman import Podman, start_podman
from engines.unpack import Tree, Unavailable

NETPLUG = Path(sys.executable).with_name("netplug")
GATEWAY = "10.89.9.1"


def network(flavour: Flavour) -> dict[str, Any]:
    """`shop`, whose containers have names."""
    if flavour.name == "reference":
        pytest.skip("the reference plugins know no names")
    made: dict[str, Any] = flavour.network("shop", "10.89.9.0/24", bridge="np9")
    made["plugins"][0]["names"] = True
    return made


@contextmanager
def names_in(cell: Cell) -> Iterator[None]:
    """An agent, and so a name server, while the block runs."""
    cell.run(NETPLUG, "agent", "start")
    try:
        yield
    finally:
        cell.run(NETPLUG, "agent", "stop")
        cell.run("rm", "/run/netplug/agent.sock.stopped")  # no call may start it anew


def ask_in(podman: Podman, network: str, *command: str) -> str:
    return podman("run", "--rm", "--network", network, NAME, *command)


def demand_names(podman: Podman, domain: str) -> None:
    """web, also www, and api on the network shop: api finds web, by the server that the result
    named."""
    podman.run("web", "--network", "shop", "--network-alias", "www", command=WEB_SERVER)
    podman.run("api", "--network", "shop")
    resolv_conf = podman("exec", "api", "cat", "/etc/resolv.conf")
    assert f"nameserver {GATEWAY}" in resolv_conf and f"shop.{domain}" in resolv_conf
    for name in ("web", "www", f"web.{domain}", f"web.shop.{domain}"):
        podman("exec", "api", "ping", "-c1", "-W2", name)


def test_podman_through_one_plugin(podman: Podman, flavour: Flavour) -> None:
    podman.add_network(network(flavour))
    with names_in(podman.cell):
        demand_names(podman, "internal")
        fetched = eventually(lambda: podman("exec", "api", "wget", "-qO-", "http://www/"))
        assert fetched == "ok"
        podman("exec", "web", "ping", "-c1", "-W2", "api")
        short = podman("inspect", "--format", "{{.Id}}", "api")[:12]
        podman("exec", "web", "ping", "-c1", "-W2", short)
        podman("rm", "--force", "--time", "0", "api")
        with pytest.raises(CommandFailed):
            ask_in(podman, "shop", "ping", "-c1", "-W2", "api.shop.internal")
        podman("restart", "--time", "0", "web")
        ask_in(podman, "shop", "ping", "-c1", "-W2", "web")
        podman("rm", "--force", "--all", "--time", "0")


@pytest.fixture(scope="module")
def podman_with_dnsname(tree: Tree, images: Images, shared: Path) -> Iterator[Podman]:
    """podman with the reference plugins, and netplug for nothing but names."""
    folder = shared / "plugins-of-dnsname"
    shutil.copytree(tree.plugins, folder)
    command: list[str | Path] = [NETPLUG, "install", "--dnsname", "--bin-dir", folder]
    subprocess.run(command, check=True, capture_output=True)
    try:
        with start_podman(tree, folder, images) as podman:
            yield podman
    except Unavailable as reason:
        pytest.skip(str(reason))


def test_podman_writes_dnsname_into_its_networks(podman_with_dnsname: Podman) -> None:
    podman = podman_with_dnsname
    podman("network", "create", "--subnet", "10.89.9.0/24", "shop")
    conflist = json.loads(podman.cell.run("cat", "/etc/cni/net.d/shop.conflist"))
    assert conflist["plugins"][-1]["type"] == "dnsname"
    with names_in(podman.cell):
        demand_names(podman, "dns.podman")
        records = json.loads(podman.cell.run(NETPLUG, "dns", "records", "--json"))
        assert {record["name"] for record in records} == {
            "web.shop.dns.podman",
            "api.shop.dns.podman",
        }
        podman("rm", "--force", "--all", "--time", "0")
        assert json.loads(podman.cell.run(NETPLUG, "dns", "records", "--json")) == []
        assert json.loads(podman.cell.run(NETPLUG, "ps", "--json")) == []
    podman("network", "rm", "shop")


def test_podman_of_an_ordinary_user(rootless_podman: Podman, flavour: Flavour) -> None:
    """No agent can serve it: the first container starts a name server, the last one ends it."""
    podman = rootless_podman
    podman.add_network(network(flavour))
    demand_names(podman, "internal")
    podman("rm", "--force", "--all", "--time", "0")

    def ended() -> None:
        assert "netplug.dns" not in podman.cell.run("ps", "-A", "-o", "args")

    eventually(ended)


def test_containerd_and_a_caller_who_writes_resolv_conf(
    containerd: Containerd, flavour: Flavour
) -> None:
    cell = containerd.cell
    cell.write_network(network(flavour), order=0)
    try:
        with (
            names_in(cell),
            containerd.running("web", *WEB_SERVER),
            containerd.running("api", "sleep", "86400"),
        ):
            result = eventually(lambda: read_result(cell, "api"))  # cached behind the ADD
            lines = [f"nameserver {server}" for server in result["dns"]["nameservers"]]
            lines += [f"search {' '.join(result['dns']['search'])}"]
            write = f"printf '%s\\n' {' '.join(map(repr, lines))} >/etc/resolv.conf"
            containerd.execute("api", "sh", "-c", write)
            containerd.execute("api", "ping", "-c1", "-W2", "default-web")
            containerd.execute("api", "ping", "-c1", "-W2", "default-web.shop.internal")
    finally:
        cell.run("rm", "/etc/cni/net.d/0-shop.conflist")


def read_result(cell: Cell, container: str) -> dict[str, Any]:
    """What ADD answered, out of libcni's cache."""
    (path,) = cell.run("sh", "-c", f"ls /var/lib/cni/results/shop-*{container}-eth0").split()
    result: dict[str, Any] = json.loads(cell.run("cat", path))["result"]
    return result
