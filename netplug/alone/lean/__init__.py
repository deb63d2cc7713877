"""Stand-ins for modules of the standard library, each named as what it stands for.

Only the bundle uses them (see `netplug.alone`). Each has what netplug uses on the path of one
CNI call, does it as the real one does (tests/unit/test_alone.py compares), and turns to the
real one for the rest. What they avoid is `re`, `enum` and `inspect`, which take longer to
import than a plugin takes to work, and OpenSSL.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # what a type checker takes for true; importing typing is what we avoid
if TYPE_CHECKING:
    from typing import Any

NAMES = ("typing", "dataclasses", "json", "hashlib", "socket", "pathlib", "sqlite3")


def stand_in() -> None:
    """From now on those who import one of the names get ours."""
    for name in NAMES:
        if name not in sys.modules:
            __import__(f"{__name__}.{name}")
            sys.modules[name] = sys.modules[f"{__name__}.{name}"]


_real: dict[str, Any] = {}


def real(name: str) -> Any:
    """The module that one of ours stands for."""
    if name not in _real:
        ours = sys.modules.pop(name)
        try:
            __import__(name)
            _real[name] = sys.modules[name]
        finally:
            sys.modules[name] = ours
    return _real[name]


def from_real(module: str, name: str) -> Any:
    """What a stand-in lacks. Raises AttributeError."""
    if name.startswith("__"):  # asked by the import system, which takes a no
        raise AttributeError(name)
    return getattr(real(module), name)
