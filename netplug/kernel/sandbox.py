"""A sandbox: mount, PID and network namespaces of its own; without root a user namespace as well.

One sleeping process holds it, the first of its PID namespace: when that one is killed, by
whomever, the kernel ends every process inside, then the mounts, then the networks. Nothing
can be left behind. Others enter with setns(2) by pidfd, all namespaces at once (Linux 5.8).
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from netplug.errors import KernelRefused, NetplugError, PermissionRefused
from netplug.kernel.namespaces import _call, _function

T = TypeVar("T")
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_BIND, MS_REC, MS_PRIVATE, MS_SHARED = 0x1000, 0x4000, 0x40000, 0x100000
MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x2, 0x4, 0x8
SLEEP = ("sleep", "infinity")
Say = Callable[[Any], None]


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2). Raises OSError."""
    words = (word.encode() or None for word in (source, target, kind))
    if _function("mount")(*words, flags, options.encode() or None):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)


def start_sandbox(
    prepare: Callable[[Say], None],
    record: Callable[[int], None],
    *,
    on_message: Say = lambda _: None,
) -> int:
    """The process that holds a new sandbox, once `prepare` has run inside.

    `prepare` may send values to `on_message`. `record` is told the process: until it returns,
    the sandbox ends with us. Raises what `prepare` and `record` raise, and PermissionRefused
    where such namespaces cannot be had, with the reason.
    """
    read, write = os.pipe()
    wait, allow = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    founder = os.fork()
    if founder == 0:
        os.close(read)
        os.close(allow)
        _found(_Sender(write), wait, prepare)
    os.close(write)
    os.close(wait)
    pid, ready = 0, False
    try:
        with os.fdopen(read, "rb") as stream:
            while not (pid and ready):  # the founder and the holder speak in any order
                kind, value = pickle.load(stream)
                if kind == "pid":
                    pid = value
                elif kind == "message":
                    on_message(value)
                elif kind == "error":
                    raise value
                else:
                    ready = True
            record(pid)
            os.write(allow, b"!")
            return pid
    except EOFError:
        raise KernelRefused("the lab ended while it was set up", "its first process died") from None
    except BaseException:
        if pid:
            end_sandbox(pid)
        raise
    finally:
        os.close(allow)
        os.waitpid(founder, 0)


def _found(send: _Sender, wait: int, prepare: Callable[[Say], None]) -> NoReturn:
    """The founder's life: it makes the namespaces, and a child who is the first inside."""
    try:
        os.setsid()
        _enter_new_namespaces()
        holder = os.fork()
        if holder == 0:
            _hold(send, wait, prepare)
        send("pid", holder)
        os._exit(0)
    except BaseException as error:
        send("error", _portable(error))
    finally:
        os._exit(1)


def _hold(send: _Sender, wait: int, prepare: Callable[[Say], None]) -> NoReturn:
    try:
        mount("", "/", flags=MS_REC | MS_PRIVATE)
        mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        prepare(lambda value: send("message", value))
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kept over exec: nobody stays a zombie
        os.chdir("/")
        send("ready", None)
        if os.read(wait, 1):  # nothing: who started us was killed before he wrote us down
            os.execvp(SLEEP[0], SLEEP)
    except BaseException as error:
        send("error", _portable(error))
    finally:
        os._exit(1)


class _Sender:
    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __call__(self, kind: str, value: Any) -> None:
        # One write(2) below PIPE_BUF is never mixed with another's.
        os.write(self._descriptor, pickle.dumps((kind, value)))


def _portable(error: BaseException) -> BaseException:
    """An error of ours as it is, any other with its words."""
    if isinstance(error, NetplugError):
        return error
    return KernelRefused("the lab cannot be set up", f"{type(error).__name__}: {error}")


