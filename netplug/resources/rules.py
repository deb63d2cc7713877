"""Firewall rules: one intent, compiled by the backend that the host uses."""

from __future__ import annotations

from dataclasses import dataclass

from netplug.firewall.intent import (
    Accept,
    Base,
    BridgePolicy,
    Intent,
    Publish,
    SpoofGuard,
    Subnet,
)
from netplug.kernel import Kernel
from netplug.resources import Shell


@dataclass(frozen=True, slots=True)
class Rules:
    """The backend stays the one that applied the rules, whatever the host prefers later."""

    backend: str
    intent: Intent

    @property
    def key(self) -> str | None:
        return self.intent.key

    def describe(self) -> str:
        match self.intent:
            case Base(family):
                return f"firewall frame ({self.backend}, {_family(family)})"
            case BridgePolicy(bridge, family):
                return f"policy of {bridge} ({_family(family)})"
            case Subnet(subnet, masquerade=masquerade):
                return f"{'masquerade' if masquerade else 'hairpin'} of {subnet}"
            case Accept(bridge, family):
                return f"accept for {bridge} in foreign chains ({_family(family)})"
            case Publish(_, family, mappings):
                ports = ", ".join(f"{m.host_port}/{m.protocol}" for m in mappings[:5])
                more = ", ..." if len(mappings) > 5 else ""
                return f"published {ports}{more} ({_family(family)})"
            case SpoofGuard(_, device, mac):
                return f"{device} sends as {mac} only"

    def present(self, kernel: Kernel) -> str | None:
        return kernel.firewall(self.backend).present(self.intent)

    def apply(self, kernel: Kernel) -> bool:
        return kernel.firewall(self.backend).apply(self.intent)

    def undo(self, kernel: Kernel) -> None:
        kernel.firewall(self.backend).undo(self.intent)

    def shell(self, shell: Shell) -> list[str]:
        return shell.firewall(self.backend, self.intent)


def _family(family: int | str) -> str:
    return f"IPv{family}" if isinstance(family, int) else family
