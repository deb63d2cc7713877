"""`hashlib`, without loading OpenSSL: SHA-256 by Python's own code."""

from __future__ import annotations

from typing import Any

from netplug.alone.lean import from_real

try:
    from _sha2 import sha256 as sha256  # type: ignore[import-not-found]  # Python 3.12
except ImportError:
    from _sha256 import sha256 as sha256  # type: ignore[import-not-found,unused-ignore]


def __getattr__(name: str) -> Any:
    return from_real("hashlib", name)
