from netplug.labs.faults.base import FaultKind

SERVICES: tuple[FaultKind, ...] = ()
