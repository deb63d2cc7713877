"""The two firewalls on legacy tables: the whole backend, and accepts in aid of another one.

Both need CAP_NET_ADMIN over the namespace, and a lock: `patience` seconds are waited for
`lockfile` (the one of `iptables -w`), then Busy is raised. UnsupportedError tells of a kernel
without legacy tables and of a missing python-iptables.
"""

from __future__ import annotations

from typing import Any

from netplug.codec import encode
from netplug.firewall.intent import Accept, Base, Intent, Publish, SpoofGuard
from netplug.firewall.iptables.process import read_active_tables_of, run_child
from netplug.firewall.iptables.rules import compute_ruleset
from netplug.model import Family

LOCKFILE = "/run/xtables.lock"
PATIENCE = 30.0  # seconds to wait for the lock
FAMILIES: tuple[Family, ...] = (4, 6)


class IptablesFirewall:
    """`Firewall` on the legacy tables of the namespace behind `fd`.

    Raises UnsupportedError for a SpoofGuard: iptables sees no frames.
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
        return _words(self._ask("present", _described(intent)))

    def apply(self, intent: Intent) -> bool:
        compute_ruleset(intent)  # refuses here what no child need be started for
        absent = bool(self._ask("apply", _described(intent)))
        if isinstance(intent, Publish):
            self._flush_flows(intent, gone=False)
        return absent

    def undo(self, intent: Intent) -> None:
        if _is_about_frames(intent):
            return
        if read_active_tables_of(self._fd, compute_ruleset(intent).family):
            self._ask("undo", _described(intent))
        if isinstance(intent, Publish):
            self._flush_flows(intent, gone=True)

    def remove_owned(self, owner: str) -> int:
        return int(self._ask("remove_owned", {"owner": owner})) if self._in_use() else 0

    def owners(self) -> set[str]:
        return set(self._ask("owners", {})) if self._in_use() else set()

    def close(self) -> None:
        return None

    def foreign_drops(self) -> list[str]:
        """Chains of nf_tables that drop by policy: rules in the legacy tables do not open them."""
        from netplug.errors import KernelRefused
        from netplug.firewall.nft_accept import dropping_chains
        from netplug.kernel import nftables
        from netplug.kernel.nfnetlink import Nfnetlink

        try:
            with Nfnetlink(self._fd) as link:
                chains = [nftables.read_chain(reply) for reply in link.dump(nftables.all_chains())]
        except (KernelRefused, OSError):  # no nf_tables in this kernel
            return []
        drops = {chain for family in FAMILIES for chain in dropping_chains(chains, family)}
        return [
            f"chain {chain.name} of the nf_tables table {chain.table} drops what it does not know,"
            ' and the iptables backend cannot open it: choose "firewall": "nft"'
            for chain in sorted(drops, key=lambda chain: (chain.table, chain.name))
        ]

    def _ask(self, verb: str, request: dict[str, Any]) -> Any:
        return run_child(self._fd, {"verb": verb, **request, **self._lock})

    def _in_use(self) -> bool:
        return any(read_active_tables_of(self._fd, family) for family in FAMILIES)

    def _flush_flows(self, intent: Publish, *, gone: bool) -> None:
        from netplug.kernel.conntrack import flush_udp

        flush_udp(self._fd, intent.family, intent.mappings, gone=gone)


class LegacyAccept:
    """`Firewall` for the `Accept` of a host whose policies live elsewhere (nft).

    nf_tables cannot override a drop of the legacy tables. Where their FORWARD drops what it does
    not know, these rules accept all of a bridge; what it may do, the other backend decides. They
    stand in DOCKER-USER where FORWARD leads there, else at the head of FORWARD. Where FORWARD or
    INPUT drops, questions to the name server are let in.
    """

    name = "legacy-accept"

    def __init__(self, fd: int, *, lockfile: str = LOCKFILE, patience: float = PATIENCE) -> None:
        self._fd = fd
        self._lock = {"lockfile": lockfile, "patience": patience}

    def present(self, intent: Intent) -> str | None:
        wanted = self._needed(intent)
        if wanted is None:
            return ""  # needs no child, and on most hosts no look at a table
        return _words(self._ask("legacy_present", wanted))

    def apply(self, intent: Intent) -> bool:
        wanted = self._needed(intent)
        return wanted is not None and bool(self._ask("legacy_apply", wanted))

    def undo(self, intent: Intent) -> None:
        if not isinstance(intent, Accept):
            return
        if "filter" in read_active_tables_of(self._fd, intent.family):
            self._ask("legacy_undo", intent)

    def remove_owned(self, owner: str) -> int:
        return 0

    def owners(self) -> set[str]:
        return set()

    def close(self) -> None:
        return None

    def foreign_drops(self) -> list[str]:
        return []

    def _needed(self, intent: Intent) -> Accept | None:
        """What of it the chains would drop by themselves."""
        from netplug.kernel.xtables import FORWARD, INPUT, legacy_drops

        if not isinstance(intent, Accept):
            return None
        if intent.forward and legacy_drops(self._fd, intent.family, FORWARD):
            return intent
        if legacy_drops(self._fd, intent.family, INPUT):
            return Accept(intent.bridge, intent.family, forward=False)
        return None

    def _ask(self, verb: str, intent: Accept) -> Any:
        request = {"verb": verb, "bridge": intent.bridge, "family": intent.family}
        return run_child(self._fd, {**request, "forward": intent.forward, **self._lock})


def _described(intent: Intent) -> dict[str, Any]:
    return {"kind": type(intent).__name__, "intent": encode(intent)}


def _words(answer: Any) -> str | None:
    return None if answer is None else str(answer)


def _is_about_frames(intent: Intent) -> bool:
    """Never applied by this backend, so nothing is to be undone."""
    if isinstance(intent, Base):
        return intent.family == "bridge"
    return isinstance(intent, SpoofGuard)
