"""No firewall at all: for hosts whose administrator does everything by hand.

What a container was promised is refused, since it cannot be left out in silence.
"""

from __future__ import annotations

from netplug.errors import UnsupportedError
from netplug.firewall.intent import Intent, Publish, SpoofGuard


class NoFirewall:
    """The null object. Raises UnsupportedError for what a container was promised."""

    name = "none"

    def present(self, intent: Intent) -> str | None:
        return ""

    def apply(self, intent: Intent) -> bool:
        if isinstance(intent, Publish) and intent.mappings:
            raise _unsupported(f"port {intent.mappings[0].host_port} cannot be published")
        if isinstance(intent, SpoofGuard):
            raise _unsupported(f"the MAC of {intent.device} cannot be guarded")
        return False

    def undo(self, intent: Intent) -> None:
        return None

    def remove_owned(self, owner: str) -> int:
        return 0

    def owners(self) -> set[str]:
        return set()

    def close(self) -> None:
        return None

    def foreign_drops(self) -> list[str]:
        return []


def render_shell(intent: Intent) -> list[str]:
    return []


def _unsupported(what: str) -> UnsupportedError:
    return UnsupportedError(
        what, "firewall is set to none", "set firewall to auto, or leave this option out"
    )
