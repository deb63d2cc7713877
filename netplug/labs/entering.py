"""A command inside a node, as `ip netns exec` would run it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from netplug.kernel.namespaces import enter_namespace
from netplug.kernel.sandbox import CLONE_NEWNS, MS_BIND, MS_PRIVATE, MS_REC, mount, unshare
from netplug.labs.world import World

SETTINGS = Path("/etc/netns")


def run_command(node: str, command: list[str], *, lab: str) -> int:
    """The status of the command; 127 where there is no such program."""
    with World() as world:
        fd = os.dup(world.fd(node))
    child = os.fork()
    if child == 0:
        try:
            enter_namespace(fd)
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
    unshare(CLONE_NEWNS)
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    for path in folder.iterdir():
        target = Path("/etc") / path.name
        if not target.exists() and not target.is_symlink():
            continue
        mount(str(path), os.path.realpath(target), flags=MS_BIND)
