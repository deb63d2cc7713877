"""`sqlite3`, without `datetime`: nothing that netplug stores is a date."""

from __future__ import annotations

from _sqlite3 import *  # noqa: F403
from typing import Any

from netplug.alone.lean import from_real


def __getattr__(name: str) -> Any:
    return from_real("sqlite3", name)
