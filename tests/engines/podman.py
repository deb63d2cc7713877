"""podman 4 with its CNI backend, as root or as an ordinary user, inside a cell."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from residue import Snapshot

from .cell import ENVIRONMENT, Cell, CommandFailed
from .images import NAME, Images
from .unpack import Tree, Unavailable

USER = "netplug-test"
USER_ID = 7777
SUBORDINATE = "700000:65536"
CAPABILITIES = (
    *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE"),
    *("NET_RAW", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
# No systemd and no journald in a cell; vfs needs no overlay below the namespaces of the suite.
# NET_RAW, which Debian drops, lets ping open its socket. The limits are the ones we have:
# raising a hard limit, as podman does by default, needs a capability that CI may lack.
CONFIGURATION = """
[containers]
default_capabilities = {capabilities}
default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin"]
"""
STORAGE = """
[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
"""
PREPARE_USER = """
name=$1 id=$2 range=$3 home=$4
echo "$name:x:$id:$id::$home:/bin/sh" >>/etc/passwd
echo "$name:x:$id:" >>/etc/group
echo "$name:$range" | tee -a /etc/subuid >>/etc/subgid
mkdir -p "$home" "/run/user/$id"
chmod 700 "/run/user/$id"
chown "$id:$id" "$home" "/run/user/$id"
"""


@dataclass(frozen=True, slots=True)
class Podman:
    """One user's podman. Called with the words of a command line, it returns the stdout."""

    cell: Cell
    networks: Path  # the folder this podman reads conflists from
    prefix: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=lambda: dict(ENVIRONMENT))

    def __call__(self, *arguments: str | Path, check: bool = True) -> str:
        words = (*self.prefix, "podman", *arguments)
        return self.cell.run(*words, check=check, environment=self.environment).strip()

    def run(self, name: str, *arguments: str, command: tuple[str, ...] = ()) -> str:
        """Start a detached container of the test image."""
        return self("run", "-d", "--name", name, *arguments, NAME, *command)

    def add_network(self, conflist: dict[str, object]) -> None:
        path = self.networks / f"{conflist['name']}.conflist"
        self.cell.write(path, json.dumps(conflist))

    def address(self, container: str, network: str) -> str:
        (container_state,) = json.loads(self("inspect", container))
        address: str = container_state["NetworkSettings"]["Networks"][network]["IPAddress"]
        return address

    def snapshot_of_rootless_network(self) -> Snapshot:
        """What is in the namespace where a rootless podman keeps its bridges.

        It exists while a container does, with the /run/user of its owner but its own /run.
        """
        command = (*self.prefix, "podman", "unshare", "--rootless-netns")
        database = f"{self.environment['XDG_RUNTIME_DIR']}/netplug/state.db"
        return self.cell.snapshot(*command, environment=self.environment, database=database)

    def remove_all(self) -> None:
        """Every container, then every network file of this podman."""
        self("rm", "--force", "--all", "--time", "0")
        self.cell.run("find", self.networks, "-name", "*.conflist", "-delete")


@contextmanager
def start_podman(tree: Tree, plugins: Path, images: Images) -> Iterator[Podman]:
    """podman of root, in a cell of its own, with the test image loaded."""
    require_cni_backend(tree)
    with Cell(tree, plugins) as cell:
        podman = Podman(cell, Path("/etc/cni/net.d"))
        configure(podman, images)
        yield podman


@contextmanager
def start_rootless_podman(tree: Tree, plugins: Path, images: Images) -> Iterator[Podman]:
    """podman of an ordinary user, that exists in its cell only."""
    require_cni_backend(tree)
    if not Path("/dev/net/tun").exists():
        raise Unavailable("no /dev/net/tun: slirp4netns cannot work")
    with Cell(tree, plugins) as cell:
        home = cell.path / "home" / USER
        words = (USER, str(USER_ID), SUBORDINATE, str(home))
        cell.run("sh", "-euc", PREPARE_USER, "prepare", *words)
        identity = (f"--reuid={USER_ID}", f"--regid={USER_ID}", "--clear-groups")
        environment = ENVIRONMENT | {
            "HOME": str(home),
            "USER": USER,
            "XDG_RUNTIME_DIR": f"/run/user/{USER_ID}",
        }
        networks = home / ".config/cni/net.d"
        prefix = ("setpriv", *identity, "env", "-C", str(home))
        podman = Podman(cell, networks, prefix, environment)
        try:
            cell.run(*prefix, sys.executable, "-c", "import sys")
        except CommandFailed:
            raise Unavailable(f"an ordinary user may not run {sys.executable}") from None
        cell.run(*prefix, "mkdir", "-p", networks)
        configure(podman, images)
        yield podman


def configure(podman: Podman, images: Images) -> None:
    limits = {
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "processes": resource.getrlimit(resource.RLIMIT_NPROC)[1],
    }
    text = CONFIGURATION.format(capabilities=json.dumps(CAPABILITIES), **limits)
    podman.cell.write("/etc/containers/containers.conf", text)
    podman.cell.write("/etc/containers/storage.conf", STORAGE)
    try:
        podman("load", "--quiet", "--input", images.docker_archive)
    except CommandFailed as failure:
        if "cni support is not enabled" in str(failure):
            raise Unavailable("this podman was built without its CNI backend") from None
        raise


def require_cni_backend(tree: Tree) -> None:
    """podman 5 knows netavark alone."""
    version = tree.versions.get("podman", "unknown")
    if version.split(":")[-1].split(".")[0] != "4":
        raise Unavailable(f"podman {version} has no CNI backend that is tested here (4.x has)")
