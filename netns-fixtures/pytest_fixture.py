"""The pytest fixture `topology`: `lab = topology("two-hosts"); lab.nodes["red"].run("ip addr")`.

For a conftest.py: `from netplug.fixtures.pytest_fixture import topology`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netplug.fixtures.load import load, parse_topology
from netplug.fixtures.running import Place, Running, build


@dataclass(frozen=True, slots=True)
class Shell:
    """A node to run commands in."""

    place: Place

    @property
    def fd(self) -> int:
        return self.place.fd

    @property
    def path(self) -> str:
        return str(self.place.path)

    def run(self, command: str, check: bool = True) -> str:
        """The stdout of a shell command in this namespace; a failure shows both streams."""
        done = self.place.run_inside(  # a child inherits the namespace of the thread that forks
            lambda: subprocess.run(
                command, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
        )
        if check and done.returncode:
            name = self.place.name
            pytest.fail(f"{name}$ {command}\n{done.stdout}{done.stderr}exit {done.returncode}")
        return done.stdout


@dataclass(frozen=True, slots=True)
class Lab:
    """A running topology whose nodes run commands."""

    running: Running
    nodes: Mapping[str, Shell]
    wire: Shell


MakeLab = Callable[..., Lab]


@pytest.fixture
def topology() -> Iterator[MakeLab]:
    """Builds topologies by shipped name, by path, or from keys; closes them after the test."""
    with ExitStack() as undo:

        def make(source: str | Path | Mapping[str, Any], *, names: str | None = None) -> Lab:
            if isinstance(source, Mapping):
                wanted = parse_topology(source, name="topology")
            else:
                wanted = load(source)
            running = undo.enter_context(build(wanted, names=names))
            nodes = {name: Shell(place) for name, place in running.nodes.items()}
            return Lab(running, nodes, Shell(running.wire))

        yield make
