"""A CNI runtime reduced to what costs time: plugins executed in order, as libcni does it.

ADD hands each plugin the result of the one before; DEL goes backwards with the result of the
ADD. Each plugin is one process, with nothing but PATH and CNI_* in its environment.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.execute import Execution, execute
from netplug.kernel import namespaces

T = TypeVar("T")
Config = Mapping[str, Any]
Result = dict[str, Any]
CNI_VERSION = "1.0.0"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A container to connect. `runtime` is what the engine wants by capabilities."""

    container: str
    namespace: int  # descriptor
    runtime: Mapping[str, Any]
    ifname: str = "eth0"

    @property
    def path(self) -> str:
        """A path of the namespace that other processes can open."""
        return f"/proc/{os.getpid()}/fd/{self.namespace}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A network: its plugins in order, in the folder they are executed from."""

    network: str
    folder: Path
    plugins: Sequence[Config]

    def add(self, attachment: Attachment) -> Result:
        result: Result | None = None
        for plugin in self.plugins:
            result = json.loads(execute(self.execution("ADD", plugin, attachment, result)))
        assert result is not None
        return result

    def delete(self, attachment: Attachment, result: Result) -> None:
        for plugin in reversed(self.plugins):
            execute(self.execution("DEL", plugin, attachment, result))

    def version(self) -> None:
        """What engines ask of every plugin before they use it."""
        for plugin in self.plugins:
            execute(self.execution("VERSION", plugin))

    def execution(
        self,
        command: str,
        plugin: Config,
        attachment: Attachment | None = None,
        result: Result | None = None,
    ) -> Execution:
        """One plugin's part of a verb."""
        environment = {"PATH": SEARCH_PATH, "CNI_COMMAND": command, "CNI_PATH": str(self.folder)}
        stdin = json.dumps({"cniVersion": CNI_VERSION})
        if attachment:
            environment |= {
                "CNI_CONTAINERID": attachment.container,
                "CNI_NETNS": attachment.path,
                "CNI_IFNAME": attachment.ifname,
                "CNI_ARGS": "",
            }
            stdin = self._request(plugin, attachment, result)
        return Execution([str(self.folder / plugin["type"])], stdin, environment)

    def _request(self, plugin: Config, attachment: Attachment, result: Result | None) -> str:
        """The plugin's part of the list, with what the runtime adds (libcni: buildOneConfig)."""
        wanted = {
            name: attachment.runtime[name]
            for name, on in plugin.get("capabilities", {}).items()
            if on and name in attachment.runtime
        }
        request = {key: value for key, value in plugin.items() if key != "capabilities"}
        request |= {"cniVersion": CNI_VERSION, "name": self.network}
        if wanted:
            request["runtimeConfig"] = wanted
        if result is not None:
            request["prevResult"] = result
        return json.dumps(request)


class SimulatedHost:
    """A network namespace that plays the host, and those of containers, until it is closed.

    Containers' namespaces are kept till then: the kernel's work to destroy one would fall into
    the next measurement.
    """

    def __init__(self) -> None:
        self.namespace = namespaces.new_namespace()
        self._opened = [self.namespace]

    def container(self) -> int:
        """The descriptor of a new container's network namespace."""
        self._opened.append(namespaces.new_namespace())
        return self._opened[-1]

    def run(self, work: Callable[[], T]) -> T:
        """`work` done inside."""
        return namespaces.in_namespace(self.namespace, work)

    def close(self) -> None:
        while self._opened:
            namespaces.close(self._opened.pop())


class ChainContender:
    """Measures ADD and DEL of a chain, in a simulated host of its own (closed with it).

    One attachment stays for the whole run: a host with nothing on a network yet, where the
    bridge and the base chains are still to be made, is met once and not over and over.
    """

    def __init__(
        self,
        name: str,
        chain: Chain,
        runtime: Mapping[str, Any],
        host: SimulatedHost | None = None,
    ) -> None:
        self.name = name
        self.host = host or SimulatedHost()
        self._chain = chain
        self._runtime = runtime
        self._count = 0
        self._resident = self._next_attachment()
        self._resident_result = self.host.run(lambda: chain.add(self._resident))

    def _next_attachment(self) -> Attachment:
        self._count += 1
        runtime = dict(self._runtime)
        if ports := runtime.get("portMappings"):
            runtime["portMappings"] = [
                {**port, "hostPort": port["hostPort"] + self._count * len(ports)} for port in ports
            ]
        return Attachment(f"bench-{self._count}", self.host.container(), runtime)

    def measure(self) -> Mapping[str, float]:
        attachment = self._next_attachment()

        def work() -> Mapping[str, float]:
            started = time.perf_counter()
            result = self._chain.add(attachment)
            added = time.perf_counter()
            self._chain.delete(attachment, result)
            deleted = time.perf_counter()
            return {"ADD": 1000 * (added - started), "DEL": 1000 * (deleted - added)}

        return self.host.run(work)

    def close(self) -> None:
        self.host.run(lambda: self._chain.delete(self._resident, self._resident_result))
        self.host.close()


class VersionContender:
    """Measures VERSION, which engines ask before they use a plugin."""

    def __init__(self, name: str, chain: Chain) -> None:
        self.name = name
        self._chain = chain

    def measure(self) -> Mapping[str, float]:
        started = time.perf_counter()
        self._chain.version()
        return {"VERSION": 1000 * (time.perf_counter() - started)}
