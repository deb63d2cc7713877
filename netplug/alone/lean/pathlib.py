"""`pathlib`: a path that can be joined, made and read."""

from __future__ import annotations

import os
from typing import Any

from netplug.alone.lean import from_real, real


class Path(os.PathLike[str]):
    """A path as text; what else is wanted of it, the real one does."""

    __slots__ = ("_text",)

    def __init__(self, *parts: str | os.PathLike[str]) -> None:
        self._text = os.path.join(*parts)

    def __fspath__(self) -> str:
        return self._text

    __str__ = __fspath__

    def __repr__(self) -> str:
        return f"Path({self._text!r})"

    def __truediv__(self, part: str) -> Path:
        return Path(self._text, part)

    def mkdir(self, mode: int = 0o777, *, parents: bool = False, exist_ok: bool = False) -> None:
        if not (exist_ok and os.path.isdir(self._text)):
            real("pathlib").Path(self._text).mkdir(mode, parents=parents, exist_ok=exist_ok)

    def read_text(self) -> str:
        with open(self._text, encoding="utf-8") as file:
            return file.read()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(real("pathlib").Path(self._text), name)


def __getattr__(name: str) -> Any:
    return from_real("pathlib", name)
