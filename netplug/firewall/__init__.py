"""Firewall backends: each compiles the values of `intent` for one host."""

from __future__ import annotations

from typing import Protocol

from netplug.firewall.intent import Intent


class Firewall(Protocol):
    """A backend, bound to one host network namespace.

    `present` returns None where the kernel holds nothing of the intent, "" where it
    holds all of it, else words that name what is missing or differs.
    """

    name: str

    def present(self, intent: Intent) -> str | None: ...

    def apply(self, intent: Intent) -> bool:
        """Makes it so (idempotent); whether anything was absent before.

        Raises KernelRefused, Conflict.
        """

    def undo(self, intent: Intent) -> None:
        """Removes it; silent where it is gone already."""

    def remove_owned(self, owner: str) -> int:
        """Removes all elements whose comment names this owner (Attachment.tag); how many."""

    def owners(self) -> set[str]:
        """Owners of all per-attachment elements in the kernel."""

    def close(self) -> None: ...

    def foreign_drops(self) -> list[str]:
        """Others' chains that would drop our traffic and that we cannot open, with the fix."""


class Renderer(Protocol):
    """The pure half of a backend: the commands one would type."""

    def __call__(self, intent: Intent) -> list[str]: ...
