"""A topology made real, until it is closed."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from netplug.errors import KernelRefused, NotFound, PermissionRefused, UnsupportedError
from netplug.fixtures.blueprint import Blueprint, plan_requests, plan_sysctls
from netplug.fixtures.nat import ensure_masquerade
from netplug.fixtures.schema import did_you_mean
from netplug.fixtures.topology import WIRE, Topology
from netplug.kernel import batch
from netplug.kernel.batch import LO_INDEX, Request
from netplug.kernel.bind import FOLDER, bind_namespace, unbind_namespace
from netplug.kernel.namespaces import (
    in_namespace,
    netlink_socket,
    new_namespace,
    open_namespace,
)
from netplug.kernel.sysctl import ensure_sysctls

T = TypeVar("T")
Report = Callable[[int, int], None]
SETTLE_TIME = 5.0  # seconds in which a raised link must be operational; milliseconds are usual
SETTLE_STEP = 0.002


@dataclass(frozen=True, slots=True)
class Place:
    """A living network namespace: `path` opens it from any process while we run."""

    name: str
    fd: int
    path: Path

    def run_inside(self, work: Callable[[], T]) -> T:
        """The result of `work`, called in a thread of this namespace."""
        return in_namespace(self.fd, work)


class Running:
    """Namespaces of a topology by name in `nodes`, its switches in `wire`. Close it."""

    def __init__(
        self,
        topology: Topology,
        *,
        names: str | None = None,
        adopt: bool = False,
        report: Report = lambda done, total: None,
    ) -> None:
        """Makes the namespaces, empty as yet: `build` is the way in.

        `adopt` takes those that have their names already.
        """
        self.topology = topology
        self._report = report
        self._done = 0
        self.nodes: dict[str, Place] = {}
        self._undo = ExitStack()
        self._plan = Blueprint()
        with self._undo as undo:  # so that a failure closes what was made
            self.wire = self._new_place(WIRE, names, adopt=adopt)
            for node in topology.nodes:
                self.nodes[node.name] = self._new_place(node.name, names, adopt=adopt)
                self._advance()
            self._undo = undo.pop_all()

    def _new_place(self, name: str, names: str | None, *, adopt: bool) -> Place:
        path = FOLDER / f"{names}{name}"
        if adopt and names is not None and (held := open_namespace(str(path))) is not None:
            self._undo.callback(os.close, held)
            return Place(name, held, path)
        try:
            fd = new_namespace()
        except OSError as error:
            raise _no_namespace(name, error) from error
        self._undo.callback(os.close, fd)
        if names is None:
            return Place(name, fd, Path(f"/proc/{os.getpid()}/fd/{fd}"))
        bind_namespace(fd, path)
        self._undo.callback(unbind_namespace, path)
        return Place(name, fd, path)

    def _advance(self) -> None:
        """One step of the work: each node is made, gets its cables, then its addresses."""
        self._done += 1
        self._report(self._done, 2 * len(self.topology.nodes) + len(self._plan.cables))

    def _place(self, name: str) -> Place:
        return self.wire if name == WIRE else self.nodes[name]

    def in_node(self, name: str, work: Callable[[], T]) -> T:
        """The result of `work` in a thread of the node's namespace. Raises NotFound."""
        if name not in self.nodes:
            hint = did_you_mean(name, self.nodes)
            raise NotFound(f"{self.topology.name} has no node {name}", "", hint)
        return self.nodes[name].run_inside(work)

    def set_link(self, a: str, b: str, *, up: bool | None = None, mtu: int | None = None) -> None:
        """Changes both ends of the link between `a` and `b`. Raises NotFound, KernelRefused.

        A raised link is operational on return. Routes through it that the kernel dropped, or
        never took because it started down, are not added.
        """
        link = self.topology.link(a, b)
        if link is None:
            raise NotFound(f"{self.topology.name} has no link {a} - {b}")
        changed: dict[str, set[int]] = {}
        for end in link.ends:
            place = end.at if end.at in self.nodes else WIRE
            index = self._plan.indexes[end.at, end.interface]
            self._send(place, [batch.set_link(index, name=end.interface, up=up, mtu=mtu)])
            changed.setdefault(place, set()).add(index)
        if up:
            self._settle(changed)

    def _send(self, place: str, requests: Iterable[Request]) -> None:
        with netlink_socket(self._place(place).fd, socket.NETLINK_ROUTE) as carrier:
            batch.send(carrier, requests)

    def _apply(self) -> None:
        descriptors = {name: place.fd for name, place in self.nodes.items()}
        self._plan = plan_requests(self.topology, descriptors)
        for name, values in plan_sysctls(self.topology).items():
            ensure_sysctls(self._place(name).fd, values)
        for phase in (self._plan.cables, self._plan.settings):
            for place, requests in phase.items():
                self._send(place, requests)
                self._advance()
        for node in self.topology.nodes:
            if node.nat is not None:
                ensure_masquerade(self.nodes[node.name].fd, node.nat, router=node.name)
        self._settle(self._plan.watched)

    def _settle(self, wanted: dict[str, set[int]]) -> None:
        """Waits until these links carry packets, so that the first one sent is not lost."""
        deadline = time.monotonic() + SETTLE_TIME
        for name, indexes in wanted.items():
            with netlink_socket(self._place(name).fd, socket.NETLINK_ROUTE) as carrier:
                while not indexes <= batch.read_operational(carrier):
                    if time.monotonic() > deadline:
                        what = f"links in {name} do not become operational"
                        raise KernelRefused(what, f"{SETTLE_TIME} s passed")
                    time.sleep(SETTLE_STEP)

    def release(self) -> None:
        """Closes nothing: named namespaces live on, descriptors as long as this process."""
        self._undo.pop_all()

    def close(self) -> None:
        """Gives up all namespaces; the kernel takes them apart in the background."""
        self._undo.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def build(
    topology: Topology,
    *,
    names: str | None = None,
    report: Report = lambda done, total: None,
) -> Running:
    """The topology in the kernel, every link up and operational.

    Namespaces are nameless and die with us, or, given `names` (a prefix, "" for none),
    bound as /run/netns/PREFIXNAME. `report` hears of each step of the work: how many are
    done, of how many. Nothing is left after an error. Raises KernelRefused,
    UnsupportedError where a key needs what this kernel lacks, Conflict for a taken name.
    """
    _check_features(topology)
    running = Running(topology, names=names, report=report)
    try:
        running._apply()
    except BaseException:
        running.close()
        raise
    return running


