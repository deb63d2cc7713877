"""Address management: range sets, requested and static addresses, leases in SQLite.

Knows no network devices. `parse_ipam` reads a configuration; the others work on a
connection that is inside a transaction of the caller.
"""

from netplug.ipam.leases import (
    SCHEMA,
    Reservation,
    Usage,
    allocate,
    holders,
    leases,
    reclaim_dead,
    reclaim_earlier_boots,
    release,
    usage,
)
from netplug.ipam.parse import UnknownKey, parse_ipam, unknown_keys
from netplug.ipam.ranges import render_ranges

__all__ = [
    "SCHEMA",
    "Reservation",
    "UnknownKey",
    "Usage",
    "allocate",
    "holders",
    "leases",
    "parse_ipam",
    "reclaim_dead",
    "reclaim_earlier_boots",
    "release",
    "render_ranges",
    "unknown_keys",
    "usage",
]
