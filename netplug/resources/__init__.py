"""Kernel objects as values: each is one kernel transaction to compare, make, undo, print.

`present` answers None where the kernel has nothing of it, "" where it has all of
it, else words that name the difference. Sandbox objects are absent, and their
undo is silent, when the namespace is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from netplug.firewall.intent import Intent
from netplug.kernel import Kernel
from netplug.model import Place


@dataclass(frozen=True, slots=True)
class Shell:
    """How commands reach the two namespaces, for `Resource.shell`.

    `sandbox` is a name below /run/netns or a path; `render` is the firewall's printer.
    """

    sandbox: str
    render: Any = None  # (backend, intent) -> list of commands

    def ip(self, place: Place) -> str:
        return "ip" if place == "host" else f"ip -n {self.sandbox}"

    def inside(self, place: Place, command: str) -> str:
        if place == "host":
            return command
        if "/" in self.sandbox:
            return f"nsenter --net={self.sandbox} {command}"
        return f"ip netns exec {self.sandbox} {command}"

    def firewall(self, backend: str, intent: Intent) -> list[str]:
        return list(self.render(backend, intent)) if self.render else []


@runtime_checkable
class Resource(Protocol):
    def __hash__(self) -> int: ...

    @property
    def key(self) -> str | None:
        """Name under which several attachments share it; None for an attachment's own."""

    def describe(self) -> str:
        """A few words for messages: `bridge cni0`."""

    def present(self, kernel: Kernel) -> str | None: ...

    def apply(self, kernel: Kernel) -> bool:
        """Makes it so, whether anything was absent before. Idempotent."""

    def undo(self, kernel: Kernel) -> None:
        """Removes what `apply` makes; silent where it is gone. What lacks our mark stays."""

    def shell(self, shell: Shell) -> list[str]:
        """The commands one would type (iproute2 6.1 syntax)."""