def rebuild(topology: Topology, *, names: str) -> None:
    """Builds into the namespaces /run/netns/NAMES..., which are empty; makes what is missing.

    They stay when we end. Raises what `build` raises.
    """
    _check_features(topology)
    running = Running(topology, names=names, adopt=True)
    try:
        running._apply()
    except BaseException:
        running.close()
        raise
    running.release()


def _check_features(topology: Topology) -> None:
    lossy = next((link for link in topology.links if link.loss), None)
    if lossy is not None and not netem_supported():
        raise UnsupportedError(
            f"{topology.name}: links ({lossy.a.at} - {lossy.b.at}).loss",
            "this kernel has no netem queueing discipline",
            "load the module sch_netem, or take `loss` out",
        )


def netem_supported() -> bool:
    """Whether the kernel can lose packets on purpose: tried on lo of a scratch namespace."""
    fd = new_namespace()
    try:
        with netlink_socket(fd, socket.NETLINK_ROUTE) as carrier:
            request = batch.new_loss(LO_INDEX, name="lo", percent=1.0)
            return batch.exchange(carrier, [request]) == [None]
    finally:
        os.close(fd)


def _no_namespace(name: str, error: OSError) -> PermissionRefused | KernelRefused:
    what = f"a network namespace for {name} cannot be created"
    why = error.strerror or ""
    if error.errno == errno.EPERM:
        return PermissionRefused(what, why, "run as root, or inside `unshare -Urnm`")
    hint = "raise the limit of open files (ulimit -n)" if error.errno == errno.EMFILE else ""
    return KernelRefused(what, why, hint, errno=error.errno or 0)
