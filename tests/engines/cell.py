"""A cell: a piece of this machine where an engine can be what it is on a real host.

Private mount, network and process namespaces in which /usr is the machine's own with the
unpacked packages laid over it, /etc a copy, and every folder an engine writes to an empty tmpfs.
So engines run with their built-in paths, helper folders and an ordinary environment: what the
plugin sees is what it would see on a host. The end of the cell's first process ends every
process, mount and link in it.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import TypeVar

import residue
from residue import Snapshot

from .unpack import Tree, Unavailable

T = TypeVar("T")
CGROUPS = Path("/sys/fs/cgroup")
# Engines make these below each hierarchy, which no namespace hides, and never remove them.
ENGINE_CGROUPS = ("libpod_parent", "default", "k8s.io")
ROOT = Path(__file__).resolve().parents[2]
FOLDER = "/tmp"  # whatever TMPDIR says: a cell replaces /run
PATIENCE = 60.0  # seconds for one command of an engine; they take one or two
# What an engine is given on a host without a login session. PATH is the one of a Debian root.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
}

SETUP = """
base=$1 tree=$2 plugins=$3 openings=$4
mount -t tmpfs -o mode=755 cell "$base"
cd "$base"
mkdir cgroup etc home opt opt-work tree usr usr/bin
mount --bind "$tree" tree

# A process namespace needs its own /proc, a network namespace its own /sys. Where cgroup v1
# carries a v2 tree beside it, some runtimes refuse to start: they see v1 alone.
mount --rbind /sys/fs/cgroup cgroup
if mountpoint -q cgroup/unified; then umount cgroup/unified; fi
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount --rbind cgroup /sys/fs/cgroup

# /usr stays read-only. The set-user-ID bit was dropped from the tree, and lives here only.
for name in newuidmap newgidmap; do
    if [ -e tree/usr/bin/$name ]; then install -m 4755 tree/usr/bin/$name usr/bin/; fi
done
mount -t overlay -o "lowerdir=$base/usr:$base/tree/usr:/usr" cell /usr
cp -a /etc/. etc/
cp -a tree/etc/. etc/
rm -rf etc/cni etc/resolv.conf
mkdir -p etc/cni/net.d
echo 'nameserver 192.0.2.53' >etc/resolv.conf # never reached: a cell has no way out
mount --bind etc /etc
mount -t overlay -o "lowerdir=/opt,upperdir=$base/opt,workdir=$base/opt-work" cell /opt
mount -t tmpfs -o mode=755 cell /run
mkdir -p /run/netns /run/lock /opt/cni/bin
for folder in cni containerd containers netplug; do
    mkdir -p /var/lib/$folder
    mount -t tmpfs -o mode=755 cell /var/lib/$folder
done
mount -t tmpfs -o mode=755 cell /usr/lib/cni # engines look there too: no plugin but ours
mount --bind "$plugins" /opt/cni/bin
if [ -e /dev/net/tun ]; then # often for root alone; slirp4netns runs as an ordinary user
    mknod -m 666 tun c 10 200
    mount --bind tun /dev/net/tun
