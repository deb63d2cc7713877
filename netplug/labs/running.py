"""Starting a lab."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netplug.errors import KernelRefused, PermissionRefused
from netplug.fixtures import build
from netplug.kernel import batch
from netplug.kernel.namespaces import boot_id, netlink_socket, own_namespace
from netplug.kernel.sandbox import start_sandbox
from netplug.labs.entering import set_environment
from netplug.labs.format import Lab
from netplug.labs.furnish import furnish
from netplug.labs.session import (
    Progress,
    Session,
    birth,
    new_folder,
    write_session,
)

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
            lambda say: _prepare(lab, folder, outside, seed if faults else None, say),
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
    lab: Lab, folder: Path, outside: int, seed: int | None, say: Callable[[Any], None]
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
    if lab.folder is not None:
        _set_up(lab, seed)


def _set_up(lab: Lab, seed: int | None) -> None:
    """What the exercise begins with; no faults without a seed."""
    from netplug.labs.injecting import inject, pick_faults  # late: a bare topology has neither
    from netplug.labs.solution import SETUP, apply_stages
    from netplug.labs.world import World

    with World(folder=lab.folder) as world:
        apply_stages(lab, world, [SETUP])
        for fault in [] if seed is None else pick_faults(lab, seed):
            inject(world, fault)
