"""Names of containers on other nodes: told by the agent, in steps that leave nothing out.

Each step names the mark that it builds on and the one that it makes. A name server that has
another mark (it was started anew) refuses it, and is then told everything.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from netplug.dns.names import Member
from netplug.dns.registry import Registry

Where = tuple[str, str]  # host, network


class RemoteNames:
    """What was told of each network of each host."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._marks: dict[Where, str] = {}
        self._members: dict[Where, dict[str, Member]] = {}

    def step(self, request: dict[str, Any]) -> dict[str, Any]:
        """Applies one step; the answer's `mark` is the one that is held now."""
        where = str(request["host"]), str(request["network"])
        after = str(request.get("after", ""))
        if after and after != self._marks.get(where, ""):
            return {"mark": self._marks.get(where, "")}
        if not after:  # the first of a new beginning
            for owner in tuple(self._members.get(where, ())):
                self._drop(where, owner)
        for owner in request.get("drop", ()):
            self._drop(where, str(owner))
        for entry in request.get("put", ()):
            self._put(where, _parse_member(where, entry))
        self._marks[where] = str(request["mark"])
        return {"mark": self._marks[where]}

    def _put(self, where: Where, member: Member) -> None:
        self._drop(where, member.owner)
        self._members.setdefault(where, {})[member.owner] = member
        self._registry.put_remote(member)

    def _drop(self, where: Where, owner: str) -> None:
        member = self._members.get(where, {}).pop(owner, None)
        if member is not None:
            self._registry.drop_remote(member)


def _parse_member(where: Where, entry: dict[str, Any]) -> Member:
    owner = str(entry["owner"])
    return Member(
        host=where[0],
        network=where[1],
        owner=owner,
        group=f"remote/{owner}",
        names=tuple(str(name) for name in entry["names"]),
        addresses=tuple(ip_address(address) for address in entry["addresses"]),
        domain=str(entry["domain"]),
        ttl=int(entry["ttl"]),
        internal=bool(entry.get("internal")),
        subnets=tuple(ip_network(subnet) for subnet in entry.get("subnets", ())),
    )
