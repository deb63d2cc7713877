"""Words on legacy xtables that drop container traffic, whatever backend holds our policies."""

from __future__ import annotations

from netplug.kernel.xtables import legacy_forward_drops
from netplug.model import Family

_COMMANDS = {4: "iptables-legacy", 6: "ip6tables-legacy"}


def legacy_drops(fd: int, family: Family) -> list[str]:
    """One line for STATUS where the legacy FORWARD chain ends in a drop; else none."""
    if not legacy_forward_drops(fd, family):
        return []
    command = _COMMANDS[family]
    return [
        f"chain FORWARD of the legacy filter table (IPv{family}) drops what it does not know:"
        f" {command} -I FORWARD -i BRIDGE -j ACCEPT, and the same with -o BRIDGE"
    ]
