"""Tests of the plugin by another way than a call in this process: `./run test --through WAY`.

native, python: by that launcher and an agent; one-process: an execution for each call. A test
asks `serve` (as `cni_exec.serve_in` and `attaching.Site` do) and need not know.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from netplug import errors
from netplug.agent.build import Settings, make_launcher
from netplug.cni.result import parse_result
from netplug.errors import NetplugError, UnsupportedError
from netplug.install import install_plugin
from netplug.model import Attachment, Dns, Network, Result

if TYPE_CHECKING:
    from agents import Station
    from conftest import Host

WAYS = ("native", "python", "one-process")
IN_PROCESS = "in-process"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PATIENCE = 60  # seconds for one plugin, and of a launcher that is not to give up
VERSION = "1.1.0"


@dataclass(frozen=True, slots=True)
class Way:
    """A plugin folder, and the agent behind its launcher (the one process alone has none)."""

    kind: str
    folder: Path
    station: Station | None

    def served(self, verb: str) -> int:
        """How many calls of this verb the agent has answered."""
        if self.station is None:
            return 0
        return sum(self.station.counted(verb, result) for result in ("ok", "error"))


_taken: list[Way] = []


def taken() -> Way | None:
    """The way that tests go now; None: in this process."""
    return _taken[-1] if _taken else None


@contextmanager
def going(way: Way) -> Iterator[None]:
    _taken.append(way)
    try:
        yield
    finally:
        _taken.pop()


@contextmanager
def opened(kind: str, folder: Path) -> Iterator[Way]:
    """The way of this kind, with an agent of its own; the test is skipped where it cannot be."""
    from agents import Station

    station = Station(folder / "s" / "agent.sock")
    milliseconds = PATIENCE * 1000
    settings = Settings(socket=str(station.socket), answer_ms=milliseconds, work_ms=milliseconds)
    try:
        launcher = make_launcher(settings, kind)
    except UnsupportedError as reason:
        pytest.skip(str(reason))
    install_plugin(folder / "bin", launcher)
    if kind == "one-process":
        yield Way(kind, folder / "bin", None)
        return
    station.start()
    try:
        yield Way(kind, folder / "bin", station)
    finally:
        station.stop()


def execute(
    host: Host, program: Path, environ: Mapping[str, str], stdin: bytes
) -> subprocess.CompletedProcess[bytes]:
    """A plugin's run on this host, with nothing in its environment but what is given."""
    return host.call(
        lambda: subprocess.run(
            [program],
            input=stdin,
            env=dict(environ),
            cwd="/",
            capture_output=True,
            check=False,
            timeout=PATIENCE,
        )
    )


# --- what tests of the engine ask for, as calls of the plugin


@dataclass(frozen=True, slots=True)
class Caller:
    """An engine of containers on one host, whose plugin is found by one way."""

    host: Host
    way: Way

    def add(self, network: Network, attachment: Attachment) -> Result:
        config = {**network.raw, "cniVersion": VERSION, **render_wishes(attachment)}
        return parse_result(self._call("ADD", attachment, config), VERSION)

    def delete(self, attachment: Attachment) -> None:
        config = {"cniVersion": VERSION, "name": attachment.network, "type": "netplug"}
        self._call("DEL", attachment, config)

    def _call(self, verb: str, attachment: Attachment, config: dict[str, Any]) -> Any:
        """The document that is the answer. Raises the error that it tells of."""
        environ = {
            "PATH": SEARCH_PATH,
            "CNI_PATH": str(self.way.folder),
            "CNI_COMMAND": verb,
            "CNI_CONTAINERID": attachment.container,
            "CNI_NETNS": attachment.sandbox,
            "CNI_IFNAME": attachment.ifname,
            "CNI_ARGS": f"K8S_POD_NAME={attachment.name}" if attachment.name else "",
        }
        stdin = json.dumps(config).encode()
        done = execute(self.host, self.way.folder / "netplug", environ, stdin)
        document = json.loads(done.stdout) if done.stdout else {}
        if done.returncode:
            raise _error_of(document)
        return document


def _error_of(document: Mapping[str, Any]) -> NetplugError:
    kinds = {kind.code: kind for kind in vars(errors).values() if _is_error(kind)}
    kind = kinds.get(document["code"], NetplugError)
    error: NetplugError = kind(str(document["msg"]), str(document.get("details", "")))
    return error


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, NetplugError)


def render_wishes(attachment: Attachment) -> dict[str, Any]:
    """What is asked for an attachment, as an engine would put it into the configuration."""
    a, runtime = attachment, dict[str, Any]()
    if a.mac:
        runtime["mac"] = a.mac
    if a.addresses:
        runtime["ips"] = [str(address) for address in a.addresses]
    if a.aliases:
        runtime["aliases"] = {a.network: list(a.aliases)}
    if a.dns != Dns():
        runtime["dns"] = {
            "servers": [str(server) for server in a.dns.nameservers],
            "searches": list(a.dns.search),
            "options": list(a.dns.options),
        }
    if a.ports:
        runtime["portMappings"] = [
            {
                "hostPort": port.host_port,
                "containerPort": port.container_port,
                "protocol": port.protocol,
                **({"hostIP": str(port.host_ip)} if port.host_ip else {}),
            }
            for port in a.ports
        ]
    limits = {
        "ingressRate": a.bandwidth.ingress_rate,
        "ingressBurst": a.bandwidth.ingress_burst,
        "egressRate": a.bandwidth.egress_rate,
        "egressBurst": a.bandwidth.egress_burst,
    }
    if any(limits.values()):
        runtime["bandwidth"] = {key: value for key, value in limits.items() if value}
    found: dict[str, Any] = {"runtimeConfig": runtime} if runtime else {}
    if a.mtu:
        found["args"] = {"cni": {"mtu": a.mtu}}
    return found
