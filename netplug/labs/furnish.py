"""The file system of a lab: the machine's own, with private copies of what networks are kept in.

/run, /etc and /var/lib can be written without a trace on the machine, and programs, home and
the current folder are the student's own.
"""

from __future__ import annotations

import os
from pathlib import Path

from netplug.kernel.sandbox import MS_BIND, MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_REC, MS_SHARED, mount

HIDDEN = {"netns", "netplug", "user", "xtables.lock"}  # of /run: nothing of the machine's is seen
PRIVATE = ("/etc/cni", "/etc/netplug", "/etc/netns", "/var/lib/cni", "/var/lib/netplug")
SESSION = Path("/run/netplug/lab")  # where the lab's own folder is seen from inside


def furnish(session: Path, outside_uid: int) -> None:
    """Inside a new mount namespace: private /run, /etc and /var/lib. Raises OSError."""
    show_own_links()
    keep = os.open(session, os.O_PATH | os.O_CLOEXEC)
    _make_run(outside_uid)
    SESSION.mkdir(parents=True)
    mount(f"/proc/self/fd/{keep}", str(SESSION), flags=MS_BIND)
    os.close(keep)
    for folder in ("/etc", "/var/lib"):
        _make_writable(folder)
    for name in PRIVATE:
        try:
            os.makedirs(name, exist_ok=True)
            mount("lab", name, "tmpfs", options="mode=755")
        except OSError:
            continue  # no overlay in user namespaces (before Linux 5.11), and no such folder


def show_own_links() -> None:
    """/sys/class/net of the namespace that we are in; sysfs shows the one it was mounted from."""
    try:
        mount("lab", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    except OSError:
        return  # a container without a whole /sys: ip shows the links all the same


def _make_run(outside_uid: int) -> None:
    """An empty /run with the machine's folders in it, but those of networks and users."""
    with os.scandir("/run") as entries:
        folders = [e.name for e in entries if e.is_dir(follow_symlinks=False)]
    kept = {
        name: os.open(f"/run/{name}", os.O_PATH | os.O_CLOEXEC)
        for name in folders
        if name not in HIDDEN
    }
    mount("lab", "/run", "tmpfs", options="mode=755")
    for name, descriptor in kept.items():
        os.mkdir(f"/run/{name}")
        try:
            mount(f"/proc/self/fd/{descriptor}", f"/run/{name}", flags=MS_BIND | MS_REC)
        except OSError:
            os.rmdir(f"/run/{name}")
        os.close(descriptor)
    for name in ("netns", "netplug"):
        os.mkdir(f"/run/{name}")
    # `ip netns add` in one shell is seen in all, though each has mounts of its own.
    mount("/run/netns", "/run/netns", flags=MS_BIND)
    mount("", "/run/netns", flags=MS_SHARED)
    os.makedirs(f"/run/user/{outside_uid}", mode=0o700)


def _make_writable(folder: str) -> None:
    layer = f"/run/netplug/layers{folder}"
    os.makedirs(f"{layer}/upper")
    os.makedirs(f"{layer}/work")
    options = f"lowerdir={folder},upperdir={layer}/upper,workdir={layer}/work"
    try:
        mount("lab", folder, "overlay", options=options)
    except OSError:
        return
