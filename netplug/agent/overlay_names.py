"""Tells the name server of this host which containers other nodes have."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from netplug.cni.naming import parse_names
from netplug.dns.protocol import NAME, ask
from netplug.model import IPNetwork
from netplug.overlay.keys import NameRecord

STEP = 100  # containers in one request, which is bounded
AGAIN_SECONDS = 2.0  # until a name server that may have been started anew is asked what it has

Entries = dict[str, dict[str, Any]]  # by owner


class RemoteNames:
    """What the name server at `folder` was told, by network; it is told the difference."""

    def __init__(self, folder: Path, host: str) -> None:
        self._path, self._host = folder / NAME, host
        self._told: dict[str, Entries] = {}
        self._wanted: dict[str, tuple[int, Entries]] = {}
        self._marks: dict[str, str] = {}
        self._asked: dict[str, float] = {}
        self._numbers = itertools.count(1)
        self._prefix = secrets.token_hex(4)

    def tell(
        self,
        network: str,
        version: int,
        compute: Callable[[], Entries],
    ) -> None:
        """Makes it so that these, and no others, are the remote names of the network.

        `compute` is called where `version` is another one than the last time.
        """
        now = time.monotonic()
        known, wanted = self._wanted.get(network, (-1, {}))
        if known == version and now < self._asked.get(network, 0.0) + AGAIN_SECONDS:
            return
        if known != version:
            wanted = compute()
            self._wanted[network] = version, wanted
        told = self._told.get(network, {})
        self._asked[network] = now
        try:
            if not self._advance(network, told, wanted):
                self._marks.pop(network, None)
                self._advance(network, {}, wanted)
        except (OSError, ValueError):  # none runs: whoever starts one is told then
            self._told.pop(network, None)
            self._marks.pop(network, None)

    def _advance(self, network: str, told: Entries, wanted: Entries) -> bool:
        """Sends the difference in steps; False where the name server is at another mark."""
        drop = [owner for owner in told if owner not in wanted]
        put = [entry for owner, entry in wanted.items() if told.get(owner) != entry]
        steps = max(1, -(-max(len(drop), len(put)) // STEP))
        for number in range(steps):
            part = slice(number * STEP, (number + 1) * STEP)
            mark = f"{self._prefix}-{next(self._numbers)}"
            request = {
                "command": "remote",
                "host": self._host,
                "network": network,
                "after": self._marks.get(network, ""),
                "mark": mark,
                "drop": drop[part],
                "put": put[part],
            }
            if ask(self._path, request).get("mark") != mark:
                return False
            self._marks[network] = mark
        self._told[network] = wanted
        return True

    def forget(self, network: str) -> None:
        self.tell(network, -2, dict)
        self._wanted.pop(network, None)


def compute_entries(
    config: dict[str, Any], ranges: tuple[IPNetwork, ...], records: list[NameRecord]
) -> Entries:
    """`ranges`: those of the whole network; all addresses in them are ours to answer for."""
    names, _ = parse_names(config)
    if names is None:
        return {}
    return {
        f"{record.node}:{record.owner}": {
            "owner": f"{record.node}:{record.owner}",
            "names": list(record.names),
            "addresses": [str(address.ip) for address in record.addresses],
            "domain": names.domain,
            "ttl": names.ttl,
            "internal": bool(config.get("internal")),
            "subnets": [str(whole) for whole in ranges],
        }
        for record in records
        if record.names
    }
