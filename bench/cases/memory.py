"""What is resident in memory all the time: the agent beside another engine's daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from bench.case import Case, Contender, Missing, NotMeasured, Setup, Target
from bench.chain import SEARCH_PATH, SimulatedHost
from bench.crowd import fill
from bench.execute import execute
from bench.launchers import NO_INTERPRETER, install_launcher, read_memory, start_agent
from bench.peers import find_program, unpacked_folders
from netplug.agent.build import Settings

ATTACHMENTS = 1000
IDLE, BUSY = "idle", f"after {ATTACHMENTS} attachments"
DOCKERD, AGENT = "dockerd", "netplug agent"
PATIENCE = 30.0  # seconds for a daemon to start, or to end
SETTLED = 3.0  # seconds until a daemon that answers is idle


class AgentMemory:
    """An agent of its own: idle first, then after it made many attachments."""

    name = AGENT

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        folder = setup.folder / "memory"
        folder.mkdir()
        self._agent = start_agent(folder, stack)
        settings = Settings(interpreter=NO_INTERPRETER, socket=str(self._agent.socket))
        self._plugins = install_launcher(folder / "bin", "auto", settings)
        self._host = SimulatedHost()
        stack.callback(self._host.close)
        self._say = setup.say

    def measure(self) -> Mapping[str, float]:
        idle = self._agent.read_memory()
        self._host.run(
            lambda: fill(self._host, ATTACHMENTS, self._plugins, run=execute, say=self._say)
        )
        return {IDLE: idle, BUSY: self._agent.read_memory()}


class DockerMemory:
    """Docker's daemon without any container; its containerd is not counted."""

    name = DOCKERD

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        folder = setup.folder / "docker"
        folder.mkdir()
        self._socket = folder / "socket"
        log = stack.enter_context((folder / "log").open("w+b"))
        programs = ":".join(str(path) for path in unpacked_folders())
        self._process = subprocess.Popen(
            [
                *(find_program("dockerd"), "--host", f"unix://{self._socket}"),
                *("--data-root", folder / "data", "--exec-root", folder / "exec"),
                *("--pidfile", folder / "pid", "--oom-score-adjust", "0"),
            ],
            env={"PATH": f"{programs}:{SEARCH_PATH}", "HOME": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # with its containerd, so that both can be ended
        )
        stack.callback(self._end)
        deadline = time.monotonic() + PATIENCE
        while not self._socket.exists() or not (folder / "pid").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                lines = log.read().decode(errors="replace").strip().splitlines() or ["silent"]
                raise NotMeasured(f"dockerd does not start here: {lines[-1]}")
            time.sleep(0.1)
        time.sleep(SETTLED)

    def measure(self) -> Mapping[str, float]:
        return {IDLE: read_memory(self._process.pid)}

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def make_daemons(setup: Setup, stack: ExitStack) -> Sequence[Contender | Missing]:
    agent = AgentMemory(setup, stack)
    try:
        return [DockerMemory(setup, stack), agent]
    except NotMeasured as reason:
        return [agent, Missing(DOCKERD, str(reason))]


CASES = (
    Case(
        "memory",
        "resident memory",
        make_daemons,
        {
            (IDLE, AGENT): Target(60, relative=False),
            (BUSY, AGENT): Target(90, relative=False),
        },
        unit="MiB",
        once=True,
    ),
)
