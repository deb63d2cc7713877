"""An agent with its name server, and plugin calls through it, for tests of names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents import Station, ask

from netplug.dns import protocol, service

if TYPE_CHECKING:
    from conftest import Host

CONFIG = {
    "cniVersion": "1.1.0",
    "name": "lan",
    "type": "netplug",
    "bridge": "br0",
    "isDefaultGateway": True,
    "ipMasq": True,
    "names": True,
    "ipam": {
        "type": "netplug",
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00:1::/64"}]],
    },
}
OTHER = {
    "name": "back",
    "bridge": "br1",
    "ipam": {"type": "netplug", "ranges": [[{"subnet": "10.2.0.0/24"}]]},
}
GATEWAY, GATEWAY6 = "10.1.0.1", "fd00:1::1"


class Names:
    """An agent with its name server, and calls of the plugin through it."""

    def __init__(self, folder: Path) -> None:
        self.station = Station(folder / "agent.sock", log=folder / "log")
        self.folder = folder

    def call(
        self, command: str, host: Host, container: Host, name: str = "", /, **keys: Any
    ) -> dict[str, Any]:
        """One plugin call; the document that it prints."""
        environ = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container.name,
            "CNI_NETNS": container.path if os.path.exists(container.path) else "",
            "CNI_IFNAME": keys.pop("ifname", "eth0"),
            "CNI_PATH": "/opt/cni/bin",
            "CNI_ARGS": f"K8S_POD_NAME={name}" if name else "",
        }
        config = {**CONFIG, **keys}
        status, out = ask(self.station.socket, host, environ, json.dumps(config).encode())
        assert not status, out
        return dict(json.loads(out)) if out else {}

    @property
    def log(self) -> str:
        """What agent and name server have said so far."""
        return (self.folder / "log").read_text()

    def ask_server(self, command: str, **words: str) -> dict[str, Any]:
        """What the name server says on its control socket."""
        return protocol.ask(self.folder / protocol.NAME, {"command": command, **words})

    def add(self, host: Host, container: Host, name: str = "", /, **keys: Any) -> dict[str, Any]:
        return self.call("ADD", host, container, name, **keys)

    def delete(self, host: Host, container: Host, /, **keys: Any) -> None:
        self.call("DEL", host, container, **keys)

    def status(self) -> dict[str, Any]:
        """The name server's; {} where none answers."""
        return service.read_status(self.folder) or {}


@contextmanager
def running(folder: Path) -> Iterator[Names]:
    """Both processes have ended afterwards."""
    names = Names(folder)
    names.station.start()
    try:
        yield names
    finally:
        names.station.end()
        service.stop(folder)
