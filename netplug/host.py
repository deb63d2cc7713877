"""The host that a request works on: its network namespace, its identity, its firewall.

Several hosts can share one state file (simulated hosts, rootless engines): every
row carries the host's id, boot id plus namespace cookie, for inode numbers of
namespaces are recycled within minutes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from netplug.errors import UnsupportedError
from netplug.firewall import Firewall
from netplug.kernel import Kernel, namespaces

if TYPE_CHECKING:
    from netplug.kernel.mirror import Warm

STATE_FOLDER = "/var/lib/netplug"
RUN_FOLDER = "/run/netplug"
BACKENDS = ("nft", "iptables", "none")


class Host:
    """The calling thread's network namespace, or the one behind `fd`. Close it.

    `warm`: it is kept for many requests, and may remember.
    """

    def __init__(self, fd: int | None = None, *, warm: bool = False) -> None:
        self.fd = namespaces.own_namespace() if fd is None else os.dup(fd)
        self.boot = namespaces.boot_id()
        self.cookie = namespaces.cookie(self.fd)
        self.id = f"{self.boot}:{self.cookie}"
        self._chosen: dict[str, str] = {}
        self._firewalls: dict[str, Firewall] = {}
        self._warm = _make_warm(self.fd) if warm else None

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for firewall in self._firewalls.values():
            firewall.close()
        self._firewalls.clear()
        if self._warm:
            self._warm.close()
        os.close(self.fd)

    def kernel(self, open_sandbox: Callable[[], int | None] = lambda: None) -> Kernel:
        """A kernel for one request, and for the thread that asks."""
        return Kernel(self.fd, open_sandbox, self.firewall, self._warm)

    def firewall(self, backend: str) -> Firewall:
        """The backend of that name, one for all requests: it is safe to share."""
        if backend not in self._firewalls:
            self._firewalls[backend] = make_firewall(backend, self.fd, warm=self._warm is not None)
        return self._firewalls[backend]

    def choose_firewall(self, wanted: str) -> str:
        """`wanted`, or for "auto" nft where the kernel has nf_tables, else iptables.

        Raises UnsupportedError where the named backend cannot work here.
        """
        if wanted in self._chosen:
            return self._chosen[wanted]
        self._chosen[wanted] = self._choose_firewall(wanted)
        return self._chosen[wanted]

    def _choose_firewall(self, wanted: str) -> str:
        if wanted == "auto":
            return "nft" if nft_problem(self.fd) is None else "iptables"
        if wanted not in BACKENDS:
            raise UnsupportedError(
                f"firewall {wanted!r} is unknown", f"there are auto, {', '.join(BACKENDS)}"
            )
        problem = nft_problem(self.fd) if wanted == "nft" else None
        if problem:
            raise UnsupportedError(
                "the nft firewall cannot be used", problem, 'use "iptables" or "auto"'
            )
        return wanted


def _make_warm(fd: int) -> Warm:
    from netplug.kernel.mirror import Warm

    return Warm(fd)


def make_firewall(backend: str, fd: int, *, warm: bool = False) -> Firewall:
    if backend == "nft":
        from netplug.firewall.nft import NftFirewall

        return NftFirewall(fd, warm=warm)
    if backend == "iptables":
        from netplug.firewall.iptables import IptablesFirewall

        return IptablesFirewall(fd)
    from netplug.firewall.none import NoFirewall

    return NoFirewall()


def nft_problem(fd: int) -> str | None:
    """Why nf_tables cannot be used in this namespace; None where it can."""
    from netplug.firewall.nft import NftFirewall

    return NftFirewall.usable(fd)


def in_initial_user_namespace() -> bool:
    with open("/proc/self/uid_map") as file:
        return file.read().split() == ["0", "0", "4294967295"]


def default_state_folder() -> Path:
    """/var/lib/netplug; inside a user namespace a folder of the user outside.

    There uid 0 is somebody else, whose folders under /run/user (or /tmp) are the
    ones that last as long as the namespace.
    """
    if in_initial_user_namespace():
        return Path(STATE_FOLDER)
    outside = _outside_uid()
    runtime = Path(f"/run/user/{outside}")
    if os.access(runtime, os.W_OK | os.X_OK):
        return runtime / "netplug"
    return Path(f"/tmp/netplug-{outside}")


def default_run_folder() -> Path:
    """Where sockets are: /run/netplug. Inside a user namespace that has none of its own, the
    folder of the state: its root may write nothing else that lasts as long."""
    if in_initial_user_namespace() or os.access(RUN_FOLDER, os.W_OK | os.X_OK):
        return Path(RUN_FOLDER)
    return default_state_folder()


def _outside_uid() -> int:
    own = os.geteuid()
    with open("/proc/self/uid_map") as file:
        for line in file:
            inside, outside, count = (int(word) for word in line.split())
            if inside <= own < inside + count:
                return outside + own - inside
    return own
