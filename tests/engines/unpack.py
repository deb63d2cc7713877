"""Container engines and reference plugins, unpacked into `.engines/` and never installed.

`python -m tests.engines.unpack` asks apt for the packages below and for those of their
dependencies this machine lacks, and unpacks them into one merged-/usr tree. It needs no root.
It must run where the network is, that is before the suite enters its own namespaces: `./run test`
does so. A later run finds the tree and does nothing.

Set-user-ID bits are dropped: nothing in the clone may give anybody root. A cell that needs
`newuidmap` makes its own privileged copy in a tmpfs (see cell.py).
"""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2] / ".engines"

REFERENCE = ("containernetworking-plugins",)
CLIENTS = ("bind9-dnsutils", "musl-dev")  # dig; a C library whose resolver has its own ways
PACKAGES = (
    *REFERENCE,
    "podman",
    "conmon",
    "runc",
    "slirp4netns",
    "uidmap",
    "golang-github-containers-common",
    "containerd",
    "dnsmasq-base",  # a DHCP server for tests
    *CLIENTS,
)
# Installing busybox-static would remove the package busybox; all three are static, so no closure
# is asked for.
STATIC = ("busybox-static", "etcd-server", "etcd-client")

LAYOUT = 1  # of the tree; a tree of another layout is made again
PATIENCE = 240.0  # seconds for everything; a slow mirror must not eat the time of the suite


class Unavailable(Exception):
    """The packages cannot be had here; the text is the reason to skip with."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A folder holding usr/ and etc/ of the unpacked packages, and their versions."""

    path: Path
    versions: dict[str, str]

    def program(self, name: str) -> Path:
        """The unpacked executable, or Unavailable."""
        for folder in ("usr/bin", "usr/sbin", "usr/lib/cni"):
            candidate = self.path / folder / name
            if candidate.is_file():
                return candidate
        raise Unavailable(f"{name} is in none of the packages unpacked in {self.path}")

    @property
    def plugins(self) -> Path:
        """The folder of the reference CNI plugins."""
        folder = self.path / "usr/lib/cni"
        if not (folder / "bridge").is_file():
            raise Unavailable(f"no reference plugins in {self.path}")
        return folder


def read_tree() -> Tree:
    """The tree of an earlier run; Unavailable when there is none for this system."""
    try:
        manifest = json.loads((ROOT / "manifest.json").read_text())
    except FileNotFoundError:
        raise Unavailable("not unpacked: run `python -m tests.engines.unpack` first") from None
    if manifest.get("system") != describe_system():
        raise Unavailable("unpacked for another system: run `python -m tests.engines.unpack`")
    return Tree(ROOT / "root", manifest["versions"])


def describe_system() -> dict[str, object]:
    release = platform.freedesktop_os_release()
    return {
        "id": release.get("ID", ""),
        "version": release.get("VERSION_ID", ""),
        "machine": platform.machine(),
        "layout": LAYOUT,
        "packages": [*PACKAGES, *STATIC],
    }


def ensure_tree() -> Tree:
    """The tree, downloaded and unpacked if need be.

    Raises Unavailable with the reason: no apt, no network, no such package, too slow.
    """
    try:
        return read_tree()
    except Unavailable:
        pass
    for tool in ("apt-get", "dpkg-deb", "tar"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{tool} is missing: not a Debian or Ubuntu system")
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir()
    apt = Apt(ROOT, deadline=time.monotonic() + PATIENCE)
    try:
        packages = apt.download()
    except Unavailable:
        # Lists of another day, or none at all: fetch our own beside, leaving the machine's alone.
        apt.update_private_lists()
        packages = apt.download()
    versions = unpack(packages, ROOT / "root")
    manifest = {"system": describe_system(), "versions": versions}
    (ROOT / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(apt.archives)
    shutil.rmtree(apt.lists, ignore_errors=True)
    return Tree(ROOT / "root", versions)


class Apt:
    """apt-get, writing below one folder only."""

    def __init__(self, folder: Path, *, deadline: float) -> None:
        self.archives = folder / "archives"
        self.lists = folder / "lists"
        self.deadline = deadline
        self.archives.mkdir()
        self._options: list[str] = ["-o", "Acquire::Retries=2", "-o", "Acquire::http::Timeout=20"]

    def update_private_lists(self) -> None:
        (self.lists / "partial").mkdir(parents=True, exist_ok=True)
        self._options += ["-o", f"Dir::State::lists={self.lists}"]
        self._options += ["-o", f"Dir::Cache={self.lists}", "-o", "Debug::NoLocking=true"]
        self._call("update")

    def download(self) -> list[Path]:
        """The archives of PACKAGES, STATIC, and what PACKAGES need and this machine lacks."""
        missing = self._missing_dependencies()
        self._call("download", *sorted({*PACKAGES, *STATIC, *missing}))
        return sorted(self.archives.glob("*.deb"))

    def _missing_dependencies(self) -> set[str]:
        plan = self._call("--simulate", "--no-install-recommends", "install", *PACKAGES)
        return {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")}

    def _call(self, *arguments: str) -> str:
        patience = self.deadline - time.monotonic()
        if patience <= 0:
            raise Unavailable(f"the packages did not arrive within {PATIENCE:.0f} s")
        return call(["apt-get", "-q", *self._options, *arguments], self.archives, patience)


def call(command: Sequence[str], cwd: Path, patience: float) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, timeout=patience, text=True, capture_output=True, check=True
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{command[0]} did not end within {patience:.0f} s") from None
    except subprocess.CalledProcessError as failure:
        lines = str(failure.stderr).strip().splitlines() or ["no reason given"]
        raise Unavailable(f"{command[0]}: {lines[-1]}") from None
    return done.stdout


def unpack(packages: Iterable[Path], tree: Path) -> dict[str, str]:
    """Unpack archives into `tree`, /bin, /sbin and /lib merged into /usr; name -> version."""
    for folder in ("usr/bin", "usr/sbin", "usr/lib", "etc"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    for name in ("bin", "sbin", "lib"):
        (tree / name).symlink_to(f"usr/{name}")
    versions = {}
    for package in packages:
        name, version, _ = package.name.split("_", 2)
        versions[name] = version.replace("%3a", ":")
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
        ) as archive:
            subprocess.run(
                # Without the option tar would replace our links by the package's folders.
                ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(tree)],
                stdin=archive.stdout,
                check=True,
            )
    for path in tree.rglob("*"):
        if not path.is_symlink() and path.stat().st_mode & 0o6000:
            path.chmod(path.stat().st_mode & 0o777)
    return versions


def main() -> int:
    """Exit 0 also when nothing can be had: the tests then skip, naming the same reason."""
    started = time.monotonic()
    try:
        try:
            read_tree()
            return 0
        except Unavailable:
            print(
                "engines: fetching podman, containerd and the reference plugins "
                "(about 90 MB, once, into .engines/)",
                flush=True,
            )
        tree = ensure_tree()
        print(f"engines: {len(tree.versions)} packages, {time.monotonic() - started:.0f} s")
    except Unavailable as reason:
        print(f"engines: their tests will be skipped: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
