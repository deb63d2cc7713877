"""The fixtures of the suite itself: hosts are apart from each other, and residue is seen."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from residue import take_snapshot

if TYPE_CHECKING:
    from conftest import Host


def test_a_host_has_its_own_links_with_lo_up(host: Host) -> None:
    host.run("ip link add left0 type bridge")
    assert "UP" in host.run("ip -o link show lo")
    assert host.call(socket.if_nameindex)[-1][1] == "left0"
    assert "left0" not in [name for _, name in socket.if_nameindex()]


def test_containers_are_namespaces_of_their_own(host: Host) -> None:
    web, db = host.container("web"), host.container("db")
    assert len({os.fstat(one.fd).st_ino for one in (host, web, db)}) == 3
    assert Path(web.path).exists()


def test_every_kind_of_residue_is_named(host: Host, make_host: Callable[[str], Host]) -> None:
    before = take_snapshot()
    subprocess.run(["ip", "link", "add", "left0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", "left0", "up"], check=True)
    subprocess.run(["nft", "add table inet left"], check=True)
    subprocess.run(["iptables-legacy", "-t", "nat", "-N", "LEFT"], check=True)
    lease = Path("/var/lib/netplug/lease")
    lease.touch()
    process = host.start("exec sleep 60")
    other = make_host("other")
    try:
        left = before.added(take_snapshot())
    finally:
        subprocess.run(["ip", "link", "del", "left0"], check=True)
        subprocess.run(["nft", "delete table inet left"], check=True)
        subprocess.run(["iptables-legacy", "-t", "nat", "-X", "LEFT"], check=True)
        lease.unlink()
    assert "links: left0" in left
    assert "rules: nft: table inet left {" in left
    assert "rules: iptables nat: :LEFT -" in left
    assert f"files: {lease}" in left
    assert any(line.startswith(f"processes: {process.pid} ") for line in left)
    assert f"files: {other.path}" in left and f"mounts: {other.path}" in left
    assert any(line.startswith(f"descriptors: {other.fd} ") for line in left)
    assert any(line.startswith("routes: ") and "left0" in line for line in left)
