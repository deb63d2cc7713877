"""Programs to compare with that the tests of engines do not need: netavark, dockerd, mininet, name
servers.

`python -m bench.peers` unpacks them beside those engines, below `.engines/`; nothing is
installed. It must run where the network is; a later run finds them and does nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engines.unpack import ROOT as ENGINES
from engines.unpack import Apt, Unavailable, call, unpack

from bench.case import NotMeasured

ROOT = ENGINES / "peers"
MANIFEST = ROOT / "manifest.json"
# Each with what it needs beyond the engines' tree. Debian 11 has no netavark: one missing
# package must not cost the others.
PACKAGES = (
    *("netavark", "docker.io", "tini", "mininet", "bridge-utils", "net-tools"),
    *("dnsmasq-base", "aardvark-dns", "dnsperf", "libldns3"),
)
PATIENCE = 120.0  # seconds
PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/podman")
# From Debian's suite of the day, in a tree of its own: it wants a younger libc than ours.
NEWEST = ("aardvark-dns", "libc6", "libgcc-s1")
NEWEST_SUITE = "sid"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LOADERS = "usr/lib*/**/ld-linux-*.so.*"
WANTED = [*PACKAGES, NEWEST_SUITE, *NEWEST]


def fetch_peers() -> None:
    """Unpacks what can be had; says on stderr what cannot, and why."""
    if _read_manifest().get("packages") == WANTED:
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    apt = Apt(ROOT, deadline=time.monotonic() + PATIENCE)
    for package in PACKAGES:
        try:
            _call_apt(apt, "download", package)
        except Unavailable as reason:
            print(f"bench: {package} cannot be had: {reason}", file=sys.stderr)
    versions = unpack(sorted(apt.archives.glob("*.deb")), ROOT / "root")
    shutil.rmtree(apt.archives)
    try:
        newest = fetch_newest(ROOT / "newest")
    except Unavailable as reason:
        newest = {}
        print(f"bench: {NEWEST[0]} of {NEWEST_SUITE} cannot be had: {reason}", file=sys.stderr)
    manifest = {"packages": WANTED, "versions": versions, "newest": newest}
    MANIFEST.write_text(json.dumps(manifest, indent=1))


def fetch_newest(folder: Path) -> dict[str, str]:
    """Unpacks NEWEST with package lists of its own, from where this machine's packages come."""
    folder.mkdir()
    apt = Apt(folder, deadline=time.monotonic() + PATIENCE)
    form = ["--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian", "Component: main"]
    known = _call_apt(apt, "indextargets", *form).split()
    if not known:
        raise Unavailable("this machine's packages are not Debian's")
    source = folder / "source.list"
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    source.write_text(f"deb {signed}{known[0]} {NEWEST_SUITE} main\n")
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    options = [f"Dir::Etc::sourcelist={source}", "Dir::Etc::sourceparts=/dev/null"]
    options += [f"Dir::State::lists={lists}", f"Dir::Cache={lists}", "Debug::NoLocking=true"]
    words = [word for option in options for word in ("-o", option)]
    _call_apt(apt, *words, "update")
    _call_apt(apt, *words, "download", *(f"{name}/{NEWEST_SUITE}" for name in NEWEST))
    versions = unpack(sorted(apt.archives.glob("*.deb")), folder / "root")
    shutil.rmtree(apt.archives)
    shutil.rmtree(lists)
    return versions


def _call_apt(apt: Apt, *words: str) -> str:
    return call(["apt-get", "-q", *words], apt.archives, apt.deadline - time.monotonic())


def _read_manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    return found


def read_versions() -> dict[str, str]:
    """Package -> version of what was unpacked."""
    found: dict[str, str] = _read_manifest().get("versions", {})
    return found


def read_newest() -> str:
    """The version of the newest NEWEST[0]; "" where it could not be had."""
    found: dict[str, str] = _read_manifest().get("newest", {})
    return found.get(NEWEST[0], "")


def unpacked_folders() -> list[Path]:
    """Where unpacked programs are."""
    return [tree / "root" / name for tree in (ROOT, ENGINES) for name in PROGRAM_FOLDERS]


def find_program(name: str) -> Path:
    """The unpacked program, else the machine's own. Raises NotMeasured."""
    for folder in unpacked_folders():
        if (folder / name).is_file():
            return folder / name
    if found := shutil.which(name):
        return Path(found)
    raise NotMeasured(f"{name} is not here, and could not be fetched")


def find_newest() -> Sequence[str]:
    """How to execute the newest NEWEST[0]: by the libc that it was made for. Raises NotMeasured."""
    root = ROOT / "newest/root"
    program = root / "usr/lib/podman" / NEWEST[0]
    loaders = sorted(root.glob(LOADERS))
    if not program.is_file() or not loaders:
        raise NotMeasured(f"{NEWEST[0]} of {NEWEST_SUITE} could not be fetched")
    libc = next(root.glob("usr/lib/**/libc.so.6"))
    return [str(loaders[-1]), "--library-path", str(libc.parent), str(program)]


def library_path() -> str:
    """LD_LIBRARY_PATH of unpacked programs."""
    trees = [tree / "root/usr/lib" for tree in (ROOT, ENGINES)]
    return ":".join(str(path) for tree in trees for path in sorted(tree.glob("*-linux-*")))


if __name__ == "__main__":
    fetch_peers()
