"""Starting, entering and ending a lab."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from netplug.errors import KernelRefused, PermissionRefused
from netplug.fixtures import build
from netplug.kernel import batch
from netplug.kernel.namespaces import boot_id, netlink_socket, own_namespace
from netplug.kernel.sandbox import end_sandbox, run_in_sandbox, start_sandbox
from netplug.labs.faults import Fault
from netplug.labs.format import Lab, read_lab
from netplug.labs.furnish import SESSION, furnish
from netplug.labs.injecting import inject, pick_faults
from netplug.labs.session import (
    ENVIRONMENT,
    Progress,
    Session,
    birth,
    new_folder,
    write_session,
)
from netplug.labs.solution import SETUP, apply_stages
from netplug.labs.world import World

T = TypeVar("T")
Report = Callable[[int, int], None]  # nodes made so far, of how many


def start(
    lab: Lab,
    source: Path,
    *,
    seed: int = 0,
    student: str = "",
    faults: bool = True,
    report: Report = lambda done, total: None,
) -> Session:
    """The lab, running: its topology built, its setup done, its faults made if wanted.

    Nothing is left after an error. Raises Conflict where it runs already, PermissionRefused
    where namespaces cannot be had, ConfigError and KernelRefused for what the lab does.
    """
    demand_privileges(lab)
    with new_folder(lab.name) as folder:
        sessions: list[Session] = []

        def record(pid: int) -> None:
            born = birth(pid)
            if born is None:
                raise KernelRefused(f"lab {lab.name} ended at once", "its process is gone")
            session = Session(
                folder, lab.name, str(source), seed, pid, born, boot_id(), student=student
            )
            session.write_progress(Progress())
            write_session(session)
            sessions.append(session)

        outside = os.geteuid()
        start_sandbox(
            lambda say: _prepare(
                lab, folder, outside, pick_faults(lab, seed) if faults else [], say
            ),
            record,
            on_message=lambda message: report(*message),
        )
        return sessions[0]


def demand_privileges(lab: Lab) -> None:
    """Raises PermissionRefused where the lab wants the host and we are not root."""
    if lab.keys.sudo and os.geteuid() != 0:
        raise PermissionRefused(
            f"lab {lab.name} needs root", lab.keys.sudo, f"run: sudo netplug lab start {lab.name}"
        )


def _prepare(
    lab: Lab, folder: Path, outside: int, faults: list[Fault], say: Callable[[Any], None]
) -> None:
    """In the sandbox, by its first process."""
    furnish(folder, outside)
    set_environment(lab.name, outside)
    fd = own_namespace()
    with netlink_socket(fd, socket.NETLINK_ROUTE) as carrier:
        batch.send(carrier, [batch.set_link(batch.LO_INDEX, name="lo", up=True)])
    os.close(fd)
    if lab.topology.nodes or lab.topology.switches:
        build(lab.topology, names="", report=lambda done, total: say((done, total)))
    with World(folder=lab.folder) as world:
        apply_stages(lab, world, [SETUP])
        for fault in faults:
            inject(world, fault)


def set_environment(name: str, outside: int | None = None) -> None:
    """What programs in the lab see: our own command first, nothing of the machine's networks."""
    os.environ[ENVIRONMENT] = name
    os.environ.pop("XDG_RUNTIME_DIR", None)
    for variable in ("NETPLUG_STATE", "NETCONFPATH"):
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


def stop(session: Session) -> None:
    """Ends every process of the lab; the kernel takes its networks and files with them."""
    if session.inside:
        os.kill(1, 9)  # which the kernel ignores from inside: see the command's own message
    end_sandbox(session.pid)
    shutil.rmtree(session.folder, ignore_errors=True)
    try:
        session.folder.parent.rmdir()
    except OSError:  # another lab runs
        pass


def lab_of(session: Session) -> Lab:
    """The lab as it was started."""
    return read_lab(Path(session.source), seed=session.seed)


def folder_inside(session: Session) -> Path:
    return SESSION
