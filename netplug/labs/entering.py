"""Work inside a lab, and commands in its nodes as `ip netns exec` would run them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netplug.kernel.namespaces import enter_namespace
from netplug.kernel.sandbox import (
    CLONE_NEWNS,
    MS_BIND,
    mount,
    run_in_sandbox,
    unshare,
)
from netplug.labs.furnish import show_own_links
from netplug.labs.session import ENVIRONMENT, Session
from netplug.labs.world import World

T = TypeVar("T")
SETTINGS = Path("/etc/netns")


def set_environment(name: str, outside: int | None = None) -> None:
    """What programs in the lab see: our own command first, nothing of the machine's networks."""
    os.environ[ENVIRONMENT] = name
    os.environ.pop("XDG_RUNTIME_DIR", None)
    for variable in ("NETPLUG_STATE", "NETPLUG_RUN", "NETCONFPATH"):
        os.environ.pop(variable, None)
    own = str(Path(sys.argv[0]).absolute().parent)
    folders = [str(Path(sys.executable).parent), own, os.environ.get("PATH", os.defpath)]
    os.environ["PATH"] = ":".join([*folders, "/usr/sbin", "/sbin"])


def run_inside(session: Session, work: Callable[[], T]) -> T:
    """The result of `work`, done by a process of the lab; here, where we are one already."""
    if session.inside:
        return work()

    def enter() -> T:
        set_environment(session.name)
        return work()

    return run_in_sandbox(session.pid, enter)


def run_command(node: str, command: list[str], *, lab: str) -> int:
    """The status of the command; 127 where there is no such program."""
    with World() as world:
        fd = os.dup(world.fd(node))
    child = os.fork()
    if child == 0:
        try:
            enter_namespace(fd)
            unshare(CLONE_NEWNS)  # every mount is private but /run/netns: see furnish
            show_own_links()
            _bind_settings(node)
            os.environ["PS1"] = f"{lab} {node}# "
            os.environ["NETPLUG_NODE"] = node
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvp(command[0], command)
        except OSError as error:
            os.write(2, f"{command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    os.close(fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _bind_settings(node: str) -> None:
    """Files below /etc/netns/NODE take the place of those in /etc, for this process alone."""
    folder = SETTINGS / node
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        target = Path("/etc") / path.name
        if not target.exists() and not target.is_symlink():
            continue
        mount(str(path), os.path.realpath(target), flags=MS_BIND)
