"""Programs to compare with that no test needs: netavark, dockerd, mininet.

`python -m bench.peers` unpacks them beside those engines, below `.engines/`; nothing is
installed. It must run where the network is; a later run finds them and does nothing.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

from engines.unpack import ROOT as ENGINES
from engines.unpack import Apt, Unavailable, call, unpack

from bench.case import NotMeasured

ROOT = ENGINES / "peers"
MANIFEST = ROOT / "manifest.json"
ASKED = ROOT / "asked"  # the packages of that tree's making
# Each with what it needs beyond the engines' tree. Debian 11 has no netavark: one missing
# package must not cost the others.
PACKAGES = ("netavark", "docker.io", "tini", "mininet", "bridge-utils", "net-tools")
PATIENCE = 120.0  # seconds
PROGRAM_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/podman")


def fetch_peers() -> None:
    """Unpacks what can be had; says on stderr what cannot, and why."""
    if MANIFEST.exists() and ASKED.exists() and ASKED.read_text().split() == list(PACKAGES):
        return
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    deadline = time.monotonic() + PATIENCE
    apt = Apt(ROOT, deadline=deadline)
    for package in PACKAGES:
        try:
            call(["apt-get", "-q", "download", package], apt.archives, deadline - time.monotonic())
        except Unavailable as reason:
            print(f"bench: {package} cannot be had: {reason}", file=sys.stderr)
    versions = unpack(sorted(apt.archives.glob("*.deb")), ROOT / "root")
    MANIFEST.write_text(json.dumps(versions, indent=1))
    ASKED.write_text("\n".join(PACKAGES))
    shutil.rmtree(apt.archives)


def read_versions() -> dict[str, str]:
    """Package -> version of what was unpacked."""
    found: dict[str, str] = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    return found


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


if __name__ == "__main__":
    fetch_peers()
