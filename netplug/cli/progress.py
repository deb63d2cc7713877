"""A bar for work that takes more than a second, on a terminal."""

from __future__ import annotations

import sys
import time
from types import TracebackType

PATIENCE = 1.0  # seconds before it shows
WIDTH = 30


class Bar:
    """`advance(done, total)` as the work goes on; gone at the end."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._begin = time.monotonic()
        self._shown = False

    def __enter__(self) -> Bar:
        return self

    def advance(self, done: int, total: int) -> None:
        if time.monotonic() - self._begin < PATIENCE or not sys.stderr.isatty():
            return
        filled = WIDTH * min(done, total) // max(total, 1)
        bar = "#" * filled + "." * (WIDTH - filled)
        print(f"\r{self._title} [{bar}] {done}/{total}", end="", file=sys.stderr, flush=True)
        self._shown = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
