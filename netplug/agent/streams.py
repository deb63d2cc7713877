"""stdout and stderr that belong to a thread: the agent's threads print for one caller each."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

_current = threading.local()
_lock = threading.Lock()


class Said:
    """What was printed, in order, and the terminal that it is for."""

    def __init__(self, environ: Mapping[str, str], terminals: str) -> None:
        self.environ, self.terminals = environ, terminals
        self.parts: list[tuple[str, str]] = []  # "1" or "2", and text


class Stream(io.TextIOBase):
    """One of the two; a thread that nobody directs prints where it always did."""

    encoding = "utf-8"
    errors = "strict"

    def __init__(self, number: str, rest: TextIO) -> None:
        self._number, self.rest = number, rest

    @property
    def _said(self) -> Said | None:
        return getattr(_current, "said", None)

    @property
    def environ(self) -> Mapping[str, str] | None:
        """Of the terminal's variables, where it is somebody else's."""
        return self._said.environ if self._said else None

    def write(self, text: str) -> int:
        if not isinstance(text, str):  # how some find out whether a stream takes bytes
            raise TypeError("a text stream takes str")
        if self._said is None:
            return self.rest.write(text)
        self._said.parts.append((self._number, text))
        return len(text)

    def flush(self) -> None:
        if self._said is None:
            self.rest.flush()

    def isatty(self) -> bool:
        return self._number in self._said.terminals if self._said else self.rest.isatty()

    def writable(self) -> bool:
        return True


@contextmanager
def directed(said: Said) -> Iterator[None]:
    """What this thread prints meanwhile is said there."""
    with _lock:
        if not isinstance(sys.stdout, Stream):
            sys.stdout, sys.stderr = Stream("1", sys.stdout), Stream("2", sys.stderr)
    _current.said = said
    try:
        yield
    finally:
        del _current.said
