"""What a user of `netplug connect` gets: resolv.conf for a named namespace, and `netplug dns`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from agents import wait_for
from dns_tools import build_getent, find_tree
from dns_upstream import honest, upstream

from netplug import resolver_files
from netplug.dns import service
from netplug.host import default_run_folder

if TYPE_CHECKING:
    from conftest import Host

NETPLUG = Path(sys.executable).with_name("netplug")


class User:
    """Somebody at a shell of the host."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder

    def __call__(self, command: str, status: int = 0) -> str:
        """stdout of `netplug COMMAND`; for a failure, stderr."""
        done = self.host.call(
            lambda: subprocess.run(
                f"{NETPLUG} --conf-dir {self.folder} {command}",
                shell=True,
                capture_output=True,
                text=True,
                check=False,
            )
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done.stderr if status else done.stdout

    def json(self, command: str) -> Any:
        return json.loads(self(f"{command} --json"))


@pytest.fixture
def user(host: Host, tmp_path: Path) -> Iterator[User]:
    user = User(host, tmp_path)
    user("network create lan --subnet 10.1.0.0/24 --subnet fd00:1::/64")
    yield user
    wait_for(lambda: service.read_status(default_run_folder()) is None, "the name server's end")
    for path in Path("/etc/netns").iterdir():  # what tests put there for an administrator
        path.unlink() if path.is_symlink() else shutil.rmtree(path)
    shutil.rmtree("/var/lib/cni/results")


def resolv_conf(container: Host) -> Path:
    return Path("/etc/netns") / container.name / "resolv.conf"


def test_ip_netns_exec_finds_names(user: User, host: Host, tmp_path: Path) -> None:
    """With glibc's getaddrinfo and with musl's."""
    web, db = host.container("web"), host.container("db")
    user(f"connect {web.name} lan --name web --alias www")
    user(f"connect {db.name} lan --name db")
    assert resolv_conf(db).read_text().splitlines()[1:] == [
        "nameserver 10.1.0.1",
        "nameserver fd00:1::1",
        "search lan.internal",
    ]
    inside = f"ip netns exec {db.name}"
    for name in ("web", "www", "web.lan.internal"):
        assert host.run(f"{inside} getent ahostsv4 {name}").startswith("10.1.0.2"), name
        assert host.run(f"{inside} getent ahostsv6 {name}").startswith("fd00:1::2"), name
    assert host.run(f"{inside} getent hosts 10.1.0.2").split()[1] == "web.lan.internal"
    assert "1 received" in host.run(f"{inside} ping -c1 -W2 web")
    musl = build_getent(find_tree(), tmp_path)
    for name in ("web", "WWW", "web.lan.internal"):
        assert set(host.run(f"{inside} {musl} {name}").split()) == {"10.1.0.2", "fd00:1::2"}, name
    host.run(f"! {inside} {musl} nobody.lan.internal")
    user(f"disconnect {db.name} lan")
    assert not resolv_conf(db).parent.exists()
    user(f"disconnect {web.name} lan")


def test_servers_of_all_networks_of_a_namespace(user: User, host: Host) -> None:
    user("network create back --subnet 10.2.0.0/24 --internal")
    both = host.container("both")
    user(f"connect {both.name} lan")
    first = resolv_conf(both).read_text()
    user(f"connect {both.name} back")
    text = resolv_conf(both).read_text()
    assert text.splitlines()[1:] == [
        "nameserver 10.1.0.1",
        "nameserver fd00:1::1",
        "nameserver 10.2.0.1",
        "search lan.internal back.internal",
    ]
    user(f"disconnect {both.name} back")
    assert resolv_conf(both).read_text() == first
    user(f"disconnect {both.name} lan")
    assert not resolv_conf(both).exists()


@pytest.mark.parametrize("what", ["a file", "a link", "a folder that is a link"])
def test_an_administrators_file_stays(user: User, host: Host, tmp_path: Path, what: str) -> None:
    web = host.container("web")
    path = resolv_conf(web)
    target = tmp_path / "target"
    target.write_text("nameserver 192.0.2.1\n")
    if what == "a folder that is a link":
        path.parent.symlink_to(tmp_path)
    else:
        path.parent.mkdir()
        path.write_text("nameserver 192.0.2.1\n") if what == "a file" else path.symlink_to(target)
    before = sorted(os.listdir(tmp_path))
    user(f"connect {web.name} lan")
    user(f"disconnect {web.name} lan")
    assert target.read_text() == "nameserver 192.0.2.1\n"
    assert sorted(os.listdir(tmp_path)) == before
    if what != "a folder that is a link":
        assert path.read_text() == "nameserver 192.0.2.1\n"
        assert path.is_symlink() == (what == "a link")


def test_what_is_left_of_a_namespace_that_is_gone(user: User, host: Host) -> None:
    web = host.container("web")
    user(f"connect {web.name} lan")
    os.close(web.fd)
    web.fd = os.open("/dev/null", os.O_RDONLY)
    subprocess.run(["ip", "netns", "del", web.name], check=True)
    assert resolv_conf(web).exists()
    wait_for(lambda: "veth" not in host.run("ip -br link"), "the end of the veth pair")
    assert str(resolv_conf(web)) not in user("gc --dry-run") and resolv_conf(web).exists()
    user("gc")
    assert not resolv_conf(web).parent.exists()


def test_the_way_of_a_question(user: User, host: Host) -> None:
    assert "netplug agent start" in user("dns records", 8)
    web, api = host.container("web"), host.container("api")
    user(f"connect {web.name} lan --name web --alias www --publish 8080:80")
    user(f"connect {api.name} lan --name api")
    (record,) = [one for one in user.json("dns records") if "www" in one["names"]]
    assert record["addresses"] == ["10.1.0.2", "fd00:1::2"]
    assert record["services"] == ["_http._tcp:80"] and record["servers"] == "10.1.0.1, fd00:1::1"
    table = user("dns query www --from api")
    assert "api asks 10.1.0.1, fd00:1::1 and sees lan" in table
    assert "www.lan.internal" in table and "names of network lan" in table
    assert "10.1.0.2" in table and "lan/" in table
    found = user.json("dns query web --from api --type aaaa")
    (step,) = found["steps"]
    assert [one["data"] for one in step["answers"]] == ["fd00:1::2"] and step["ms"] < 1000
    assert user.json("dns query 10.1.0.2 --from api")["steps"][0]["answers"][0]["data"] == (
        "web.lan.internal."
    )
    assert "NODATA" in host.run(f"{NETPLUG} dns query web --from api --type MX", check=False)
    host.run("ip addr add 192.0.2.53/32 dev lo")
    with upstream(host, "192.0.2.53", honest):
        user("network create out --subnet 10.3.0.0/24 --dns 192.0.2.53")
        lone = host.container("lone")
        user(f"connect {lone.name} out --name lone")
        way = user("dns query example.com --from lone")
        assert "upstream 192.0.2.53" in way and "192.0.2.7" in way
        assert "cache" in user("dns query example.com --from lone")
        assert user.json("dns flush") == {"flushed": 1}
        stats = user.json("dns stats")
        assert stats["upstream"][0]["server"] == "192.0.2.53" and stats["attachments"] == 3
        assert "answered from names" in user("dns stats")
    assert "NXDOMAIN" in user("dns query nobody.internal --from api", 4)
    assert "see: netplug ps" in user("dns query web --from somebody", 4)
    for container, network in ((web, "lan"), (api, "lan"), (lone, "out")):
        user(f"disconnect {container.name} {network}")


def test_the_sweep_leaves_other_states_alone(tmp_path: Path) -> None:
    from netplug.state import State

    state = State(tmp_path / "one")
    other = Path("/etc/netns/elsewhere")
    other.mkdir()
    (other / "resolv.conf").write_text(f"{resolver_files.MARK}/somewhere\nnameserver 1.2.3.4\n")
    mine = Path("/etc/netns/mine")
    mine.mkdir()
    (mine / "resolv.conf").write_text(f"{resolver_files.MARK}{state.folder}\nnameserver ::1\n")
    assert resolver_files.sweep(state, dry_run=True) == ["/etc/netns/mine/resolv.conf"]
    assert resolver_files.sweep(state) == ["/etc/netns/mine/resolv.conf"]
    assert not mine.exists() and (other / "resolv.conf").exists()
    shutil.rmtree(other)
    state.close()
