"""Names for network namespaces: bind mounts, as `ip netns` keeps them in /run/netns."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from netplug.errors import Conflict, KernelRefused

FOLDER = Path("/run/netns")
MS_BIND, MNT_DETACH = 0x1000, 0x2


def bind_namespace(fd: int, path: Path) -> None:
    """Keeps the namespace behind `fd` alive under `path`.

    Raises Conflict where the name is taken, KernelRefused where mounting is forbidden.
    """
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError as error:
        raise Conflict(
            f"network namespace {path} cannot be created", "the name is taken", f"see {path.parent}"
        ) from error
    except OSError as error:
        raise _refused(f"{path} cannot be created", error.errno or 0) from error
    libc = ctypes.CDLL(None, use_errno=True)
    source = f"/proc/self/fd/{fd}".encode()
    if libc.mount(source, os.fsencode(path), None, MS_BIND, None):
        code = ctypes.get_errno()
        path.unlink()
        raise _refused(f"a network namespace cannot be mounted at {path}", code)


def unbind_namespace(path: Path) -> None:
    """Removes the name; silent where it is gone."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.umount2(os.fsencode(path), MNT_DETACH)  # EINVAL: no mount, a plain file is left
    path.unlink(missing_ok=True)


def _refused(what: str, code: int) -> KernelRefused:
    return KernelRefused(
        what, os.strerror(code), "root, or a user and mount namespace of one's own", errno=code
    )
