"""Network namespaces: opening, identity, and running code inside one.

A thread that enters a namespace does so for one piece of work, and is home again
whatever becomes of it: nothing can be left in the wrong place.
"""

from __future__ import annotations

import fcntl
import functools
import os
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from netplug.errors import KernelRefused, SandboxError

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
SO_NETNS_COOKIE = 71  # socket(7), since Linux 5.14
OWN = "/proc/thread-self/ns/net"


def _setns(fd: int) -> None:
    if hasattr(os, "setns"):  # Python 3.12
        os.setns(fd, CLONE_NEWNET)
        return
    _call("setns", fd, CLONE_NEWNET)


def _unshare() -> None:
    if hasattr(os, "unshare"):  # Python 3.12
        os.unshare(CLONE_NEWNET)
        return
    _call("unshare", CLONE_NEWNET)


def _call(name: str, *arguments: int) -> None:
    if _function(name)(*arguments):
        import ctypes

        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


@functools.cache
def _function(name: str) -> Callable[..., int]:
    import ctypes  # late: newer Pythons do without

    function: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    return function


def in_namespace(fd: int, work: Callable[[], T]) -> T:
    """Runs `work` in the namespace behind `fd`; its result or its exception."""
    status = os.stat(OWN)
    if identity(fd) == (status.st_dev, status.st_ino):
        return work()
    return _elsewhere(lambda: _setns(fd), work)


def _elsewhere(enter: Callable[[], None], work: Callable[[], T]) -> T:
    """The calling thread enters a namespace and comes home (0.02 ms, as a thread takes 0.2).

    Home must take it back, so it is asked beforehand: a namespace that belongs to the user
    namespace around ours does not, and then a thread goes that need not come back.
    """
    home = own_namespace()
    try:
        try:
            _setns(home)
        except PermissionError:
            return _in_thread(enter, work)
        enter()
        try:
            return work()
        finally:
            _come_home(home)
    finally:
        os.close(home)


def _come_home(home: int) -> None:
    try:
        _setns(home)
    except OSError:  # nothing that this thread does from here on would be in the right place
        os.abort()


def new_namespace() -> int:
    """A descriptor of a new, nameless network namespace; it dies with its last user."""
    return _elsewhere(_unshare, own_namespace)


def _in_thread(enter: Callable[[], None], work: Callable[[], T]) -> T:
    import threading  # late: seldom needed

    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            enter()
            results.append(work())
        except BaseException as error:  # handed to the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="netplug-netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def enter_namespace(fd: int) -> None:
    """Puts the calling thread into the network namespace, for good: before an exec."""
    _setns(fd)


def own_namespace() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


def open_namespace(path: str) -> int | None:
    """A descriptor of the network namespace at `path`; None when it is gone.

    Gone is: no such file, a process that ended, or a plain file where a mount was
    (cri-o leaves one). Raises SandboxError for a namespace of another kind.
    """
    if not path:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError):
        return None
    except OSError as error:
        why = error.strerror or ""
        raise SandboxError(f"network namespace {path} cannot be opened", why) from error
    return demand_namespace(fd, path)


def demand_namespace(fd: int, path: str) -> int | None:
    """`fd` if it is a network namespace; else it is closed, and None for what is no namespace.

    Raises SandboxError for one of another kind.
    """
    try:
        kind = fcntl.ioctl(fd, NS_GET_NSTYPE)
    except OSError:  # not of nsfs: a plain file, a device, a folder
        os.close(fd)
        return None
    if kind != CLONE_NEWNET:
        os.close(fd)
        raise SandboxError(
            f"{path} is no network namespace",
            "it is a namespace of another kind",
            "pass the path of a network namespace, such as /run/netns/NAME or /proc/PID/ns/net",
        )
    return fd


def close(fd: int) -> None:
    os.close(fd)


def identity(fd: int) -> tuple[int, int]:
    """(device, inode): equal for two descriptors of one namespace, while it lives."""
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def identity_of(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def cookie(fd: int) -> int:
    """SO_NETNS_COOKIE: a number that the kernel never gives twice within one boot."""
    with netlink_socket(fd, socket.NETLINK_ROUTE) as probe:
        return cookie_of(probe)


def cookie_of(inside: socket.socket) -> int:
    """The cookie of the namespace that a socket lives in."""
    try:
        raw = inside.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError as error:
        raise KernelRefused(
            "the network namespace cannot be identified",
            "SO_NETNS_COOKIE is not supported",
            "Linux 5.14 or newer is needed",
            errno=error.errno or 0,
        ) from error
    return int.from_bytes(raw, "little")


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def netlink_socket(fd: int, protocol: int) -> socket.socket:
    """A netlink socket that lives in the namespace behind `fd`, usable from any thread."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, protocol)

    return in_namespace(fd, make)


def living_cookies() -> set[int]:
    """Cookies of every network namespace that a process or an nsfs mount holds, seen from here."""
    return set(_living().values())


def open_by_cookie(wanted: set[int]) -> dict[int, int]:
    """Descriptors of those of the wanted namespaces that are alive, by cookie."""
    found: dict[int, int] = {}
    for path, number in _living().items():
        if number not in wanted or number in found:
            continue
        fd = open_namespace(path)
        if fd is not None and cookie(fd) == number:  # it was another one a moment ago
            found[number] = fd
        elif fd is not None:
            os.close(fd)
    return found


def held_by_others() -> set[tuple[int, int]]:
    """Identities of network namespaces that another process than this one is in, or a mount
    holds; a stat(2) for each process, no namespace is entered."""
    own = f"/proc/{os.getpid()}/"
    found = set()
    for path in _namespace_paths():
        if path.startswith(own):
            continue
        try:
            found.add(identity_of(path))
        except OSError:
            continue
    return found


def living() -> Iterator[tuple[str, int]]:
    """(path, descriptor) of each living network namespace; the descriptor until the next one."""
    for path in _living():
        fd = open_namespace(path)
        if fd is not None:
            try:
                yield path, fd
            finally:
                os.close(fd)


def _living() -> dict[str, int]:
    """One path to each living network namespace, with its cookie."""
    found: dict[tuple[int, int], tuple[str, int]] = {}
    for path in _namespace_paths():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            key = identity(fd)
            new = key not in found and stat.S_ISREG(os.fstat(fd).st_mode)
            if new and fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET:
                found[key] = (path, cookie(fd))
        except OSError:
            pass
        finally:
            os.close(fd)
    return dict(found.values())


def _namespace_paths() -> list[str]:
    paths = [f"/proc/{pid}/ns/net" for pid in os.listdir("/proc") if pid.isdigit()]
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            if right.startswith("nsfs "):
                paths.append(left.split()[4].encode().decode("unicode_escape"))
    return paths
