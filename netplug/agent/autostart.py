"""Starts an agent after a call that found none, where `netplug install --autostart` said so.

The one-process plugin, which then does the call anyway, starts it once it has answered, and
does not wait for it. That is for root in the initial namespaces alone: an agent that began
inside a container or a simulated host would end with it, and serve nobody else.

Two files beside the socket: `.started` is touched by each attempt, so that of many calls at
once one starts an agent, and one that cannot live is not tried by every call; `.stopped` is
what `netplug agent stop` leaves and `netplug agent start` takes away.

It imports next to nothing, for the call's process has not ended yet.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import sys
import time

PAUSE = 10.0  # seconds between two attempts
ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}  # not the call's
KINDS = ("net", "mnt", "pid", "user")


def after_a_call(path: str) -> None:
    """Perhaps starts an agent that listens on `path`: the call is done, whatever comes of it."""
    try:
        start_agent(path)
    except OSError:
        pass


def start_agent(path: str) -> bool:
    """Whether an agent was started."""
    if not in_initial_namespaces() or os.path.exists(stop_note(path)):
        return False
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    attempt = os.open(f"{path}.started", flags, 0o600)
    try:
        try:
            fcntl.flock(attempt, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # another call is just here
            return False
        found = os.fstat(attempt)
        if found.st_size and abs(time.time() - found.st_mtime) < PAUSE:
            return False
        if listens(path):  # it has refused this call, or hangs
            return False
        os.pwrite(attempt, b".", 0)  # and with that its time
        from netplug.host import default_state_folder

        launch([sys.executable, "-I", "-m", "netplug.agent", path, str(default_state_folder())])
        return True
    finally:
        os.close(attempt)


def launch(command: list[str]) -> None:
    """A child that keeps nothing of this process, which ends and leaves it to the first one."""
    if os.fork():
        return
    try:
        os.setsid()
        os.chdir("/")
        nothing = os.open("/dev/null", os.O_RDWR)
        for fd in range(3):
            os.dup2(nothing, fd)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        os.execve(command[0], command, ENVIRON)
    finally:
        os._exit(127)


def stop_note(path: str) -> str:
    """While this file is there, no call starts an agent."""
    return f"{path}.stopped"


def listens(path: str) -> bool:
    """Somebody, systemd included, takes connections there, now or later."""
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(path)
    except BlockingIOError:  # its queue is full
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return True


def in_initial_namespaces() -> bool:
    """Is this root, where the machine's first process lives?"""
    from netplug.host import in_initial_user_namespace

    if os.geteuid() or not in_initial_user_namespace():
        return False
    try:
        return all(
            os.path.samestat(os.stat(f"/proc/self/ns/{kind}"), os.stat(f"/proc/1/ns/{kind}"))
            for kind in KINDS
        )
    except OSError:
        return False
