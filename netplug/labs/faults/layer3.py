from netplug.labs.faults.base import FaultKind

LAYER3: tuple[FaultKind, ...] = ()
