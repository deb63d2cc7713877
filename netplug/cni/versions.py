"""CNI spec versions: which we speak, how they compare, and what changed between them."""

from __future__ import annotations

from collections.abc import Iterable

from netplug.errors import DecodeError, VersionError

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEFAULT = "0.1.0"  # of a configuration without cniVersion
CURRENT = SUPPORTED[-1]


def parse_version(text: str) -> tuple[int, int, int]:
    """One to three dotted numbers. Raises DecodeError."""
    parts = text.split(".")
    if len(parts) > 3 or not all(
        part.isascii() and part.isdigit() and len(part) < 10 for part in parts
    ):
        raise DecodeError(
            f"cniVersion {text[:40]!r} is no version",
            "a version is one to three dotted numbers",
            f"use one of {', '.join(SUPPORTED)}",
        )
    major, minor, micro, *_ = [*map(int, parts), 0, 0]
    return major, minor, micro


def require_supported(version: str) -> None:
    """Raises VersionError for a version that we do not speak; the match is by text (skel)."""
    if version not in SUPPORTED:
        raise VersionError(
            "incompatible CNI versions",
            f'config is "{version[:40]}", plugin supports {list_of(SUPPORTED)}',
            f"set cniVersion to one of {', '.join(SUPPORTED)}",
        )


def require_at_least(version: str, minimum: str, verb: str) -> None:
    """Raises VersionError where `verb` came into the spec after `version`."""
    if parse_version(version) < parse_version(minimum):
        raise VersionError(
            f"config version does not allow {verb}",
            f"cniVersion is {version}, {verb} exists since {minimum}",
            f"set cniVersion to {minimum} or later",
        )


def family(version: str) -> str:
    """Versions of one family share the shape of a result."""
    if version in ("0.1.0", "0.2.0"):
        return "0.1-0.2"
    return "0.3-0.4" if version in ("0.3.0", "0.3.1", "0.4.0") else "1.x"


def list_of(versions: Iterable[str]) -> str:
    return "[" + " ".join(f'"{version}"' for version in versions) + "]"
