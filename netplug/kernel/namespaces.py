"""Network namespaces: opening, identity, and running code inside one.

A namespace is entered by a thread of its own (0.1 ms), never by the caller's: what
fails inside cannot leave the caller in the wrong place. Who has much to do inside
keeps such a thread for as long as it lasts (`resident`).
"""

from __future__ import annotations

import fcntl
import functools
import os
import queue
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from netplug.errors import KernelRefused, SandboxError

if TYPE_CHECKING:
    import ctypes

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
    import ctypes  # late: newer Pythons do without

    if getattr(_libc(), name)(*arguments):
        errno = ctypes.get_errno()
        raise OSError(errno, os.strerror(errno))


@functools.cache
def _libc() -> ctypes.CDLL:
    import ctypes

    return ctypes.CDLL(None, use_errno=True)


def in_namespace(fd: int, work: Callable[[], T]) -> T:
    """Runs `work` in a thread of the namespace behind `fd`; its result or its exception."""
    status = os.stat(OWN)
    if identity(fd) == (status.st_dev, status.st_ino):
        return work()
    if fd in _own.residences:
        return _own.lodger().run(fd, work)
    return _in_thread(lambda: _setns(fd), work)


@contextmanager
def resident(fd: int) -> Iterator[None]:
    """While it lasts, the caller's `in_namespace(fd, ...)` uses one thread for all calls.

    That thread goes home at the end, for whoever is in a namespace keeps it alive.
    """
    _own.residences.add(fd)
    try:
        yield
    finally:
        _own.residences.discard(fd)
        _own.leave()


_Work = tuple[int, Callable[[], object]] | None  # where, and what; None: go home
_Outcome = tuple[object, BaseException | None]


class _Lodger:
    """A thread that does work in namespaces, one piece after the other, for another thread.

    It ends when this object does, which lives in the other thread's locals.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | Literal["end"]] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        threading.Thread(
            target=_lodge,
            args=(threading.get_native_id(), self._work, self._done),
            name="netplug-netns",
            daemon=True,
        ).start()

    def __del__(self) -> None:
        self._work.put("end")

    def run(self, fd: int, work: Callable[[], T]) -> T:
        self._work.put((fd, work))
        result, failure = self._done.get()
        if failure is not None:
            raise failure
        return result  # type: ignore[return-value]

    def leave(self) -> None:
        self._work.put(None)


def _lodge(
    owner: int,
    tasks: queue.SimpleQueue[_Work | Literal["end"]],
    done: queue.SimpleQueue[_Outcome],
) -> None:
    """Home is where the owning thread is; no descriptor of it is kept meanwhile."""
    where = -1
    while (task := tasks.get()) != "end":
        if task is None:
            try:
                home = os.open(f"/proc/self/task/{owner}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # the owner has ended: so does its lodger, which is as good as home
                return
            _setns(home)
            os.close(home)
            where = -1
            continue
        fd, work = task
        try:
            if fd != where:
                _setns(fd)
                where = fd
            done.put((work(), None))
        except BaseException as error:  # handed to the caller's thread
            done.put((None, error))
        del task, work  # what they hold must not live until the next one comes


class _Own(threading.local):
    """Of each thread: the namespaces in which it is resident, and its lodger."""

    def __init__(self) -> None:
        self.residences: set[int] = set()
        self._lodger: _Lodger | None = None
        self._pid = 0

    def lodger(self) -> _Lodger:
        if self._lodger is None or self._pid != os.getpid():
            self._lodger = _Lodger()
            self._pid = os.getpid()  # fork(2) leaves a child without its parent's threads
        return self._lodger

    def leave(self) -> None:
        if self._lodger is not None and self._pid == os.getpid():
            self._lodger.leave()


_own = _Own()


def new_namespace() -> int:
    """A descriptor of a new, nameless network namespace; it dies with its last user."""
    return _in_thread(_unshare, lambda: os.open(OWN, os.O_RDONLY | os.O_CLOEXEC))


def _in_thread(enter: Callable[[], None], work: Callable[[], T]) -> T:
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

    def read() -> int:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC) as probe:
            try:
                raw = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
            except OSError as error:
                raise KernelRefused(
                    "the network namespace cannot be identified",
                    "SO_NETNS_COOKIE is not supported",
                    "Linux 5.14 or newer is needed",
                    errno=error.errno or 0,
                ) from error
            return int.from_bytes(raw, "little")

    return in_namespace(fd, read)


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def netlink_socket(fd: int, protocol: int) -> socket.socket:
    """A netlink socket that lives in the namespace behind `fd`, usable from any thread."""

    def make() -> socket.socket:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, protocol)

    return in_namespace(fd, make)


def living_cookies() -> set[int]:
    """Cookies of every network namespace that a process or an nsfs mount holds, seen from here."""
    found: dict[tuple[int, int], int] = {}
    for path in _namespace_paths():
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            continue
        try:
            key = identity(fd)
            new = key not in found and stat.S_ISREG(os.fstat(fd).st_mode)
            if new and fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET:
                found[key] = cookie(fd)
        except OSError:
            pass
        finally:
            os.close(fd)
    return set(found.values())


def _namespace_paths() -> list[str]:
    paths = [f"/proc/{pid}/ns/net" for pid in os.listdir("/proc") if pid.isdigit()]
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            if right.startswith("nsfs "):
                paths.append(left.split()[4].encode().decode("unicode_escape"))
    return paths
