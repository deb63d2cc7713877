"""Sysctls of a network namespace: files below /proc/sys/net, seen by the thread inside it."""

from __future__ import annotations

import os

from netplug.errors import KernelRefused
from netplug.kernel.namespaces import in_namespace

ROOT = "/proc/sys/"


def _path(key: str) -> str:
    parts = key.split("/")
    if parts[0] != "net" or ".." in parts or "" in parts:
        raise KernelRefused(
            f"sysctl {key} is refused", "only keys below net/ are set in a network namespace"
        )
    return ROOT + key


def read_sysctl(fd: int, key: str) -> str | None:
    """The value of net/... in the namespace, blanks folded; None where no such key is read."""

    def read() -> str | None:
        try:
            with open(_path(key)) as file:
                return " ".join(file.read().split())
        except OSError:  # no such key, a folder, or one that is only written
            return None

    return in_namespace(fd, read)


def read_sysctls(fd: int, keys: tuple[str, ...]) -> dict[str, str | None]:
    """Several values at once: one thread for all."""

    def read() -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        for key in keys:
            try:
                with open(_path(key)) as file:
                    found[key] = " ".join(file.read().split())
            except OSError:  # no such key, a folder, or one that is only written
                found[key] = None
        return found

    return in_namespace(fd, read)


def write_sysctls(fd: int, values: dict[str, str]) -> None:
    """Writes values one by one. Raises KernelRefused that names key and value."""

    def write() -> None:
        for key, value in values.items():
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

    in_namespace(fd, write)
