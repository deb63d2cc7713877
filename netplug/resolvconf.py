"""resolv.conf(5) -> resolver settings."""

from __future__ import annotations

from netplug.model import Dns


def parse_resolv_conf(text: str) -> Dns:
    """Servers, domain, search and options; the last `search` line counts."""
    servers: list[str] = []
    domain = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.split("#", 1)[0].split(";", 1)[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver":
            servers.append(words[1])
        elif words[0] == "domain":
            domain = words[1]
        elif words[0] == "search":
            search = tuple(words[1:])
        elif words[0] == "options":
            options += tuple(words[1:])
    return Dns(tuple(servers), domain, search, options)
