"""netplug's contenders, made for one run of the bench, and the agent behind two of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.case import ALONE, NATIVE, PYTHON, Missing
from netplug.agent import service
from netplug.agent.build import Settings, make_launcher
from netplug.errors import UnsupportedError
from netplug.install import install_plugin

# A launcher that finds no agent becomes this, and CNI error 5 says so: nothing else but the
# agent's work must be measured as such.
NO_INTERPRETER = "/nonexistent"
PATIENCE = 10.0  # seconds for an agent to end


@dataclass(frozen=True, slots=True)
class Agent:
    """A running agent; `stop` ends it."""

    socket: Path
    state: Path
    pid: int

    @classmethod
    def start(cls, folder: Path) -> Agent:
        """A new one, with a socket and a state of its own below `folder`."""
        socket, state = folder / "run/agent.sock", folder / "state"
        status = service.start(socket, state)
        return cls(socket, state, int(str(status["pid"])))

    def stop(self) -> None:
        """Ends it, and waits until it has ended: it is our child."""
        service.stop(self.socket)
        deadline = time.monotonic() + PATIENCE
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.05)

    def read_memory(self) -> float:
        """MiB that are resident."""
        return read_memory(self.pid)


def read_memory(pid: int) -> float:
    """MiB of a process that are resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def start_agent(folder: Path, stack: ExitStack) -> Agent:
    agent = Agent.start(folder)
    stack.callback(agent.stop)
    return agent


def install_launcher(folder: Path, kind: str, settings: Settings) -> Path:
    """A folder that holds the plugin. Raises UnsupportedError."""
    install_plugin(folder, make_launcher(settings, kind))
    return folder


def make_plugins(folder: Path, agent: Agent) -> Mapping[str, Path | Missing]:
    """Each contender's folder. Without an agent the launcher is still there, as on any host."""
    warm = Settings(interpreter=NO_INTERPRETER, socket=str(agent.socket))
    cold = Settings(socket=str(folder / "no-agent"))
    plugins: dict[str, Path | Missing] = {}
    for name, kind, settings in (
        (NATIVE, "native", warm),
        (PYTHON, "python", warm),
        (ALONE, "auto", cold),
    ):
        target = folder / name.replace(" ", "-")
        try:
            plugins[name] = install_launcher(target, kind, settings)
        except UnsupportedError as error:
            plugins[name] = Missing(name, f"{error.what}: {error.why}")
    return plugins
