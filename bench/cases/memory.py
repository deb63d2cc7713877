"""What is resident in memory all the time: the agent beside another engine's daemon."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.case import Case, Contender, Missing, NotMeasured, Setup, Target
from bench.cases.attach import make_netplug_plugin
from bench.chain import SEARCH_PATH, Attachment, Chain, SimulatedHost
from bench.execute import execute
from bench.inside import PER_BRIDGE, PER_SANDBOX
from bench.launchers import NO_INTERPRETER, Agent, install_launcher, read_memory, start_agent
from bench.peers import find_program
from netplug.agent.build import Settings

ATTACHMENTS = 1000
IDLE, BUSY = "idle", f"after {ATTACHMENTS} attachments"
PATIENCE = 30.0  # seconds for a daemon to start, or to end
SETTLED = 3.0  # seconds until a daemon that answers is idle


class AgentMemory:
    """An agent that nobody else calls, first idle, then after it made many attachments."""

    name = "netplug agent"

    def __init__(self, setup: Setup, stack: ExitStack) -> None:
        folder = setup.folder / "memory"
        self._agent = start_agent(folder, stack)
        settings = Settings(interpreter=NO_INTERPRETER, socket=str(self._agent.socket))
        self._plugins = install_launcher(folder / "bin", "auto", settings)
        self._host = SimulatedHost()
        stack.callback(self._host.close)
        self._say = setup.say

    def measure(self) -> Mapping[str, float]:
        idle = self._agent.read_memory()
        self._host.run(self._attach)
        return {IDLE: idle, BUSY: self._agent.read_memory()}

    def _attach(self) -> None:
        networks = [
            Chain(f"bench-{name}", self._plugins, [_make_plugin(number)])
            for number, name in enumerate(range(1 + (ATTACHMENTS - 1) // PER_BRIDGE))
        ]
        sandbox = -1
        for number in range(ATTACHMENTS):
            if number % PER_SANDBOX == 0:
                sandbox = self._host.container()
                self._say(f"{number} of {ATTACHMENTS} attachments")
            chain = networks[number % len(networks)]
            attachment = Attachment(f"many-{number}", sandbox, {}, f"net{number}")
            execute(chain.execution("ADD", chain.plugins[0], attachment))
