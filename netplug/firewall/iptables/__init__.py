"""The iptables backend: for hosts whose rules live in the legacy tables.

    rules     intents as rules, and as the commands one would type (pure)
    process   runs the child: one request, one short process
    child     that process; with `tables` (libiptc) and `changes`, all that knows python-iptables

The child is born in the host's namespace, takes the lock of `iptables -w`, changes each table
by one commit, and ends. This process never loads python-iptables. All of it needs
CAP_NET_ADMIN over the namespace. The child imports this package too, so nothing here may
bring `netplug.kernel` (pyroute2, 0.2 s) along when it is imported.
"""

from __future__ import annotations

from typing import Any

from netplug.codec import encode
from netplug.firewall.intent import Base, Intent, Publish, SpoofGuard
from netplug.firewall.iptables.process import read_active_tables_of, run_child
from netplug.firewall.iptables.rules import compute_ruleset, render_shell
from netplug.model import Family

__all__ = [
    "IptablesFirewall",
    "ensure_legacy_accept",
    "legacy_accept_present",
    "remove_legacy_accept",
    "render_shell",
]

LOCKFILE = "/run/xtables.lock"
PATIENCE = 30.0  # seconds to wait for the lock


class IptablesFirewall:
    """`Firewall` on the legacy tables of the namespace behind `fd`.

    `patience` seconds are waited for `lockfile`; then Busy is raised. Raises UnsupportedError
    where the kernel has no legacy tables, python-iptables is missing, or for a SpoofGuard.
    """

    name = "iptables"

    def __init__(self, fd: int, *, lockfile: str = LOCKFILE, patience: float = PATIENCE) -> None:
        self._fd = fd
        self._lock = {"lockfile": lockfile, "patience": patience}

    def present(self, intent: Intent) -> str | None:
        ruleset = compute_ruleset(intent)
        active = read_active_tables_of(self._fd, ruleset.family)
        if ruleset.rules and not active.intersection(ruleset.tables):
            return None
        return _words(self._ask("present", intent))

    def apply(self, intent: Intent) -> bool:
        compute_ruleset(intent)  # refuses here what no child need be started for
        absent = bool(self._ask("apply", intent))
        if isinstance(intent, Publish):
            _flush_flows(self._fd, intent, gone=False)
        return absent

    def undo(self, intent: Intent) -> None:
        if _of_bridged_frames(intent):
            return
        if read_active_tables_of(self._fd, compute_ruleset(intent).family):
            self._ask("undo", intent)
        if isinstance(intent, Publish):
            _flush_flows(self._fd, intent, gone=True)

    def remove_owned(self, owner: str) -> int:
        if not self._in_use():
            return 0
        return int(run_child(self._fd, {"verb": "remove_owned", "owner": owner, **self._lock}))

    def owners(self) -> set[str]:
        if not self._in_use():
            return set()
        return set(run_child(self._fd, {"verb": "owners", **self._lock}))

    def _ask(self, verb: str, intent: Intent) -> Any:
        request = {"verb": verb, "kind": type(intent).__name__, "intent": encode(intent)}
        return run_child(self._fd, {**request, **self._lock})

    def _in_use(self) -> bool:
        return bool(read_active_tables_of(self._fd, 4) or read_active_tables_of(self._fd, 6))


def ensure_legacy_accept(fd: int, bridge: str, family: Family) -> bool:
    """Lets a bridge's traffic through the legacy filter table; whether anything was missing.

    For the nft backend, whose own table holds the policy: these rules accept all of it. They
    stand in DOCKER-USER where FORWARD leads there, else at the head of FORWARD.
    """
    return bool(_ask_legacy(fd, "legacy_apply", bridge, family))


def legacy_accept_present(fd: int, bridge: str, family: Family) -> str | None:
    """As `Firewall.present`, for what `ensure_legacy_accept` makes; loads no table."""
    if "filter" not in read_active_tables_of(fd, family):
        return None
    return _words(_ask_legacy(fd, "legacy_present", bridge, family))


def remove_legacy_accept(fd: int, bridge: str, family: Family) -> None:
    """Undoes `ensure_legacy_accept`; silent where nothing is left of it."""
    if "filter" in read_active_tables_of(fd, family):
        _ask_legacy(fd, "legacy_undo", bridge, family)


def _ask_legacy(fd: int, verb: str, bridge: str, family: Family) -> Any:
    request = {"verb": verb, "bridge": bridge, "family": family}
    return run_child(fd, {**request, "lockfile": LOCKFILE, "patience": PATIENCE})


def _words(answer: Any) -> str | None:
    return None if answer is None else str(answer)


def _flush_flows(fd: int, intent: Publish, *, gone: bool) -> None:
    from netplug.kernel.conntrack import flush_udp

    flush_udp(fd, intent.family, intent.mappings, gone=gone)


def _of_bridged_frames(intent: Intent) -> bool:
    """Never applied by this backend, so nothing is to be undone."""
    if isinstance(intent, Base):
        return intent.family == "bridge"
    return isinstance(intent, SpoofGuard)
