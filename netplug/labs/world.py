"""The lab as its checks see it, from inside the sandbox: namespaces by name, read afresh."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Mapping
from ipaddress import ip_interface
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from netplug.errors import NotFound
from netplug.kernel import inspect
from netplug.kernel.inspect import LinkState
from netplug.kernel.namespaces import demand_namespace, in_namespace

T = TypeVar("T")
HOST = "host"  # the lab's own namespace, in which `netplug lab shell` starts
NAMES = Path("/run/netns")
FIRST = "/proc/1/ns/net"  # of the process that holds the sandbox
PATIENCE = 20.0  # seconds for a command


class World:
    """Close it. `answers` are the student's, by step."""

    def __init__(
        self, *, folder: Path | None = None, answers: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.answers = dict(answers or {})
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()  # checks run side by side

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def names(self) -> list[str]:
        """Namespaces that have a name, and the lab's own."""
        return [HOST, *sorted(path.name for path in NAMES.iterdir())] if NAMES.is_dir() else [HOST]

    def fd(self, node: str) -> int:
        """The node's network namespace. Raises NotFound."""
        with self._lock:
            return self._fd(node)

    def _fd(self, node: str) -> int:
        if node not in self._open:
            path = NAMES / node
            fd = None
            if path.exists() or node == HOST:
                fd = os.open(path if path.exists() else FIRST, os.O_RDONLY | os.O_CLOEXEC)
                fd = demand_namespace(fd, str(path))
            if fd is None:
                from netplug.fixtures.schema import did_you_mean  # late: YAML and pydantic

                hint = did_you_mean(node, self.names())
                raise NotFound(f"there is no network namespace {node}", "", hint)
            self._open[node] = fd
        return self._open[node]

    def inside(self, node: str, work: Callable[[], T]) -> T:
        return in_namespace(self.fd(node), work)

    def run(self, node: str, command: str) -> subprocess.CompletedProcess[str]:
        """A shell command in the node, its streams as text."""
        return self.inside(
            node,
            lambda: subprocess.run(
                ["sh", "-eu", "-c", command],
                capture_output=True,
                text=True,
                stdin=subprocess.DEVNULL,
                timeout=PATIENCE,
            ),
        )

    def links(self, node: str) -> dict[str, LinkState]:
        return inspect.read_links(self.fd(node))

    def address(self, what: str, version: int = 4) -> str:
        """`what` where it is an address, else the first one of NODE or NODE.LINK.

        Raises NotFound.
        """
        if ":" in what or what.replace(".", "").isdigit():
            return what
        node, _, device = what.partition(".")
        for name, held in inspect.read_addresses(self.fd(node)).items():
            if name == "lo" or (device and name != device):
                continue
            for text in held:
                address = ip_interface(text)
                if address.version == version and not address.is_link_local:
                    return str(address.ip)
        raise NotFound(f"{what} has no IPv{version} address")

    def mac(self, what: str) -> str:
        """`what` where it is a MAC, else that of NODE.LINK. Raises NotFound."""
        if what.count(":") == 5:
            return what.lower()
        node, _, device = what.partition(".")
        link = self.links(node).get(device)
        if link is None:
            raise NotFound(f"there is no link {device} in {node}")
        return link.mac
