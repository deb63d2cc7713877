"""netplug's work in this process: to fill hosts quickly, and to see where its time goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.chain import SimulatedHost
from bench.execute import Execution, ProgramFailed
from netplug.cni.main import serve
from netplug.cni.protocol import Request
from netplug.engine import Engine
from netplug.host import Host
from netplug.kernel import namespaces
from netplug.state import State


class Inside:
    """`netplug.cni.verbs.Surroundings` of a simulated host, warm as the agent's. Close it."""

    def __init__(self, host: SimulatedHost, folder: Path) -> None:
        self._folder = folder
        self._state = State(folder)
        self._host = Host(host.namespace, warm=True)

    @contextmanager
    def engine(self, request: Request, log: Callable[[str], None]) -> Iterator[Engine]:
        yield Engine(self._state, self._host, log)

    def open_sandbox(self, path: str) -> int | None:
        return namespaces.open_namespace(path)

    def own_namespace(self) -> int:
        return os.dup(self._host.fd)

    def state_folder(self) -> Path:
        return self._folder

    def serve(self, execution: Execution) -> str:
        """What the plugin would print. Raises ProgramFailed."""
        text, failed = namespaces.in_namespace(
            self._host.fd,
            lambda: serve(
                execution.environ,
                execution.stdin.encode,
                program="netplug",
                log=lambda line: None,
                around=self,
            ),
        )
        if failed:
            raise ProgramFailed(f"{execution.title}: {text}")
        return text

    def close(self) -> None:
        self._host.close()
        self._state.close()