fi
eval "$openings"
mount --make-rshared /
ip link set lo up
trap '' CHLD # inherited by cat, the first process here: the kernel then reaps orphans itself
echo ready
exec cat
"""


READ_RESIDUE = """
import dataclasses, json, residue, sys
residue.DATABASE = sys.argv[1]
snapshot = residue.take_snapshot()
names = [field.name for field in dataclasses.fields(snapshot)]
print(json.dumps({name: sorted(getattr(snapshot, name)) for name in names}))
"""


class CommandFailed(AssertionError):
    """A command of an engine failed; the text shows both of its streams."""


class Cell:
    """Namespaces held by one process, and the commands that run inside.

    `path` is a tmpfs that only the cell sees; `plugins` becomes /opt/cni/bin.
    Raises CommandFailed with the reason where such namespaces or mounts cannot be had.
    """

    def __init__(self, tree: Tree, plugins: Path) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="netplug-cell-", dir=FOLDER))
        self._foreign_cgroups = {path for path in engine_cgroups() if path.exists()}
        self._services: list[subprocess.Popen[bytes]] = []
        flags = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation=private"]
        self._holder = subprocess.Popen(
            ["unshare", *flags, "sh", "-euc", SETUP, "cell"]
            + [str(path) for path in (self.path, tree.path, plugins)]
            + [render_openings(ROOT, Path(sys.prefix), Path(sys.base_prefix))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout
        if self._holder.stdout.readline() != "ready\n":
            _, reason = self._holder.communicate()
            self.path.rmdir()
            raise CommandFailed(f"no cell for an engine can be made here: {reason.strip()}")
        self._first = self._first_process()
        self._enter = ["nsenter", "-t", str(self._first), "-m", "-n", "-p", "--"]

    def _first_process(self) -> int:
        """The process `unshare --fork` waits for: number 1 inside, another number out here."""
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children")
        return int(children.read_text().split()[0])

    @property
    def first_process(self) -> int:
        """Its number out here; it holds the cell's namespaces."""
        return self._first

    def __enter__(self) -> Cell:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends everything in the cell; waits until the kernel has."""
        for service in self._services:
            service.terminate()
        self._holder.communicate()  # end of its stdin: cat ends, and every process with it
        for service in self._services:
            service.wait()
        self.path.rmdir()
        for path in engine_cgroups():
            if path.exists() and path not in self._foreign_cgroups:
                remove_cgroup(path)

    def run(
        self,
        *command: str | Path,
        check: bool = True,
        environment: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> str:
        """The stdout of a command; CommandFailed unless it ends with 0 or `check` is false."""
        done = subprocess.run(
            [*self._enter, *map(str, command)],
            env=dict(environment or ENVIRONMENT),
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=patience,
        )
        if check and done.returncode:
            line = " ".join(map(str, command))
            raise CommandFailed(f"{line}\n{done.stdout}{done.stderr}exit {done.returncode}")
        return done.stdout

    def start(self, *command: str | Path, log: Path | None = None) -> subprocess.Popen[bytes]:
        """A command that goes on, at most until the cell ends. `log` is a file outside of it."""
        with (log or Path("/dev/null")).open("wb") as out:
            service = subprocess.Popen(
                [*self._enter, *map(str, command)],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        self._services.append(service)
        return service

    def write(self, path: str | Path, text: str) -> None:
        """A file in the cell, appearing at once as a whole: engines watch their folders."""
        script = 'mkdir -p "${1%/*}"; printf %s "$2" >"$1.new"; mv "$1.new" "$1"'
        self.run("sh", "-ec", script, "write", path, text)

    def write_network(self, conflist: Mapping[str, object], order: int = 10) -> None:
        """A network of the engines in this cell: they read them by file name."""
        path = f"/etc/cni/net.d/{order}-{conflist['name']}.conflist"
        self.write(path, json.dumps(conflist))

    def fetch(self, url: str) -> str:
        """The body that `url` answers from the cell's network namespace, its 'host'."""
        return eventually(lambda: self.run("busybox", "wget", "-qO-", url, patience=5.0))

    def outside(self, path: str) -> Path:
        """A path of the cell, as processes outside of it can open it."""
        return Path(f"/proc/{self._first}/root{path}")

    def snapshot(
        self,
        *prefix: str,
        environment: Mapping[str, str] = ENVIRONMENT,
        database: str = residue.DATABASE,
    ) -> Snapshot:
        """What a network leaves on a host: tests/residue.py, run inside the cell.

        `prefix` is a command that enters yet another place, such as a rootless podman's
        network namespace, and `database` the state of netplug there.
        """
        words = (*prefix, sys.executable, "-c", READ_RESIDUE, database)
        path = {"PYTHONPATH": str(Path(residue.__file__).parent)}
        seen: dict[str, list[str]] = json.loads(
            self.run(*words, environment={**environment, **path})
        )
        files = [file for file in seen["files"] if is_of_network(file)]
        routes = [route for line in seen["routes"] if (route := read_route(line))]
        kept = {"files": files, "routes": routes} | {
            name: seen[name] for name in ("links", "rules", "rows")
        }
        nothing: dict[str, frozenset[str]] = {
            field.name: frozenset() for field in dataclasses.fields(Snapshot)
        }
        return Snapshot(**nothing | {name: frozenset(things) for name, things in kept.items()})


