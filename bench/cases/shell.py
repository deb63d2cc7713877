"""What a person waits for: `netplug connect`, from the shell's exec to its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.case import Case, Contender, Setup, Target
from bench.chain import SEARCH_PATH, Attachment, SimulatedHost
from bench.configs import SUBNET
from bench.execute import Execution, execute

NETWORK = "bench"
NAME = "netplug command"


class Shell:
    """Measures `connect` and `disconnect`; one attachment stays."""

    name = NAME

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        self._command = str(Path(sys.executable).with_name("netplug"))
        self._environ = {
            "PATH": SEARCH_PATH,
            "NETPLUG_STATE": str(setup.state),
            "NETPLUG_RUN": str(setup.run),
        }
        self._host = SimulatedHost()
        stack.callback(self._host.close)
        self._run("network", "create", NETWORK, "--private", "--subnet", SUBNET)
        self._run("connect", self._next_container(), NETWORK)

    def _next_container(self) -> str:
        return Attachment("", self._host.container(), {}).path

    def _run(self, *words: str) -> float:
        """Milliseconds."""
        execution = Execution([self._command, *words], "", self._environ)

        def work() -> float:
            started = time.perf_counter()
            execute(execution)
            return 1000 * (time.perf_counter() - started)

        return self._host.run(work)

    def measure(self) -> Mapping[str, float]:
        container = self._next_container()
        return {
            "connect": self._run("connect", container, NETWORK),
            "disconnect": self._run("disconnect", container, NETWORK),
        }


def make_shell(setup: Setup, stack: ExitStack) -> Sequence[Contender]:
    return [Shell(setup, stack)]


CASES = (
    Case(
        "connect",
        "netplug connect and disconnect from a shell",
        make_shell,
        {("connect", NAME): Target(60, relative=False)},
    ),
)
