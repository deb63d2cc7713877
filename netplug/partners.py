"""Whom the engine works with: what it asks of each, whoever that is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from netplug.errors import NetplugError
from netplug.model import Dns, Lease

if TYPE_CHECKING:
    from netplug.kernel import Kernel
    from netplug.state import Record, State


class ForeignIpam(Protocol):
    """Somebody else's IPAM plugin, called by the edge that knows how to execute it.

    `needs_link`: its DEL talks through the container's interface.
    """

    @property
    def needs_link(self) -> bool: ...

    def add(self) -> Lease: ...

    def delete(self) -> None: ...

    def check(self) -> None: ...

    def status(self) -> None: ...

    def gc(self) -> None: ...


class Names(Protocol):
    """Whoever answers for the names of containers."""

    def publish(self, state: State, record: Record, kernel: Kernel) -> Dns:
        """The record's names are visible from now on; the servers that the container may ask,
        none where nobody would answer."""

    def withdraw(self, state: State, record: Record, kernel: Kernel) -> None:
        """They are not any more, once the record is leaving or gone."""

    def fault(self) -> str:
        """Why nobody would answer now; "" where somebody does."""


class NoNames:
    """Nobody does."""

    def publish(self, state: State, record: Record, kernel: Kernel) -> Dns:
        return Dns()

    def withdraw(self, state: State, record: Record, kernel: Kernel) -> None:
        return

    def fault(self) -> str:
        return "no name server runs"


def refusals(foreign: ForeignIpam | None) -> list[NetplugError]:
    """The plugin gives its address back; why it did not, where it did not."""
    try:
        if foreign is not None:
            foreign.delete()
    except NetplugError as refusal:
        return [refusal]
    return []