def render_openings(*kept: Path) -> str:
    """Shell lines that let ordinary users reach `kept`: this clone, and the Python it runs on.

    Homes are often closed to others. One above a kept folder is replaced by an empty one.
    """
    homes = {
        folder: {home for home in folder.parents if not home.stat().st_mode & 0o001}
        for folder in kept
    }
    kept = tuple(folder for folder in kept if homes[folder])
    lines = []
    for number, folder in enumerate(kept):
        lines += [f"mkdir kept{number}", f"mount --bind {quote(str(folder))} kept{number}"]
    for home in sorted(set().union(*homes.values())):
        lines += [f"mkdir -p {quote(str(home))}"]
        lines += [f"mount -t tmpfs -o mode=755 cell {quote(str(home))}"]
    for number, folder in enumerate(kept):
        lines += [f"mkdir -p {quote(str(folder))}"]
        lines += [f"mount --bind kept{number} {quote(str(folder))}"]
    return "\n".join(lines)


def read_route(line: str) -> str:
    """What a line of /proc/net/route or ipv6_route says about a network; mostly nothing.

    Usage counts change by themselves. The kernel makes lo's routes and those of link-local and
    multicast addresses (fe80::/10, ff00::/8), some of them seconds after the link is up, and
    those that slirp4netns advertises on its tap0.
    """
    words = line.split()
    if len(words) != 10:  # not of ipv6_route
        return line
    destination, length, *_, link = words
    by_kernel = link in ("lo", "tap0") or destination.startswith(("fe80", "ff"))
    return "" if by_kernel else f"{destination}/{length} {link}"


def is_of_network(file: str) -> bool:
    """Whether a file is state of a network; the engine's own databases are its own affair."""
    folders = ("/run/netns/", "/run/netplug/", "/var/lib/netplug/", "/var/lib/cni/")
    # libcni's folder, and the reference's lock and last address, are there for ever
    bookkeeping = ("/var/lib/cni/results", "/lock", "/last_reserved_ip.0", "/last_reserved_ip.1")
    database = "state.db" in file.rsplit("/", 1)[-1]
    return file.startswith(folders) and not file.endswith(bookkeeping) and not database


def eventually(attempt: Callable[[], T], *, patience: float = 5.0) -> T:
    """The answer of `attempt`, asked again while it fails: servers need a moment to listen."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return attempt()
        except (AssertionError, subprocess.TimeoutExpired):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def eventually_none(read: Callable[[], list[str]], *, patience: float = 5.0) -> list[str]:
    """What `read` still returns when the engine had time for its own clean-up."""
    deadline = time.monotonic() + patience
    while (left := read()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def engine_cgroups() -> Sequence[Path]:
    """Where engines would make their cgroups: below each v1 hierarchy, or below the one of v2."""
    hierarchies = [CGROUPS, *(path for path in CGROUPS.glob("*") if path.is_dir())]
    return [hierarchy / name for hierarchy in hierarchies for name in ENGINE_CGROUPS]


def remove_cgroup(path: Path) -> None:
    """Remove a cgroup and those below it, if no process is left in them."""
    for folder, _, _ in os.walk(path, topdown=False):
        for _ in range(20):  # a process that has just died is counted a moment longer
            try:
                Path(folder).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.05)


def require_root() -> None:
    if os.geteuid() != 0 or Path("/proc/self/uid_map").read_text().split()[2] != "4294967295":
        raise Unavailable("engines here need real root: mounts, cgroups and other users")
    for tool in ("unshare", "nsenter", "setpriv"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is missing")