def _enter_new_namespaces() -> None:
    flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        flags |= CLONE_NEWUSER
    try:
        _call("unshare", flags)
        if uid != 0:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
            mount("", "/", flags=MS_REC | MS_PRIVATE)  # AppArmor lets us in, and then do nothing
    except OSError as error:
        raise _explain(error) from error


def _explain(error: OSError) -> NetplugError:
    """Why such namespaces cannot be had here, in the order of likelihood, and what else can."""
    what = "a lab needs user, mount and network namespaces of its own"
    hint = "as root it works: sudo netplug lab start ..."
    for key, refusing, why in (
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "AppArmor keeps them from users (Ubuntu 23.10 and newer):"
            " kernel.apparmor_restrict_unprivileged_userns is 1",
        ),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone is 0 (Debian)"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces is 0 (RHEL)"),
    ):
        if _read(f"/proc/sys/{key}") == refusing and os.geteuid() != 0:
            return PermissionRefused(what, why, hint)
    if error.errno in (errno.EPERM, errno.EACCES):
        why = "the kernel refused them; inside a container its engine forbids them (seccomp)"
        if os.geteuid() == 0:
            hint = "run it on the machine itself, or give the container --privileged"
        return PermissionRefused(what, why, hint)
    return KernelRefused(what, error.strerror or "", errno=error.errno or 0)


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def run_in_sandbox(pid: int, work: Callable[[], T]) -> T:
    """The result of `work`, run by a process inside the sandbox that `pid` holds.

    It is the caller's grandchild, with his terminal and standard streams. Raises what `work`
    raises, KernelRefused where the sandbox is gone.
    """
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read)
        _visit(pid, write, work)
    os.close(write)
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one inside is interrupted
    try:
        with os.fdopen(read, "rb") as stream:
            data = stream.read()
        os.waitpid(child, 0)
    finally:
        signal.signal(signal.SIGINT, old)
    if not data:
        raise KernelRefused("the work inside the lab ended early", "was the lab stopped?")
    kind, value = pickle.loads(data)
    if kind == "error":
        raise value
    return value  # type: ignore[no-any-return]


def _visit(pid: int, write: int, work: Callable[[], Any]) -> NoReturn:
    send = _Sender(write)
    try:
        cwd = os.getcwd()
        flags = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID
        if os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino:
            flags |= CLONE_NEWUSER
        _call("setns", os.pidfd_open(pid), flags)
        if (inside := os.fork()) == 0:  # only a child is in the PID namespace
            try:
                _change_folder(cwd)
                outcome = ("done", work())
            except KeyboardInterrupt as error:
                outcome = ("error", error)
            except Exception as error:
                outcome = ("error", _portable(error))
            with os.fdopen(write, "wb") as stream:
                pickle.dump(outcome, stream)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.waitpid(inside, 0)
        os._exit(0)
    except OSError as error:
        gone = KernelRefused("the lab cannot be entered", error.strerror or "", "is it running?")
        send("error", gone)
    finally:
        os._exit(1)


def _change_folder(path: str) -> None:
    try:
        os.chdir(path)
    except OSError:
        os.chdir("/")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _call("unshare", flags)


def try_in_sandbox(work: Callable[[], None]) -> None:
    """Runs `work` in a sandbox that ends with it. Raises what it raises, as `start_sandbox`."""
    end_sandbox(start_sandbox(lambda _: work(), lambda _: None))


def end_sandbox(pid: int, *, patience: float = 10.0) -> None:
    """Kills the holder; on return every process inside has ended. Silent where it is gone."""
    try:
        holder = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(holder, signal.SIGKILL)
        # The first process of a PID namespace has ended when all others have.
        if not select.select([holder], [], [], patience)[0]:
            raise KernelRefused("the lab does not end", f"process {pid} was killed and still runs")
    except ProcessLookupError:
        pass
    finally:
        os.close(holder)
        try:
            os.waitpid(pid, os.WNOHANG)  # where it is a child of ours
        except ChildProcessError:
            pass
