"""Running the child: one request, one process, one answer."""

from __future__ import annotations

import glob
import json
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import netplug
from netplug import errors
from netplug.errors import Busy, KernelRefused, NetplugError, UnsupportedError
from netplug.firewall.iptables.tables import read_active_tables
from netplug.model import Family

T = TypeVar("T")
GRACE = 30.0  # seconds that the work itself may take
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"  # python-iptables runs modprobe, where there are modules
# -I keeps the caller's environment and folder out; the tree that runs may not be installed
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]);"
    "from netplug.firewall.iptables.child import main; main()"
)


def _in_namespace(fd: int, work: Callable[[], T]) -> T:
    from netplug.kernel.namespaces import in_namespace  # late: see the package's docstring

    return in_namespace(fd, work)


def read_active_tables_of(fd: int, family: Family) -> set[str]:
    """Names of the legacy tables of the namespace behind `fd`; reading them makes none."""
    return _in_namespace(fd, lambda: read_active_tables(family))


def run_child(fd: int, request: dict[str, Any]) -> Any:
    """The child's result for a request. Raises what the child raised, Busy for one that hangs."""
    stdin, stdout, stderr = (os.memfd_create(name) for name in ("stdin", "stdout", "stderr"))
    try:
        os.write(stdin, json.dumps(request).encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        # A child is born in the network namespace of the thread that makes it.
        pid = _in_namespace(fd, lambda: _spawn(stdin, stdout, stderr))
        _await(pid, request["patience"] + GRACE)
        return _parse_answer(_content(stdout), _content(stderr))
    finally:
        for stream in (stdin, stdout, stderr):
            os.close(stream)


def _spawn(stdin: int, stdout: int, stderr: int) -> int:
    root = str(Path(netplug.__file__).parents[1])
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    if folder := _extensions():
        environment["XTABLES_LIBDIR"] = folder
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-c", _BOOT, root],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((stdin, stdout, stderr))
        ],
        setpgroup=0,  # Ctrl-C in a terminal must not end it between two tables
        setsigmask=[],
    )


def _extensions() -> str:
    """The folder of libxtables' extensions; "" leaves the search to python-iptables (ldconfig)."""
    architecture = getattr(sys.implementation, "_multiarch", "*")
    for pattern in (f"/usr/lib/{architecture}", "/usr/lib64", "/usr/lib", "/usr/local/lib"):
        for folder in glob.glob(f"{pattern}/xtables"):
            return folder
    return ""


def _await(pid: int, seconds: float) -> None:
    """Waits for the child and reaps it. Raises Busy, and ends it, after that time."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:  # gone, and reaped by another part of this process
        return
    late = False
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        late = not poll.poll(seconds * 1000)
    finally:
        if late:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
    if late:
        raise Busy("the iptables firewall backend hangs", f"no answer after {seconds:g} s")


def _content(fd: int) -> str:
    size = os.fstat(fd).st_size
    return os.pread(fd, size, 0).decode(errors="replace")


def _parse_answer(stdout: str, stderr: str) -> Any:
    try:
        reply = json.loads(stdout)
    except ValueError:
        lines = stderr.strip().splitlines()
        if "No module named 'netplug" in stderr:
            raise UnsupportedError(
                "the iptables firewall backend cannot start",
                f"{sys.executable} does not find netplug",
                "install netplug for that interpreter",
            ) from None
        raise KernelRefused(
            "the iptables firewall backend failed", lines[-1] if lines else "it gave no answer"
        ) from None
    if "error" not in reply:
        return reply["result"]
    kind: type[NetplugError] = getattr(errors, reply["error"])
    error = kind(reply["what"], reply["why"], reply["hint"])
    if isinstance(error, KernelRefused):
        error.errno = reply["errno"]
    raise error
