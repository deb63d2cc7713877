"""`socket` without its enumerations (constants are numbers) and files."""

from __future__ import annotations

import _socket
from _socket import *  # noqa: F403
from typing import Any

from netplug.alone.lean import from_real


class socket(_socket.socket):  # type: ignore[no-redef]  # noqa: N801  # a stand-in
    """Closed at the end of a `with`."""

    __slots__ = ("__weakref__",)

    def __enter__(self) -> socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def __getattr__(name: str) -> Any:
    return from_real("socket", name)
