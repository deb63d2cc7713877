"""--publish and --bandwidth as people write them -> capability arguments as engines send them."""

from __future__ import annotations

import re
from typing import Any

from netplug.errors import ConfigError

FORM = "HOST_PORT:CONTAINER_PORT, HOST_IP:HOST_PORT:CONTAINER_PORT, ranges A-B, /udp, /sctp"
_PUBLISH = re.compile(
    r"(?:(?P<ip>\[[0-9a-fA-F:.]+\]|[0-9.]+):)?"
    r"(?P<host>\d+)(?:-(?P<host_end>\d+))?:(?P<port>\d+)(?:-(?P<port_end>\d+))?"
    r"(?:/(?P<protocol>\w+))?",
    re.ASCII,
)
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def parse_publish(text: str) -> list[dict[str, Any]]:
    """One mapping for each port of the range. Raises ConfigError that shows the form."""
    match = _PUBLISH.fullmatch(text)
    if match is None:
        raise ConfigError(f"--publish {text!r} is wrong", "it cannot be read", f"write {FORM}")
    host, port = int(match["host"]), int(match["port"])
    count = int(match["host_end"] or host) - host + 1
    if count != int(match["port_end"] or port) - port + 1 or count < 1:
        raise ConfigError(
            f"--publish {text!r} is wrong", "the two ranges differ in length", f"write {FORM}"
        )
    entry: dict[str, Any] = {"protocol": match["protocol"] or "tcp"}
    if match["ip"]:
        entry["hostIP"] = match["ip"].strip("[]")
    return [{**entry, "hostPort": host + i, "containerPort": port + i} for i in range(count)]


def parse_rate(text: str) -> int:
    """Bits per second: 10M, 1.5G, 64k, 9600."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kmg]?)(?:bit)?", text.lower(), re.ASCII)
    if match is None:
        raise ConfigError(f"rate {text!r} is wrong", "it cannot be read", "write 10M, 1.5G, 64k")
    return int(float(match[1]) * _UNITS[match[2]])
