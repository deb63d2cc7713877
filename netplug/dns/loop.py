"""One thread, many sockets: readiness by epoll(7), and what is to happen later."""

from __future__ import annotations

import heapq
import itertools
import logging
import select
import socket
import time
from collections.abc import Callable

READ, WRITE = select.EPOLLIN, select.EPOLLOUT
log = logging.getLogger("netplug.dns")


class Timer:
    """Something that is to happen; `cancel` makes it not happen."""

    __slots__ = ("work",)

    def __init__(self, work: Callable[[], None]) -> None:
        self.work: Callable[[], None] | None = work

    def cancel(self) -> None:
        self.work = None


class Loop:
    """Calls what is registered for a descriptor when that is ready. A failure ends nothing else."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._stopping = False

    def waker(self) -> int:
        """A descriptor: whatever is written there ends the wait (signal.set_wakeup_fd)."""
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        self.register(self._ear.fileno(), self._hear)
        return self._mouth.fileno()

    def _hear(self) -> None:
        self._ear.recv(64)

    def register(self, fd: int, call: Callable[[], None], events: int = READ) -> None:
        if fd in self._calls:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._calls[fd] = call

    def unregister(self, fd: int) -> None:
        """To be called before the descriptor is closed: its number may be used anew."""
        if self._calls.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def later(self, seconds: float, work: Callable[[], None]) -> Timer:
        timer = Timer(work)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def every(self, seconds: float, work: Callable[[], None]) -> None:
        def again() -> None:
            self.later(seconds, again)
            work()

        self.later(seconds, again)

    def stop(self) -> None:
        self._stopping = True

    def run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll(self._patience()):
                call = self._calls.get(fd)
                if call is not None:  # an earlier one of this round may have closed it
                    self._attempt(call)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                work = heapq.heappop(self._timers)[2].work
                if work is not None:
                    self._attempt(work)

    def _patience(self) -> float:
        """Seconds until the next timer; those that were cancelled count no more."""
        while self._timers and self._timers[0][2].work is None:
            heapq.heappop(self._timers)
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else 3600.0

    @staticmethod
    def _attempt(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception:  # one question must not end the server
            log.exception("a task failed")
