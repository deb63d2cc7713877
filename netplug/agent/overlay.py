"""The agent's part in overlay networks: joins them, follows the store, mends the kernel.

One thread owns everything (`_Loop`). Others only tell it that something happened: the watch
of the store, the keeper of the lease, the kernel's notifications, and callers that wait for
an answer. Where the store does not answer, nothing is removed and nothing moves.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from netplug.agent import overlay_requests as requests
from netplug.agent.overlay_loop import Loop
from netplug.errors import NetplugError, Unavailable
from netplug.overlay import membership as memberships
from netplug.overlay.keys import NameRecord
from netplug.overlay.settings import DEFAULT_FILE, Settings, read_settings
from netplug.state import State

ANSWER_SECONDS = 20.0
log = logging.getLogger("netplug.overlay")


class Overlay:
    """Safe to use from every thread. The loop starts with the first network."""

    def __init__(self, folder: Path, run: Path, config: Path = DEFAULT_FILE) -> None:
        """`folder` is the state's, `run` the one of the sockets."""
        self._folder, self._run, self._config = folder, run, config
        self._lock = threading.Lock()
        self._loop: Loop | None = None
        self._thread: threading.Thread | None = None
        self._inbox: queue.SimpleQueue[Callable[[Loop], None] | None] = queue.SimpleQueue()

    def start(self) -> None:
        """Goes on with the networks that this node had joined, if any."""
        try:
            settings = read_settings(self._config)
            state = State(self._folder)
            try:
                wanted = memberships.exists(state)
            finally:
                state.close()
            if wanted:
                self._ensure(settings)
        except NetplugError as error:
            log.error("overlay networks are not served: %s", error)

    def stop(self) -> None:
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._inbox.put(None)
            thread.join()

    def _ensure(self, settings: Settings | None = None) -> None:
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            loop = Loop(
                self._folder, self._run, settings or read_settings(self._config), self._inbox
            )
            self._thread = threading.Thread(target=loop.run, name="overlay")
            self._thread.start()

    def ask(self, work: Callable[[Loop], Any]) -> Any:
        """What `work` returns or raises in the loop's thread."""
        self._ensure()
        answer: Future[Any] = Future()

        def run(loop: Loop) -> None:
            try:
                answer.set_result(work(loop))
            except BaseException as error:  # handed to the caller's thread
                answer.set_exception(error)

        self._inbox.put(run)
        try:
            return answer.result(ANSWER_SECONDS)
        except TimeoutError as error:
            raise Unavailable(
                "the agent's overlay thread does not answer", "it is busy", "try again"
            ) from error

    def join(self, config: dict[str, Any]) -> None:
        """Takes part in the network of this configuration. Raises NetplugError."""
        self.ask(lambda loop: requests.join(loop, config))

    def remote_names(self, network: str) -> list[NameRecord]:
        """Containers of this network on other nodes: what a DNS server may answer with."""
        with self._lock:
            running = self._thread is not None
        found: list[NameRecord] = (
            self.ask(lambda loop: requests.remote_names(loop, network)) if running else []
        )
        return found

    def control(self, request: dict[str, Any]) -> dict[str, Any]:
        """status, join, adopt, leave: what the command line asks for, and its answer."""
        name = str(request.get("network", ""))
        match request.get("command"):
            case "overlay-status":
                return dict(
                    self.ask(lambda loop: requests.status(loop, peers=bool(request.get("peers"))))
                )
            case "overlay-join":
                self.join(request["config"])
                return {"joined": request["config"]["name"]}
            case "overlay-adopt":
                return dict(self.ask(lambda loop: requests.adopt(loop, name)))
            case "overlay-leave":
                node = str(request.get("node") or "")
                return dict(self.ask(lambda loop: requests.leave(loop, name, node)))
            case "overlay-names":
                return {"names": self.remote_names(name)}
        raise Unavailable(f"the agent does not know {request.get('command')!r}")
