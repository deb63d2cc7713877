from netplug.labs.faults.base import FaultKind

TRANSLATION: tuple[FaultKind, ...] = ()
