"""Sysctls of a network namespace: files below /proc/sys/net, seen by the thread inside it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from netplug.errors import KernelRefused
from netplug.kernel.namespaces import in_namespace

ROOT = "/proc/sys/"
LONGEST = 1 << 16  # bytes of a value: a bitmap of all ports


def _path(key: str) -> str:
    parts = key.split("/")
    if parts[0] != "net" or ".." in parts or "" in parts:
        raise KernelRefused(
            f"sysctl {key} is refused", "only keys below net/ are set in a network namespace"
        )
    return ROOT + key


def read_sysctl(fd: int, key: str) -> str | None:
    """The value of net/... in the namespace, blanks folded; None where no such key is read."""
    return read_sysctls(fd, (key,))[key]


def read_sysctls(fd: int, keys: tuple[str, ...]) -> dict[str, str | None]:
    """Several values, for one way into the namespace."""
    return in_namespace(fd, lambda: {key: _read(key) for key in keys})


def _read(key: str) -> str | None:
    try:
        descriptor = os.open(_path(key), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # no such key, or one that is only written
        return None
    try:
        return fold(os.read(descriptor, LONGEST).decode())
    except OSError:  # a folder
        return None
    finally:
        os.close(descriptor)


def ensure_sysctls(fd: int, values: Mapping[str, str], *, optional: bool = False) -> bool:
    """Writes the values that differ; whether any did. With `optional`, unknown keys do not count.

    Raises KernelRefused that names key and value.
    """

    def ensure() -> bool:
        found = {key: _read(key) for key in values}
        lacking = {
            key: value
            for key, value in values.items()
            if found[key] != fold(value) and not (optional and found[key] is None)
        }
        for key, value in lacking.items():
            _write(key, value)
        return bool(lacking)

    return in_namespace(fd, ensure)


def fold(value: str) -> str:
    """A value as `read_sysctls` gives it: blanks, tabs and line ends are one blank."""
    return " ".join(value.split())


def _write(key: str, value: str) -> None:
    try:
        descriptor = os.open(_path(key), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        raise KernelRefused(
            f"sysctl {key} cannot be set to {value!r}",
            error.strerror or "",
            "is /proc/sys read-only here, or the key unknown to this kernel?",
            errno=error.errno or 0,
        ) from error
