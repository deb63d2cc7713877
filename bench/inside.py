"""netplug's work in this process: to fill hosts quickly, and to see where its time goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.cases.attach import make_netplug_plugin
from bench.chain import Attachment, Chain, SimulatedHost
from bench.execute import Execution, ProgramFailed
from netplug.cni.main import serve
from netplug.engine import Engine
from netplug.host import Host
from netplug.kernel import namespaces
from netplug.state import State

PER_BRIDGE = 900  # ports; the kernel takes 1023 (BR_MAX_PORTS)
PER_SANDBOX = 50  # a namespace for each attachment would take minutes to make and to destroy


class Inside:
    """`netplug.cni.verbs.Surroundings` of a simulated host, warm as the agent's. Close it."""

    def __init__(self, host: SimulatedHost, folder: Path) -> None:
        self._state = State(folder)
        self._host = Host(host.namespace, prompt=True)

    @contextmanager
    def engine(self, log: Callable[[str], None]) -> Iterator[Engine]:
        yield Engine(self._state, self._host, log)

    def open_sandbox(self, path: str) -> int | None:
        return namespaces.open_namespace(path)

    def own_namespace(self) -> int:
        return os.dup(self._host.fd)

    def serve(self, execution: Execution) -> str:
        """What the plugin would print. Raises ProgramFailed."""
        text, failed = serve(
            execution.environ,
            execution.stdin.encode,
            program="netplug",
            log=lambda line: None,
            around=self,
        )
        if failed:
            raise ProgramFailed(f"{execution.title}: {text}")
        return text

    def close(self) -> None:
        self._host.close()
        self._state.close()


def fill(host: SimulatedHost, folder: Path, attachments: int, say: Callable[[str], None]) -> None:
    """Adds `attachments` to a host, recorded in the state at `folder`.

    The network `bench` is the first that gets some; the others exist where it cannot hold them.
    They bring no routes, for many of them share a container.
    """
    networks = [_make_chain(number) for number in range(1 + (attachments - 1) // PER_BRIDGE)]
    inside = Inside(host, folder)
    sandbox = -1
    try:
        for number in range(attachments):
            if number % PER_SANDBOX == 0:
                sandbox = host.container()
                say(f"{number} of {attachments} attachments")
            attachment = Attachment(f"fill-{number}", sandbox, {}, f"net{number}")
            chain = networks[number % len(networks)]
            inside.serve(chain.execution("ADD", chain.plugins[0], attachment))
    finally:
        inside.close()


def _make_chain(number: int) -> Chain:
    more = {"bridge": f"bench{number}", "subnet": f"10.{89 + number}.0.0/16"}
    plugin = dict(make_netplug_plugin(masquerade=True, **more))
    plugin["ipam"] = {**plugin["ipam"], "routes": []}
    return Chain("bench" if number == 0 else f"bench-{number}", Path("/nonexistent"), [plugin])
