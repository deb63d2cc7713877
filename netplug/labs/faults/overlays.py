from netplug.labs.faults.base import FaultKind

OVERLAYS: tuple[FaultKind, ...] = ()
