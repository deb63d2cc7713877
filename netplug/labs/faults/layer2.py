from netplug.labs.faults.base import FaultKind

LAYER2: tuple[FaultKind, ...] = ()
