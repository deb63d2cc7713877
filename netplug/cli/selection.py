"""Which attachments a user means who names a container."""

from __future__ import annotations

from netplug.cli.targets import NAMESPACES
from netplug.state import Record


def matches(record: Record, target: str) -> bool:
    """By name, namespace, PID, engine:NAME or at least 12 digits of the id."""
    a = record.attachment
    name = target.partition(":")[2] or target
    known = {a.container, a.name, a.sandbox, a.sandbox.removeprefix(f"{NAMESPACES}/")}
    if target.isdigit():
        known.add(a.sandbox.removeprefix("/proc/").removesuffix("/ns/net"))
    long_enough = len(name) >= 12 and a.container.startswith(name)
    return name in known or target in known or long_enough
