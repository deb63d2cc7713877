"""The iptables backend: for hosts whose rules live in the legacy tables.

    from netplug.firewall.iptables import IptablesFirewall

Every request runs in a short child process (`child`) that is born in the host's namespace,
takes the lock of `iptables -w`, changes each table by one commit, and ends (about 0.1 s).
This process never loads python-iptables. Needs CAP_NET_ADMIN over the namespace.
"""

from __future__ import annotations

from typing import Any

from netplug.codec import encode
from netplug.firewall.intent import Base, Intent, SpoofGuard
from netplug.firewall.iptables.process import (
    LOCKFILE,
    PATIENCE,
    read_active_tables,
    run_child,
)
from netplug.firewall.iptables.rules import compute_ruleset, render_shell, unsupported
from netplug.kernel.namespaces import in_namespace
from netplug.model import Family

__all__ = [
    "IptablesFirewall",
    "ensure_legacy_accept",
    "legacy_accept_present",
    "legacy_drops",
    "remove_legacy_accept",
    "render_shell",
]


class IptablesFirewall:
    """`Firewall` on the legacy tables of the namespace behind `netns`.

    `patience` seconds are waited for `lockfile`; then Busy is raised. Raises UnsupportedError
    where the kernel has no legacy tables, python-iptables is missing, or for a SpoofGuard.
    """

    name = "iptables"

    def __init__(self, netns: int, *, lockfile: str = LOCKFILE, patience: float = PATIENCE) -> None:
        self._netns = netns
        self._lock = {"lockfile": lockfile, "patience": patience}

    def present(self, intent: Intent) -> str | None:
        ruleset = compute_ruleset(intent)
        if not set(ruleset.tables) & self._active(ruleset.family):
            return None if ruleset.rules else ""
        answer = self._ask("present", intent)
        return None if answer is None else str(answer)

    def apply(self, intent: Intent) -> bool:
        compute_ruleset(intent)  # refuses here what no child need be started for
        return bool(self._ask("apply", intent))

    def undo(self, intent: Intent) -> None:
        if isinstance(intent, SpoofGuard) or (
            isinstance(intent, Base) and intent.family == "bridge"
        ):
            return
        if self._active(compute_ruleset(intent).family):
            self._ask("undo", intent)

    def remove_owned(self, owner: str) -> int:
        if not self._active(4) | self._active(6):
            return 0
        return int(run_child(self._netns, {"verb": "remove_owned", "owner": owner, **self._lock}))

    def owners(self) -> set[str]:
        if not self._active(4) | self._active(6):
            return set()
        return set(run_child(self._netns, {"verb": "owners", **self._lock}))

    def _ask(self, verb: str, intent: Intent) -> Any:
        request = {"verb": verb, "kind": type(intent).__name__, "intent": encode(intent)}
        return run_child(self._netns, {**request, **self._lock})

    def _active(self, family: Family) -> set[str]:
        return in_namespace(self._netns, lambda: read_active_tables(family))


def legacy_drops(netns: int) -> list[str]:
    """The legacy chains that would drop a bridge's traffic, for a backend that is not this one.

    Such as "ip filter FORWARD: policy DROP (legacy tables)", "ip6 filter INPUT: last rule REJECT
    (legacy tables)". Loads no table: a namespace without them costs one read of /proc.
    """
    active = in_namespace(netns, lambda: read_active_tables(4) | read_active_tables(6))
    if "filter" not in active:
        return []
    return list(run_child(netns, _legacy("drops")))


def legacy_accept_present(netns: int, bridge: str, family: Family) -> str | None:
    """As `Firewall.present`, for the accepts of `ensure_legacy_accept`."""
    if "filter" not in in_namespace(netns, lambda: read_active_tables(family)):
        return None
    answer = run_child(netns, _legacy("legacy_present", bridge=bridge, family=family))
    return None if answer is None else str(answer)


def ensure_legacy_accept(netns: int, bridge: str, family: Family) -> bool:
    """Lets a bridge's traffic through the legacy filter table; whether anything was missing.

    For the nft backend, whose own table holds the policy: these rules accept all of it. They
    stand in DOCKER-USER where FORWARD leads there, else at the head of FORWARD.
    """
    return bool(run_child(netns, _legacy("legacy_apply", bridge=bridge, family=family)))


def remove_legacy_accept(netns: int, bridge: str, family: Family) -> None:
    """Undoes `ensure_legacy_accept`; silent where nothing is left of it."""
    if "filter" in in_namespace(netns, lambda: read_active_tables(family)):
        run_child(netns, _legacy("legacy_undo", bridge=bridge, family=family))


def _legacy(verb: str, **values: Any) -> dict[str, Any]:
    return {"verb": verb, "lockfile": LOCKFILE, "patience": PATIENCE, **values}
